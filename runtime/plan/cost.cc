#include "runtime/plan/cost.h"

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace echelon::plan {
namespace {

using graph::Graph;
using graph::Node;
using graph::Value;
using graph::ValueType;

// The tensor an argument holds, by the schema's name of it; null when absent or a list.
const Value* TensorArgument(const Graph& graph, const Node& node, std::string_view name) {
  for (const graph::Argument& argument : node.arguments) {
    if (argument.name != name || argument.is_list) continue;
    const auto* ref = std::get_if<graph::ValueRef>(&argument.items.front());
    return ref && graph.values[ref->id].type == ValueType::kTensor ? &graph.values[ref->id]
                                                                   : nullptr;
  }
  return nullptr;
}

int64_t ResultElements(const Graph& graph, const Node& node) {
  int64_t elements = 0;
  graph::ForEachResult(node, [&](graph::ValueId id) {
    if (graph.values[id].type == ValueType::kTensor) {
      elements = SaturatingAdd(elements, Elements(graph.values[id]));
    }
  });
  return elements;
}

int64_t DimAt(const Value& value, int from_end) {
  const int index = static_cast<int>(value.shape.size()) - from_end;
  return index < 0 ? 1 : std::max<int64_t>(value.shape[index].hint, 0);
}

// Every element of the result is a sum over the last dimension of `left`.
int64_t MatmulFlops(const Graph& graph, const Node& node, std::string_view left) {
  const Value* a = TensorArgument(graph, node, left);
  return a ? SaturatingMultiply(SaturatingMultiply(2, DimAt(*a, 1)), ResultElements(graph, node))
           : 0;
}

int64_t ConvolutionFlops(const Graph& graph, const Node& node) {
  const Value* weight = TensorArgument(graph, node, "weight");
  const Value* input = TensorArgument(graph, node, "input");
  if (!weight || !input || weight->shape.empty()) return 0;
  const int64_t filters = std::max<int64_t>(weight->shape[0].hint, 1);
  const bool transposed = node.target.find("transpose") != std::string::npos;
  const int64_t places = transposed ? Elements(*input) : ResultElements(graph, node);
  return SaturatingMultiply(2 * (Elements(*weight) / filters), places);
}

int64_t AttentionFlops(const Graph& graph, const Node& node) {
  const Value *query = TensorArgument(graph, node, "query"),
              *key = TensorArgument(graph, node, "key");
  if (!query || !key) return 0;
  return SaturatingMultiply(SaturatingMultiply(4, DimAt(*key, 2)), Elements(*query));
}

// Each weight matrix meets every row of the input; the weights come as one list.
int64_t RecurrentFlops(const Graph& graph, const Node& node) {
  const Value* input = TensorArgument(graph, node, "input");
  if (!input) return 0;
  int64_t weights = 0;
  for (const graph::Argument& argument : node.arguments) {
    if (argument.name != "params") continue;
    for (const graph::Item& item : argument.items) {
      const auto* ref = std::get_if<graph::ValueRef>(&item);
      if (ref) weights = SaturatingAdd(weights, Elements(graph.values[ref->id]));
    }
  }
  const int64_t rows = Elements(*input) / std::max<int64_t>(DimAt(*input, 1), 1);
  return SaturatingMultiply(2 * weights, rows);
}

std::string_view WithoutOverload(std::string_view target) {
  constexpr std::string_view kPrefix = "torch.ops.";
  if (target.starts_with(kPrefix)) target.remove_prefix(kPrefix.size());
  return target.substr(0, target.find('.', target.find('.') + 1));
}

bool IsView(const graph::OperatorSchema* schema) {
  if (!schema || schema->is_mutable) return false;
  return std::any_of(schema->results.begin(), schema->results.end(),
                     [](const graph::Formal& result) { return result.alias_set >= 0; });
}

int64_t BytesMoved(const Graph& graph, const Node& node) {
  int64_t bytes = 0;
  const auto add = [&](graph::ValueId id) {
    bytes = SaturatingAdd(bytes, ValueBytes(graph.values[id]));
  };
  graph::ForEachResult(node, add);
  if (WithoutOverload(node.target) == "aten.embedding") return SaturatingMultiply(bytes, 2);
  graph::ForEachUse(node, add);
  return bytes;
}

int64_t NodeCost(const Graph& graph, const Node& node, const graph::OperatorSchema* schema) {
  bool tensors = false;
  graph::ForEachResult(
      node, [&](graph::ValueId id) { tensors |= graph.values[id].type == ValueType::kTensor; });
  if (!tensors) return kScalarNs;
  if (IsView(schema)) return kViewNs;
  return kOverheadNs +
         std::max(Flops(graph, node) / kFlopsPerNs, BytesMoved(graph, node) / kBytesPerNs);
}

}  // namespace

int64_t SaturatingMultiply(int64_t a, int64_t b) {
  int64_t product;
  return __builtin_mul_overflow(a, b, &product) ? kMost : std::min(product, kMost);
}

int64_t SaturatingAdd(int64_t a, int64_t b) {
  int64_t sum;
  return __builtin_add_overflow(a, b, &sum) ? kMost : std::min(sum, kMost);
}

int64_t Elements(const Value& value) {
  int64_t elements = 1;
  for (const graph::Dim& dim : value.shape) {
    elements = SaturatingMultiply(elements, std::max<int64_t>(dim.hint, 0));
  }
  return elements;
}

int64_t ValueBytes(const Value& value) {
  switch (value.type) {
    case ValueType::kTensor:
      return SaturatingMultiply(Elements(value), static_cast<int64_t>(ElementBytes(value.dtype)));
    case ValueType::kNone:
      return 0;
    default:
      return 8;
  }
}

int64_t Flops(const Graph& graph, const Node& node) {
  static const auto* const left_of = new std::map<std::string_view, std::string_view>{
      {"aten.linear", "input"}, {"aten.addmm", "mat1"},  {"aten.mm", "self"},
      {"aten.bmm", "self"},     {"aten.matmul", "self"}, {"aten.baddbmm", "batch1"},
      {"aten.addmv", "mat"},    {"aten.mv", "self"},     {"aten.addbmm", "batch1"}};
  const std::string_view name = WithoutOverload(node.target);
  const auto found = left_of->find(name);
  if (found != left_of->end()) return MatmulFlops(graph, node, found->second);
  if (name.starts_with("aten.conv")) return ConvolutionFlops(graph, node);
  if (name.find("scaled_dot_product") != name.npos) return AttentionFlops(graph, node);
  if (name == "aten.lstm" || name == "aten.gru" || name.starts_with("aten.rnn_")) {
    return RecurrentFlops(graph, node);
  }
  return 0;
}

std::vector<int64_t> NodeCosts(const Graph& graph, const graph::SchemaLookup& schemas) {
  std::vector<int64_t> costs;
  for (const Node& node : graph.nodes) {
    costs.push_back(NodeCost(graph, node, schemas ? schemas(node.target) : nullptr));
  }
  return costs;
}

std::string BytesText(int64_t bytes) {
  static constexpr const char* kUnits[] = {"KiB", "MiB", "GiB", "TiB", "PiB"};
  if (bytes < 1024) return absl::StrCat(bytes, " B");
  double amount = static_cast<double>(bytes);
  size_t unit = 0;
  for (amount /= 1024; amount >= 1023.95 && unit + 1 < std::size(kUnits); ++unit) amount /= 1024;
  return absl::StrFormat("%.1f %s", amount, kUnits[unit]);
}

std::string CountText(int64_t count) {
  if (count < 1000) return absl::StrCat(count);
  static constexpr const char* kUnits[] = {"k", "M", "B", "T"};
  double amount = static_cast<double>(count);
  size_t unit = 0;
  for (amount /= 1000; amount >= 999.95 && unit + 1 < std::size(kUnits); ++unit) amount /= 1000;
  return absl::StrFormat("%.1f %s", amount, kUnits[unit]);
}

}  // namespace echelon::plan
