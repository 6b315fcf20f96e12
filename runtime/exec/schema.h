// Operators' schemas, from torch's registry, as the planner and the passes want them.
#ifndef ECHELON_RUNTIME_EXEC_SCHEMA_H_
#define ECHELON_RUNTIME_EXEC_SCHEMA_H_

#include <ATen/core/dispatch/Dispatcher.h>

#include <optional>
#include <string>

#include "runtime/graph/graph.h"

namespace echelon::exec {

// "torch.ops.aten.linear.default" -> the operator; none when nobody registered it.
std::optional<c10::OperatorHandle> FindOperator(const std::string& target);

// Looks schemas up in the dispatcher and keeps them: pointers stay valid as long as the lookup's
// copies live.
graph::SchemaLookup DispatcherSchemas();

}  // namespace echelon::exec

#endif  // ECHELON_RUNTIME_EXEC_SCHEMA_H_
