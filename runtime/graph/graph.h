// The exported program as a value: what the .pt2 reader makes, passes rewrite, the planner cuts and
// stages run. No torch types. Ids are indices: a ValueId indexes Graph::values, a node index
// Graph::nodes (in execution order).
#ifndef ECHELON_RUNTIME_GRAPH_GRAPH_H_
#define ECHELON_RUNTIME_GRAPH_GRAPH_H_

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "runtime/tensor/dtype.h"

namespace echelon::graph {

using ValueId = int32_t;

// A size: a number, or an expression over the graph's symbols ("s0", "2*s0 + 1") with the value it
// had at export.
struct Dim {
  int64_t hint = 0;  // the number itself when expr is empty
  std::string expr;
  bool symbolic() const { return !expr.empty(); }
};

enum class ValueType { kTensor, kInt, kFloat, kBool, kNone };

// Where a parameter, buffer or constant lies in the archive. strides and storage_offset (elements)
// apply to the whole record, so tied and transposed parameters share or reorder bytes.
struct Stored {
  enum Kind { kParameter, kBuffer, kConstant } kind = kParameter;
  std::string name;    // "net1.weight"
  std::string record;  // record's name inside the zip; equal for tied parameters
  DType dtype = DType::kF32;
  std::vector<int64_t> shape, strides;
  int64_t storage_offset = 0;
  uint64_t offset = 0, nbytes = 0;  // of the record's bytes inside the file
  std::string path;                 // the file
  uint32_t crc32 = 0;               // of those bytes, as the archive states it; 0: it states none
};

struct Value {
  std::string name;
  ValueType type = ValueType::kTensor;
  DType dtype = DType::kF32;        // tensors only
  std::vector<Dim> shape, strides;  // tensors only
  std::optional<int64_t> hint;      // integer scalars: the value at export, where the file tells
  std::string expr;  // integer scalars: the size expression they are, where the file tells
  int stored = -1;   // index into Graph::stored; -1: computed or fed
};

struct None {
  bool operator==(const None&) const = default;
};
struct Layout {  // strided is the only one a reader lets through
  bool operator==(const Layout&) const = default;
};
enum class MemoryFormat { kContiguous, kChannelsLast, kChannelsLast3d, kPreserve };
struct Device {  // "cpu", "cuda:0" as exported; the executor puts its own in its place
  std::string text;
  bool operator==(const Device&) const = default;
};
struct ValueRef {
  ValueId id = -1;
  bool operator==(const ValueRef&) const = default;
};

using Item = std::variant<None, bool, int64_t, double, std::string, DType, Layout, MemoryFormat,
                          Device, ValueRef>;

struct Argument {
  std::string
      name;  // of the operator's schema; "" where the file gives none (Python operators: in order)
  bool is_list = false;  // otherwise items holds exactly one
  std::vector<Item> items;
  bool keyword = false;  // given by name in the program; the printer shows it so
};

struct Result {
  bool is_list = false;  // the operator returns one list, whose elements are the values
  std::vector<ValueId> values;
};

struct Node {
  std::string name;    // unique: the name of its first result, or of its target and index
  std::string target;  // "torch.ops.aten.linear.default", "_operator.mul", "torch.sym_max"
  std::vector<Argument> arguments;
  std::vector<Result> results;
  std::string module;  // path of the innermost module it came from, "layers.3.mlp"; "" when unknown
                       // or the root
};

struct Input {
  std::string name;  // the placeholder's: "x", "batch_ids"
  ValueId value = -1;
};

struct Output {
  std::string name;  // "output", "output_0", a dictionary's key, nested joined with "."
  Item item;         // a ValueRef or a literal number
};

struct Range {
  int64_t min = 0;
  int64_t max = INT64_MAX;
};

struct Graph {
  std::vector<Value> values;
  std::vector<Node> nodes;
  std::vector<Stored> stored;
  std::vector<Input> inputs;
  std::vector<Output> outputs;
  std::map<std::string, Range> symbols;  // bounds of each symbol
  std::string name;                      // the file's stem
  std::string digest;  // of the file's graph and weight tables, 32 hex digits: equal on all ranks
                       // or refused
};

// What an operator's schema says beyond its name; made from torch's registry by runtime/exec, by
// hand in tests.
struct Formal {
  std::string name;
  bool writes = false;  // (a!)
  int alias_set = -1;   // arguments and results of one set may share memory; -1: fresh
};
struct OperatorSchema {
  std::vector<Formal> arguments;
  std::vector<Formal> results;
  bool is_mutable = false;  // writes any argument
  bool may_alias_any =
      false;  // may return an argument itself although its schema does not say so (dropout in eval)
};
// Null: the operator is unknown. Python scalar operators have a schema with no aliases.
using SchemaLookup = std::function<const OperatorSchema*(const std::string& target)>;

// Calls visit(ValueId) for every value a node reads, in order, repeats included.
template <class Visit>
void ForEachUse(const Node& node, Visit visit) {
  for (const Argument& argument : node.arguments)
    for (const Item& item : argument.items)
      if (const ValueRef* ref = std::get_if<ValueRef>(&item)) visit(ref->id);
}

// Calls visit(ValueId) for every value a node makes.
template <class Visit>
void ForEachResult(const Node& node, Visit visit) {
  for (const Result& result : node.results)
    for (const ValueId id : result.values) visit(id);
}

}  // namespace echelon::graph

#endif  // ECHELON_RUNTIME_GRAPH_GRAPH_H_
