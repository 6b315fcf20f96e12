// A 128-bit digest of a sequence of fields (SHA-256 cut short), as 32 hex digits. Each field is
// written with its length, so that no two sequences read alike.
#ifndef ECHELON_RUNTIME_GRAPH_DIGEST_H_
#define ECHELON_RUNTIME_GRAPH_DIGEST_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "runtime/graph/graph.h"

namespace echelon::graph {

class Digest {
 public:
  void Add(std::string_view text);
  void Add(int64_t number);
  void Add(double number);
  std::string Hex() const;  // "" only if the crypto library fails

 private:
  std::string bytes_;
};

// Everything of a graph but its name, its digest and where its file lies.
void AddGraph(const Graph& graph, Digest* digest);

}  // namespace echelon::graph

#endif  // ECHELON_RUNTIME_GRAPH_DIGEST_H_
