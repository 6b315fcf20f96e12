#include "runtime/exec/packed_linear.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/stack.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <cstdlib>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>

#include "runtime/exec/program.h"
#include "runtime/ops/invariant.h"

namespace echelon::exec {
namespace {

using c10::IValue;

// oneDNN may sum fewer rows in another order: they are computed as this many.
constexpr int64_t kLeastRows = 4;
// Of a weight that is not laid out it chooses the order by the number of rows: always this one.
constexpr int64_t kSharedRows = 16;

c10::OperatorHandle Find(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "");
}

// Where a node's arguments stand that take part in x W^T + b.
struct Use {
  size_t input, weight;
  std::optional<size_t> bias;
  bool transposed;  // the weight is [K, N]
};

bool IsOne(const ArgumentTemplate& argument) {
  const IValue& value = argument.operands[0].literal;
  return argument.operands[0].slot < 0 && value.isScalar() && value.toScalar().toDouble() == 1;
}

std::optional<Use> UseOf(const Instruction& instruction) {
  if (!instruction.op) return std::nullopt;
  const std::string& name = instruction.op->schema().name();
  const std::string& overload = instruction.op->schema().overload_name();
  if (!overload.empty()) return std::nullopt;
  if (name == "aten::linear") return Use{0, 1, 2, false};
  if (name == "aten::mm") return Use{0, 1, std::nullopt, true};
  const bool is_plain_addmm =
      name == "aten::addmm" && IsOne(instruction.arguments[3]) && IsOne(instruction.arguments[4]);
  if (is_plain_addmm) return Use{1, 2, 0, true};
  return std::nullopt;
}

int SlotOf(const ArgumentTemplate& argument) {
  const bool is_plain = argument.form == ArgumentTemplate::kItem && argument.coerce == nullptr;
  return is_plain ? argument.operands[0].slot : -1;
}

// A bias must be a vector: addmm also broadcasts matrices.
bool HasUsableBias(const Instruction& instruction, const Use& use,
                   const std::vector<IValue>& frame) {
  if (!use.bias) return true;
  const Operand& operand = instruction.arguments[*use.bias].operands[0];
  if (operand.slot < 0) return operand.literal.isNone();
  const IValue& value = frame[operand.slot];
  return value.isTensor() && value.toTensor().dim() == 1;
}

bool IsPackable(const IValue& value, int64_t least_elements) {
  if (!value.isTensor()) return false;
  const at::Tensor& weight = value.toTensor();
  static const bool bf16_is_known = CanPack(at::kBFloat16);
  const bool is_known = weight.scalar_type() == at::kFloat ||
                        (weight.scalar_type() == at::kBFloat16 && bf16_is_known);
  return is_known && weight.dim() == 2 && weight.numel() >= std::max<int64_t>(least_elements, 1);
}

std::optional<Use> UsableAs(const Instruction& instruction, const std::vector<IValue>& frame) {
  const std::optional<Use> use = UseOf(instruction);
  const bool fits = use && SlotOf(instruction.arguments[use->input]) >= 0 &&
                    SlotOf(instruction.arguments[use->weight]) >= 0 &&
                    HasUsableBias(instruction, *use, frame);
  return fits ? use : std::nullopt;
}

PackedCall CallOf(const Instruction& instruction, const Use& use,
                  std::shared_ptr<const PackedLinear> linear) {
  PackedCall call{.linear = std::move(linear), .input = SlotOf(instruction.arguments[use.input])};
  if (use.bias) call.bias = instruction.arguments[*use.bias].operands[0].slot;
  if (!call.linear) call.weight = SlotOf(instruction.arguments[use.weight]);
  call.transposed = use.transposed;
  return call;
}

struct Readers {
  std::vector<Instruction*> linears;
  bool transposed = false;
  bool others = false;  // something else reads, or writes, the weight
};

std::map<int, Readers> ReadersOf(Program& program,
                                 const std::map<int, absl::Span<std::byte>>& weights,
                                 const std::vector<IValue>& frame) {
  std::map<int, Readers> of;
  for (const auto& [slot, bytes] : weights) of[slot];
  for (const int slot : program.sent_slots)
    if (const auto found = of.find(slot); found != of.end()) found->second.others = true;
  for (Instruction& instruction : program.instructions) {
    const std::optional<Use> use = UsableAs(instruction, frame);
    for (size_t i = 0; i < instruction.arguments.size(); ++i)
      for (const Operand& operand : instruction.arguments[i].operands) {
        const auto found = of.find(operand.slot);
        if (found == of.end()) continue;
        Readers& readers = found->second;
        const bool agrees =
            readers.linears.empty() || (use && readers.transposed == use->transposed);
        if (!use || i != use->weight || !agrees) {
          readers.others = true;
        } else {
          readers.transposed = use->transposed;
          readers.linears.push_back(&instruction);
        }
      }
  }
  return of;
}

bool IsElementwise(const Instruction& instruction) {
  if (!instruction.op || !ops::HasVariantTail(instruction.op->schema().name())) return false;
  for (size_t i = 0; i < instruction.arguments.size(); ++i)
    for (const Operand& operand : instruction.arguments[i].operands)
      if ((operand.slot >= 0) != (i == 0)) return false;
  return SlotOf(instruction.arguments[0]) >= 0;
}

void CheckInput(const at::Tensor& x, at::ScalarType dtype, int64_t inputs) {
  TORCH_CHECK(x.dim() > 0 && x.size(-1) == inputs, "linear takes ", inputs,
              " features, its input is [", x.sizes(), "]");
  TORCH_CHECK(x.scalar_type() == dtype, "linear's weight is ", dtype, " and its input ",
              x.scalar_type());
}

at::Tensor Padded(const at::Tensor& matrix, int64_t rows) {
  if (matrix.size(0) == rows) return matrix.contiguous();
  return at::constant_pad_nd(matrix, {0, 0, 0, rows - matrix.size(0)});
}

// weight: dense, or as oneDNN laid it out.
at::Tensor Linear(const at::Tensor& matrix, const at::Tensor& weight, const at::Tensor& bias) {
  static const c10::OperatorHandle linear = Find("mkldnn::_linear_pointwise");
  torch::jit::Stack stack{matrix,
                          weight,
                          bias.defined() ? IValue(bias) : IValue(),
                          "none",
                          c10::List<std::optional<at::Scalar>>(),
                          std::optional<std::string>("")};
  linear.callBoxed(stack);
  return stack[0].toTensor();
}

}  // namespace

void KeepRowsAlone() { ::setenv("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_BF16", 0); }

bool CanPack(at::ScalarType dtype) {
  try {
    PackedLinear(at::zeros({16, 16}, dtype)).Run(at::zeros({1, 16}, dtype), {});
    return true;
  } catch (const std::exception&) {
    return false;
  }
}

PackedLinear::PackedLinear(const at::Tensor& weight)
    : dtype_(weight.scalar_type()), outputs_(weight.size(0)), inputs_(weight.size(1)) {
  static const c10::OperatorHandle reorder = Find("mkldnn::_reorder_linear_weight");
  // No number of rows is told: one layout then serves them all.
  torch::jit::Stack stack{weight.contiguous(), IValue()};
  reorder.callBoxed(stack);
  packed_ = stack[0].toTensor();
}

at::Tensor PackedLinear::Run(const at::Tensor& x, const at::Tensor& bias) const {
  CheckInput(x, dtype_, inputs_);
  std::vector<int64_t> shape = x.sizes().vec();
  shape.back() = outputs_;
  const int64_t rows = x.numel() / inputs_;
  if (rows == 0) return at::empty(shape, x.options());
  const at::Tensor matrix = x.reshape({rows, inputs_});
  const at::Tensor out = Linear(Padded(matrix, std::max(rows, kLeastRows)), packed_, bias);
  return out.narrow(0, 0, rows).view(shape);
}

at::Tensor SharedLinear(const at::Tensor& weight, const at::Tensor& x, const at::Tensor& bias) {
  const int64_t outputs = weight.size(0), inputs = weight.size(1);
  CheckInput(x, weight.scalar_type(), inputs);
  std::vector<int64_t> shape = x.sizes().vec();
  shape.back() = outputs;
  const int64_t rows = x.numel() / inputs;
  const at::Tensor out = at::empty({rows, outputs}, x.options());
  const at::Tensor matrix = x.reshape({rows, inputs}), dense = weight.contiguous();
  for (int64_t i = 0; i < rows; i += kSharedRows) {
    const int64_t count = std::min(kSharedRows, rows - i);
    const at::Tensor part = Linear(Padded(matrix.narrow(0, i, count), kSharedRows), dense, bias);
    out.narrow(0, i, count).copy_(part.narrow(0, 0, count));
  }
  return out.view(shape);
}

void PackLinears(Program& program, const std::map<int, absl::Span<std::byte>>& weights,
                 const PackOptions& options, std::vector<IValue>& frame,
                 const std::function<void(absl::Span<std::byte>)>& release) {
  for (const auto& [slot, readers] : ReadersOf(program, weights, frame)) {
    if (readers.others || readers.linears.empty() ||
        !IsPackable(frame[slot], options.least_elements))
      continue;
    const at::Tensor weight = frame[slot].toTensor();
    const auto packed =
        std::make_shared<const PackedLinear>(readers.transposed ? weight.t() : weight);
    for (Instruction* instruction : readers.linears)
      instruction->packed = CallOf(*instruction, *UseOf(*instruction), packed);
    frame[slot] = IValue();
    release(weights.at(slot));
  }
  if (!options.rows_alone) return;
  for (Instruction& instruction : program.instructions) {
    instruction.elementwise = IsElementwise(instruction);
    const std::optional<Use> use = UsableAs(instruction, frame);
    if (use && !instruction.packed.is_set())
      instruction.packed = CallOf(instruction, *use, nullptr);
  }
}

}  // namespace echelon::exec
