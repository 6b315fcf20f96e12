#include "runtime/graph/batch.h"

#include "absl/strings/str_cat.h"
#include "runtime/graph/alias.h"
#include "runtime/graph/byte_source.h"
#include "runtime/graph/expr.h"
#include "runtime/graph/rows.h"

namespace echelon::graph {
namespace {

bool CarriesIt(const Value& value, const std::string& symbol) {
  return value.type == ValueType::kTensor && !value.shape.empty() && value.shape[0].expr == symbol;
}

bool Mentions(const std::string& text, const std::string& symbol) {
  if (text.empty()) return false;
  const absl::StatusOr<Expr> expr = Expr::Parse(text);
  return !expr.ok() || expr->Symbols().contains(symbol);
}

// Where an input has the symbol otherwise than as its rows.
bool MentionsElsewhere(const Value& value, const std::string& symbol) {
  if (Mentions(value.expr, symbol)) return true;
  for (size_t i = 0; i < value.shape.size(); ++i) {
    if (Mentions(value.shape[i].expr, symbol) && !(i == 0 && value.shape[i].expr == symbol))
      return true;
  }
  return false;
}

std::string FindSymbol(const Graph& graph) {
  for (const Input& input : graph.inputs) {
    const Value& value = graph.values[input.value];
    if (value.shape.empty() || !value.shape[0].symbolic()) continue;
    const absl::StatusOr<Expr> expr = Expr::Parse(value.shape[0].expr);
    if (expr.ok() && expr->IsSymbol()) return value.shape[0].expr;
  }
  return "";
}

std::string Obstacle(const Graph& graph, const SchemaLookup& schemas, const BatchInfo& info) {
  if (info.symbol.empty()) return "no input has a dynamic batch dimension";
  for (const Input& input : graph.inputs) {
    if (MentionsElsewhere(graph.values[input.value], info.symbol)) {
      return absl::StrCat("input ", Quoted(input.name),
                          " has the batch size elsewhere than in dimension 0");
    }
  }
  for (size_t i = 0; i < graph.outputs.size(); ++i) {
    if (!info.outputs[i]) {
      return absl::StrCat("output ", Quoted(graph.outputs[i].name), " has no batch dimension");
    }
  }
  const Aliases aliases(graph, schemas);
  for (size_t id = 0; id < graph.values.size(); ++id) {
    const int stored = graph.values[id].stored;
    if (stored >= 0 && aliases.IsWritten(aliases.ClassOf(static_cast<ValueId>(id)))) {
      return absl::StrCat("buffer ", Quoted(graph.stored[stored].name), " is written");
    }
  }
  return WhereRowsMeet(graph, info.symbol);
}

}  // namespace

BatchInfo BatchSymbol(const Graph& graph, const SchemaLookup& schemas) {
  BatchInfo info{.symbol = FindSymbol(graph)};
  const auto carries = [&](ValueId id) {
    return !info.symbol.empty() && CarriesIt(graph.values[id], info.symbol);
  };
  for (const Input& input : graph.inputs) info.inputs.push_back(carries(input.value));
  for (const Output& output : graph.outputs) {
    const ValueRef* ref = std::get_if<ValueRef>(&output.item);
    info.outputs.push_back(ref && carries(ref->id));
  }
  info.why = Obstacle(graph, schemas, info);
  info.chunkable = info.why.empty();
  return info;
}

}  // namespace echelon::graph
