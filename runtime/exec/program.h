// A stage's nodes compiled to instructions: operators resolved, arguments laid out as the boxed
// call wants them.
#ifndef ECHELON_RUNTIME_EXEC_PROGRAM_H_
#define ECHELON_RUNTIME_EXEC_PROGRAM_H_

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/stack.h>

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/exec/packed_linear.h"
#include "runtime/exec/python_ops.h"
#include "runtime/graph/graph.h"
#include "runtime/plan/plan.h"

namespace echelon::exec {

struct Operand {
  int slot = -1;  // in the frame; negative: the literal
  c10::IValue literal;
};

struct ArgumentTemplate {
  enum Form { kItem, kTensors, kOptionalTensors, kInts, kFloats } form = kItem;
  std::vector<Operand> operands;
  // Of a number fed where the schema wants a tensor, a list or another kind of number; null where
  // none can be.
  const c10::Argument* coerce = nullptr;
};

// Takes the place of an instruction's operator, when set: x W^T + b.
struct PackedCall {
  std::shared_ptr<const PackedLinear> linear;  // null: a SharedLinear of slot `weight`
  int input = -1, bias = -1, weight = -1;      // slots; negative: none
  bool transposed = false;                     // the weight's slot holds [K, N]
  bool is_set() const { return input >= 0; }
};

struct Instruction {
  const graph::Node* node = nullptr;
  int index = 0;  // the node's, in the graph
  std::optional<c10::OperatorHandle> op;
  PythonOperator python = nullptr;  // when op is absent
  PackedCall packed;
  bool elementwise = false;  // run by ops::RunElementwise, so that rows do not depend on others
  bool may_be_complex_pair = false;  // likewise, of two tensors, if the result is complex
  std::vector<ArgumentTemplate> arguments;
  std::vector<int> results;  // slots
  std::vector<int> frees;    // slots whose values are dead afterwards
};

struct Program {
  std::vector<Instruction> instructions;
  std::map<graph::ValueId, int> slots;  // of every value the stage touches, weights included
  std::vector<int> stored_slots;        // one for each graph.stored entry; -1: not this stage's
  std::vector<int> sent_slots;
};

// Errors name the node, its target and the argument.
absl::StatusOr<Program> Compile(const graph::Graph& graph, const plan::Stage& stage);

// Python passes numbers where the schema has a tensor, a list or another kind of number; boxed
// calls do not convert.
c10::IValue Coerce(c10::IValue value, const c10::Argument& formal);

}  // namespace echelon::exec

#endif  // ECHELON_RUNTIME_EXEC_PROGRAM_H_
