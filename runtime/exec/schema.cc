#include "runtime/exec/schema.h"

#include <algorithm>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string_view>
#include <vector>

#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "runtime/exec/python_ops.h"
#include "runtime/ops/operators.h"

namespace echelon::exec {
namespace {

// These may hand an argument itself back, or a view of it, though their schema promises a fresh
// tensor: dropout in inference, shape helpers that find nothing to do.
bool MayAliasAny(std::string_view name) {
  static const std::set<std::string_view> kNames{
      "aten::dropout",        "aten::feature_dropout",
      "aten::alpha_dropout",  "aten::feature_alpha_dropout",
      "aten::atleast_1d",     "aten::atleast_2d",
      "aten::atleast_3d",     "aten::broadcast_tensors",
      "aten::meshgrid",       "aten::einsum",
      "aten::type_as",        "aten::conj_physical",
      "aten::resolve_conj",   "aten::resolve_neg",
      "aten::cartesian_prod", "aten::sum_to_size",
      "aten::_unsafe_view",   "aten::lift",
      "aten::chain_matmul",   "aten::data"};
  return kNames.contains(name);
}

// The set that a value or, of a list, its elements lie in: "Tensor(a)[]" annotates the contained
// type. Null: fresh.
const c10::Symbol* AliasSet(const c10::AliasInfo& alias) {
  if (!alias.beforeSets().empty()) return &*alias.beforeSets().begin();
  for (const c10::AliasInfo& contained : alias.containedTypes())
    if (const c10::Symbol* symbol = AliasSet(contained)) return symbol;
  return nullptr;
}

bool IsWritten(const c10::AliasInfo& alias) {
  return alias.isWrite() ||
         std::any_of(alias.containedTypes().begin(), alias.containedTypes().end(), IsWritten);
}

graph::Formal Convert(const c10::Argument& argument, std::map<std::string, int>& sets) {
  graph::Formal formal{.name = argument.name()};
  const c10::AliasInfo* alias = argument.alias_info();
  if (!alias) return formal;
  formal.writes = IsWritten(*alias);
  const c10::Symbol* symbol = AliasSet(*alias);
  const std::string name = symbol ? symbol->toQualString() : "*";
  formal.alias_set = sets.try_emplace(name, static_cast<int>(sets.size())).first->second;
  return formal;
}

graph::OperatorSchema Convert(const c10::FunctionSchema& schema) {
  graph::OperatorSchema converted;
  std::map<std::string, int> sets;
  for (const c10::Argument& argument : schema.arguments())
    converted.arguments.push_back(Convert(argument, sets));
  for (const c10::Argument& result : schema.returns()) {
    converted.results.push_back(Convert(result, sets));
    const c10::Symbol* symbol = result.alias_info() ? AliasSet(*result.alias_info()) : nullptr;
    converted.may_alias_any |= symbol && *symbol == c10::AliasInfo::wildcardSet();
  }
  converted.is_mutable = schema.is_mutable();
  converted.may_alias_any |= MayAliasAny(schema.name());
  return converted;
}

}  // namespace

std::optional<c10::OperatorHandle> FindOperator(const std::string& target) {
  ops::RegisterOperators();
  absl::string_view rest = target;
  if (!absl::ConsumePrefix(&rest, "torch.ops.")) return std::nullopt;
  const std::vector<std::string> parts = absl::StrSplit(rest, '.');
  if (parts.size() != 3) return std::nullopt;
  const std::string overload = parts[2] == "default" ? "" : parts[2];
  return c10::Dispatcher::singleton().findSchema({parts[0] + "::" + parts[1], overload});
}

graph::SchemaLookup DispatcherSchemas() {
  struct Cache {
    std::mutex mutex;
    std::map<std::string, std::unique_ptr<graph::OperatorSchema>> schemas;
  };
  return [cache = std::make_shared<Cache>()](
             const std::string& target) -> const graph::OperatorSchema* {
    const std::lock_guard lock(cache->mutex);
    const auto [entry, is_new] = cache->schemas.try_emplace(target);
    if (is_new) {
      if (FindPythonOperator(target))
        entry->second = std::make_unique<graph::OperatorSchema>();
      else if (const auto op = FindOperator(target))
        entry->second = std::make_unique<graph::OperatorSchema>(Convert(op->schema()));
    }
    return entry->second.get();
  };
}

}  // namespace echelon::exec
