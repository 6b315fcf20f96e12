#include "runtime/graph/printer.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>
#include <type_traits>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace echelon::graph {
namespace {

constexpr size_t kCommentColumn = 88;  // longer code pushes its own comment out, not everyone's

std::string FloatText(double value) {
  if (std::isnan(value)) return "float('nan')";
  if (std::isinf(value)) return value < 0 ? "float('-inf')" : "float('inf')";
  char buffer[32];
  const auto [end, error] = std::to_chars(buffer, buffer + sizeof buffer, value);
  std::string text(buffer, end);
  if (text.find_first_of(".e") == std::string::npos) text += ".0";
  return text;
}

std::string DTypeText(DType dtype) {
  static const auto* const names =
      new std::map<DType, const char*>{{DType::kBool, "bool"},
                                       {DType::kU8, "uint8"},
                                       {DType::kI8, "int8"},
                                       {DType::kI16, "int16"},
                                       {DType::kI32, "int32"},
                                       {DType::kI64, "int64"},
                                       {DType::kF16, "float16"},
                                       {DType::kBF16, "bfloat16"},
                                       {DType::kF32, "float32"},
                                       {DType::kF64, "float64"},
                                       {DType::kU16, "uint16"},
                                       {DType::kU32, "uint32"},
                                       {DType::kU64, "uint64"},
                                       {DType::kF8E4M3, "float8_e4m3fn"},
                                       {DType::kF8E5M2, "float8_e5m2"},
                                       {DType::kC64, "complex64"},
                                       {DType::kC128, "complex128"}};
  const auto found = names->find(dtype);
  return absl::StrCat("torch.", found == names->end() ? "?" : found->second);
}

std::string MemoryFormatText(MemoryFormat format) {
  switch (format) {
    case MemoryFormat::kContiguous:
      return "torch.contiguous_format";
    case MemoryFormat::kChannelsLast:
      return "torch.channels_last";
    case MemoryFormat::kChannelsLast3d:
      return "torch.channels_last_3d";
    case MemoryFormat::kPreserve:
      return "torch.preserve_format";
  }
  return "?";
}

struct ItemPrinter {
  const Graph& graph;

  std::string operator()(None) const { return "None"; }
  std::string operator()(bool value) const { return value ? "True" : "False"; }
  std::string operator()(int64_t value) const { return absl::StrCat(value); }
  std::string operator()(double value) const { return FloatText(value); }
  std::string operator()(const std::string& value) const {
    return absl::StrCat("'", absl::CHexEscape(value), "'");
  }
  std::string operator()(DType value) const { return DTypeText(value); }
  std::string operator()(Layout) const { return "torch.strided"; }
  std::string operator()(MemoryFormat value) const { return MemoryFormatText(value); }
  std::string operator()(const Device& value) const {
    return absl::StrCat("torch.device('", absl::CHexEscape(value.text), "')");
  }
  std::string operator()(ValueRef ref) const {
    const Value& value = graph.values[ref.id];
    return value.stored < 0 ? value.name : absl::StrCat("self.", graph.stored[value.stored].name);
  }
};

std::string ArgumentText(const Graph& graph, const Argument& argument) {
  if (!argument.is_list) return ItemText(graph, argument.items.front());
  return absl::StrCat("[",
                      absl::StrJoin(argument.items, ", ",
                                    [&](std::string* out, const Item& item) {
                                      absl::StrAppend(out, ItemText(graph, item));
                                    }),
                      "]");
}

// "torch.ops.aten.linear.default" reads "aten.linear".
std::string TargetText(const std::string& target) {
  std::string_view text = target;
  if (text.starts_with("torch.ops.")) text.remove_prefix(10);
  if (text.ends_with(".default")) text.remove_suffix(8);
  return std::string(text);
}

const char* InfixOf(const std::string& target) {
  static const auto* const symbols = new std::map<std::string, const char*>{
      {"_operator.add", "+"},       {"_operator.sub", "-"},     {"_operator.mul", "*"},
      {"_operator.floordiv", "//"}, {"_operator.truediv", "/"}, {"_operator.mod", "%"},
      {"_operator.pow", "**"},      {"_operator.eq", "=="},     {"_operator.ne", "!="},
      {"_operator.lt", "<"},        {"_operator.le", "<="},     {"_operator.gt", ">"},
      {"_operator.ge", ">="}};
  const auto found = symbols->find(target);
  return found == symbols->end() ? nullptr : found->second;
}

std::string CallText(const Graph& graph, const Node& node) {
  std::vector<std::string> parts;
  for (const Argument& argument : node.arguments) {
    const std::string name = argument.keyword ? absl::StrCat(argument.name, "=") : "";
    parts.push_back(name + ArgumentText(graph, argument));
  }
  const char* infix = parts.size() == 2 ? InfixOf(node.target) : nullptr;
  if (infix) return absl::StrCat(parts[0], " ", infix, " ", parts[1]);
  return absl::StrCat(TargetText(node.target), "(", absl::StrJoin(parts, ", "), ")");
}

struct Line {
  std::string code, comment;
};

Line NodeLine(const Graph& graph, const Node& node) {
  std::vector<std::string> names, types;
  for (const Result& result : node.results) {
    std::vector<std::string> inner;
    for (const ValueId id : result.values) {
      const Value& value = graph.values[id];
      inner.push_back(value.type == ValueType::kNone ? "_" : value.name);
      types.push_back(TypeText(value));
    }
    const std::string joined = absl::StrJoin(inner, ", ");
    names.push_back(result.is_list ? absl::StrCat("[", joined, "]") : joined);
  }
  const std::string left = names.empty() ? "" : absl::StrJoin(names, ", ") + " = ";
  return {absl::StrCat("    ", left, CallText(graph, node)), absl::StrJoin(types, ", ")};
}

std::string Align(const std::vector<Line>& lines) {
  size_t column = 0;
  for (const Line& line : lines) {
    if (line.code.size() <= kCommentColumn) column = std::max(column, line.code.size());
  }
  std::string out;
  for (const Line& line : lines) {
    const size_t pad = line.code.size() < column ? column - line.code.size() : 0;
    absl::StrAppend(&out, line.code);
    if (!line.comment.empty()) absl::StrAppend(&out, std::string(pad + 2, ' '), "# ", line.comment);
    absl::StrAppend(&out, "\n");
  }
  return out;
}

std::string Print(const Graph& graph, int begin, int end, const std::vector<ValueId>& receives,
                  const std::vector<Item>& returns) {
  std::vector<std::string> names{"self"}, types;
  for (const ValueId id : receives) {
    names.push_back(graph.values[id].name);
    types.push_back(absl::StrCat(graph.values[id].name, ": ", TypeText(graph.values[id])));
  }
  std::vector<Line> lines{
      {absl::StrCat("def forward(", absl::StrJoin(names, ", "), "):"), absl::StrJoin(types, ", ")}};
  for (int i = begin; i < end; ++i) lines.push_back(NodeLine(graph, graph.nodes[i]));
  std::vector<std::string> returned;
  for (const Item& item : returns) returned.push_back(ItemText(graph, item));
  const std::string joined = absl::StrJoin(returned, ", ");
  lines.push_back({absl::StrCat("    return", joined.empty() ? "" : " ", joined), ""});
  return Align(lines);
}

}  // namespace

std::string ItemText(const Graph& graph, const Item& item) {
  return std::visit(ItemPrinter{graph}, item);
}

std::string TypeText(const Value& value) {
  switch (value.type) {
    case ValueType::kTensor:
      break;
    case ValueType::kInt:
      return value.expr.empty() ? "int" : absl::StrCat("int ", value.expr);
    case ValueType::kFloat:
      return "float";
    case ValueType::kBool:
      return "bool";
    case ValueType::kNone:
      return "none";
  }
  return absl::StrCat(std::string(Name(value.dtype)), "[",
                      absl::StrJoin(value.shape, ", ",
                                    [](std::string* out, const Dim& dim) {
                                      absl::StrAppend(
                                          out, dim.symbolic() ? dim.expr : absl::StrCat(dim.hint));
                                    }),
                      "]");
}

std::string PrintCode(const Graph& graph, int begin, int end, const std::vector<ValueId>& receives,
                      const std::vector<ValueId>& sends) {
  std::vector<Item> returns;
  for (const ValueId id : sends) returns.emplace_back(ValueRef{id});
  return Print(graph, begin, end, receives, returns);
}

std::string PrintGraph(const Graph& graph) {
  std::string out;
  for (const auto& [symbol, range] : graph.symbols) {
    const std::string most = range.max == INT64_MAX ? "" : absl::StrCat(range.max);
    absl::StrAppend(&out, "# ", symbol, ": ", range.min, "..", most, "\n");
  }
  std::vector<ValueId> receives;
  for (const Input& input : graph.inputs) receives.push_back(input.value);
  std::vector<Item> returns;
  for (const Output& output : graph.outputs) returns.push_back(output.item);
  return out + Print(graph, 0, static_cast<int>(graph.nodes.size()), receives, returns);
}

}  // namespace echelon::graph
