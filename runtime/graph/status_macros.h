// Early return for absl::Status and absl::StatusOr. For .cc files only.
#ifndef ECHELON_RUNTIME_GRAPH_STATUS_MACROS_H_
#define ECHELON_RUNTIME_GRAPH_STATUS_MACROS_H_

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#define ECHELON_CONCAT_INNER(a, b) a##b
#define ECHELON_CONCAT(a, b) ECHELON_CONCAT_INNER(a, b)

#define ECHELON_RETURN_IF_ERROR(expression)                   \
  do {                                                        \
    if (absl::Status status_ = (expression); !status_.ok()) { \
      return status_;                                         \
    }                                                         \
  } while (false)

#define ECHELON_ASSIGN_OR_RETURN(declaration, expression) \
  ECHELON_ASSIGN_OR_RETURN_INNER(ECHELON_CONCAT(or_, __LINE__), declaration, expression)
#define ECHELON_ASSIGN_OR_RETURN_INNER(holder, declaration, expression) \
  auto holder = (expression);                                           \
  if (!holder.ok()) return holder.status();                             \
  declaration = *std::move(holder)

#endif  // ECHELON_RUNTIME_GRAPH_STATUS_MACROS_H_
