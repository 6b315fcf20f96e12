// Graphs, schemas and .pt2 archives made by hand, for tests and fuzz seeds. No torch.
#ifndef ECHELON_TESTS_GRAPH_TESTING_H_
#define ECHELON_TESTS_GRAPH_TESTING_H_

#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "runtime/graph/graph.h"

namespace echelon::graph::testing {

// ---- graphs ----------------------------------------------------------------------------------

// Dim from a number or an expression; "s0" gets hint 4.
Dim D(int64_t size);
Dim D(const char* expr, int64_t hint = 4);

// Adds inputs, stored tensors and nodes in order; operator arguments are named after the schemas
// below.
class GraphMaker {
 public:
  GraphMaker() { graph_.digest = "0123456789abcdef0123456789abcdef"; }

  ValueId Input(const std::string& name, std::vector<Dim> shape, DType dtype = DType::kF32);
  ValueId Stored(const std::string& name, std::vector<int64_t> shape,
                 Stored::Kind kind = Stored::kParameter, const std::string& record = "");
  // target: "linear" for torch.ops.aten.linear.default, "add.Tensor", or a full name. One f32
  // result.
  ValueId Node(const std::string& target, std::vector<Item> arguments, std::vector<Dim> shape,
               const std::string& module = "");
  // Several results, as a list or a tuple; all of one shape.
  std::vector<ValueId> NodeOf(const std::string& target, std::vector<Item> arguments, int results,
                              bool list, std::vector<Dim> shape, const std::string& module = "");
  ValueId Scalar(const std::string& target, std::vector<Item> arguments, int64_t hint,
                 const std::string& expr = "");
  void Output(const std::string& name, Item item) { graph_.outputs.push_back({name, item}); }

  Graph& graph() { return graph_; }

 private:
  ValueId AddValue(Value value);
  std::string FullTarget(const std::string& target) const;
  Graph graph_;
};

Item V(ValueId id);  // a reference, as an argument

// A few dozen operators with torch's own alias annotations.
SchemaLookup Schemas();

// The article's Net: linear 128x128, relu, linear 8x128, batch s0 in 1..64.
Graph Net();

// ---- archives --------------------------------------------------------------------------------

using Entries = std::vector<std::pair<std::string, std::string>>;  // name, bytes
// A zip with stored entries, as torch writes them (sizes in the directory, zip64 end when asked).
std::string MakeZip(const Entries& entries, bool zip64 = false);

// A .pt2 of one linear layer ("fc", 2x3) on x [s0, 3], as JSON documents that a test may spoil
// before Bytes().
struct Pt2 {
  Pt2();
  nlohmann::json program, weights, constants;
  std::map<std::string, std::string> records;  // "data/weights/weight_0" -> bytes
  std::string root = "net";

  nlohmann::json& graph() { return program["graph_module"]["graph"]; }
  nlohmann::json& signature() { return program["graph_module"]["signature"]; }
  void SetOutSpec(const nlohmann::json& spec);
  Entries Files() const;
  std::string Bytes() const { return MakeZip(Files()); }
};

nlohmann::json TensorMetaJson(int dtype, const std::vector<nlohmann::json>& sizes,
                              const std::vector<int64_t>& strides, int64_t offset = 0);
nlohmann::json SymbolJson(const std::string& name, int64_t hint);  // a size in constructor form
using Arguments = std::vector<std::pair<std::string, nlohmann::json>>;  // name, {"as_tensor": ...}
nlohmann::json NodeJson(const std::string& target, const Arguments& inputs,
                        const std::vector<nlohmann::json>& outputs, const std::string& module = "");
nlohmann::json UserOutput(const nlohmann::json& argument);  // an output spec
nlohmann::json TensorArg(const std::string& name);          // {"as_tensor": {"name": ...}}

}  // namespace echelon::graph::testing

#endif  // ECHELON_TESTS_GRAPH_TESTING_H_
