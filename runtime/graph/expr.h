// Size expressions over the graph's symbols, as sympy prints them: "s0", "2*s0 + 1", "s0//2",
// "Mod(s0, 4)", "Max(1, s0)", and the constructor form .pt2 files hold: "Mul(Integer(2),
// Symbol('s0', positive=True))".
#ifndef ECHELON_RUNTIME_GRAPH_EXPR_H_
#define ECHELON_RUNTIME_GRAPH_EXPR_H_

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace echelon::graph {

using SymbolValues = std::map<std::string, int64_t>;

class Expr {
 public:
  // Refuses text over 64 KiB, nesting over 60 and functions it does not know (named).
  static absl::StatusOr<Expr> Parse(std::string_view text);

  // Division is exact in between (fractions); an error when the result is no integer, overflows 64
  // bits, divides by zero, or needs a symbol that has no value (named). FloorDiv, //, Mod and
  // PythonMod round towards minus infinity.
  absl::StatusOr<int64_t> Evaluate(const SymbolValues& symbols) const;

  std::string ToString() const;  // infix: "2*s0 + 1"
  std::set<std::string> Symbols() const;
  bool IsSymbol() const;  // just a symbol, nothing around it

  struct Term;  // a node of the tree; known to expr.cc alone

 private:
  explicit Expr(std::shared_ptr<const Term> root) : root_(std::move(root)) {}
  std::shared_ptr<const Term> root_;
};

// Expr::Parse and Evaluate in one; an empty expression is an error.
absl::StatusOr<int64_t> Evaluate(std::string_view expr, const SymbolValues& symbols);

}  // namespace echelon::graph

#endif  // ECHELON_RUNTIME_GRAPH_EXPR_H_
