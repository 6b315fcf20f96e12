// Scalar operators that an export takes from Python: sizes are divided, compared and rounded by
// Python's rules.
#ifndef ECHELON_RUNTIME_EXEC_PYTHON_OPS_H_
#define ECHELON_RUNTIME_EXEC_PYTHON_OPS_H_

#include <ATen/core/stack.h>

#include <string>

namespace echelon::exec {

// Takes all its arguments, returns the one result. Throws std::runtime_error on a division by zero
// and the like.
using PythonOperator = c10::IValue (*)(const torch::jit::Stack&);

// "_operator.floordiv", "torch.sym_max", "math.ceil"...; null: not a Python operator that we know.
PythonOperator FindPythonOperator(const std::string& target);

}  // namespace echelon::exec

#endif  // ECHELON_RUNTIME_EXEC_PYTHON_OPS_H_
