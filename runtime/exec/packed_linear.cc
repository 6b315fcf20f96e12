#include "runtime/exec/packed_linear.h"

#include <ATen/Parallel.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/stack.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "runtime/exec/program.h"
#include "runtime/ops/expert_rows.h"
#include "runtime/ops/invariant.h"

namespace echelon::exec {
namespace {

using c10::IValue;

// oneDNN chooses the order in which it sums a row by the number of rows. Of a weight that is laid
// out it is one order for up to 252 rows, but for 1 to 3 beyond a multiple of 6, which is what its
// AVX2 kernel computes at once (AVX-512: one order from 4 rows on).
constexpr int64_t kBlockRows = 6, kLeastOfBlock = 4, kMostRows = 240;
// Of a weight that is not laid out: always this number.
constexpr int64_t kSharedRows = 16;
// Threads share a weight's outputs: oneDNN would share out the rows, and with them their order.
constexpr int64_t kLeastSlice = 64, kSliceStep = 16;

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

bool KnowsBf16() {
  static const bool knows = CanPack(at::kBFloat16);
  return knows;
}

bool IsPackable(const IValue& value, int64_t least_elements) {
  if (!value.isTensor()) return false;
  const at::Tensor& weight = value.toTensor();
  const bool is_known =
      weight.scalar_type() == at::kFloat || (weight.scalar_type() == at::kBFloat16 && KnowsBf16());
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

bool MayBeComplexPair(const Instruction& instruction) {
  return instruction.op && ops::HasVariantComplexTail(instruction.op->schema().name()) &&
         SlotOf(instruction.arguments[0]) >= 0 && SlotOf(instruction.arguments[1]) >= 0;
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

int64_t AloneRows(int64_t rows) {
  const int64_t last = rows % kBlockRows;
  return last > 0 && last < kLeastOfBlock ? rows + kLeastOfBlock - last : rows;
}

std::vector<LinearSlice> SlicesOf(const at::Tensor& weight) {
  const int64_t outputs = weight.size(0);
  const int64_t count =
      std::clamp<int64_t>(outputs / kLeastSlice, 1, std::max(at::get_num_threads(), 1));
  std::vector<LinearSlice> slices;
  for (int64_t i = 0, begin = 0; i < count; ++i) {
    const int64_t end =
        i + 1 == count ? outputs : outputs * (i + 1) / count / kSliceStep * kSliceStep;
    slices.push_back({weight.narrow(0, begin, end - begin), begin, end - begin});
    begin = end;
  }
  return slices;
}

// job(0) to job(count - 1), each on one thread: oneDNN has no others within a parallel region, and
// torch makes one for two jobs or more.
template <typename Job>
void RunEachOnOneThread(int64_t count, const Job& job) {
  at::parallel_for(0, std::max<int64_t>(count, 2), 1, [&](int64_t begin, int64_t end) {
    const c10::InferenceMode inference;  // a thread's own
    for (int64_t i = begin; i < std::min(end, count); ++i) job(i);
  });
}

// `most` rows at a time, each time as many as padded_rows says.
template <typename PaddedRows>
at::Tensor LinearInPieces(const at::Tensor& matrix, absl::Span<const LinearSlice> slices,
                          const at::Tensor& bias, int64_t most, const PaddedRows& padded_rows) {
  const int64_t rows = matrix.size(0), pieces = (rows + most - 1) / most;
  const int64_t jobs = pieces * static_cast<int64_t>(slices.size());
  at::Tensor out;
  if (jobs != 1)
    out = at::empty({rows, slices.back().begin + slices.back().outputs}, matrix.options());
  RunEachOnOneThread(jobs, [&](int64_t job) {
    const LinearSlice& slice = slices[job / pieces];
    const int64_t first = job % pieces * most, count = std::min(most, rows - first);
    const at::Tensor own_bias =
        bias.defined() ? bias.narrow(0, slice.begin, slice.outputs) : at::Tensor();
    const at::Tensor part =
        Linear(Padded(matrix.narrow(0, first, count), padded_rows(count)), slice.weight, own_bias)
            .narrow(0, 0, count);
    if (jobs == 1)
      out = part;
    else
      out.narrow(0, first, count).narrow(1, slice.begin, slice.outputs).copy_(part);
  });
  return out;
}

// bf16 where oneDNN does not know it: by our own kernel, each element by itself, in f32.
at::Tensor PlainLinear(const at::Tensor& weight, const at::Tensor& matrix, const at::Tensor& bias) {
  const int64_t rows = matrix.size(0), outputs = weight.size(0), inputs = weight.size(1);
  const bool has_unit_stride = weight.stride(0) == 1 || weight.stride(1) == 1;
  const at::Tensor dense = has_unit_stride ? weight : weight.contiguous();
  const int64_t stride = ops::StrideOf(inputs);
  const auto f32 = matrix.options().dtype(at::kFloat);
  const at::Tensor x = at::zeros({rows, stride}, f32), y = at::empty({rows, outputs}, f32);
  x.narrow(1, 0, inputs).copy_(matrix);
  constexpr int64_t kGrain = 64;
  at::parallel_for(0, outputs, kGrain, [&](int64_t begin, int64_t end) {
    ops::Multiply({.x = x.const_data_ptr<float>(),
                   .rows = rows,
                   .x_stride = stride,
                   .w = dense.const_data_ptr(),
                   .dtype = DType::kBF16,
                   .inputs = inputs,
                   .outputs = outputs,
                   .input_stride = dense.stride(1),
                   .output_stride = dense.stride(0),
                   .begin = begin,
                   .end = end,
                   .y = y.mutable_data_ptr<float>()});
  });
  return (bias.defined() ? y.add_(bias) : y).to(at::kBFloat16);
}

}  // namespace

void KeepRowsAlone() { ::setenv("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_BF16", 0); }

bool CanPack(at::ScalarType dtype) {
  try {
    PackedLinear(at::zeros({16, 16}, dtype), false).Run(at::zeros({1, 16}, dtype), {});
    return true;
  } catch (const std::exception&) {
    return false;
  }
}

PackedLinear::PackedLinear(const at::Tensor& weight, bool rows_alone)
    : dtype_(weight.scalar_type()),
      outputs_(weight.size(0)),
      inputs_(weight.size(1)),
      rows_alone_(rows_alone),
      slices_(rows_alone ? SlicesOf(weight) : std::vector<LinearSlice>{{weight, 0, outputs_}}) {
  static const c10::OperatorHandle reorder = Find("mkldnn::_reorder_linear_weight");
  for (LinearSlice& slice : slices_) {
    // No number of rows is told: one layout then serves them all.
    torch::jit::Stack stack{slice.weight.contiguous(), IValue()};
    reorder.callBoxed(stack);
    slice.weight = stack[0].toTensor();
  }
}

at::Tensor PackedLinear::Run(const at::Tensor& x, const at::Tensor& bias) const {
  CheckInput(x, dtype_, inputs_);
  std::vector<int64_t> shape = x.sizes().vec();
  shape.back() = outputs_;
  const int64_t rows = x.numel() / inputs_;
  if (rows == 0) return at::empty(shape, x.options());
  const at::Tensor matrix = x.reshape({rows, inputs_});
  const at::Tensor out = rows_alone_ ? LinearInPieces(matrix, slices_, bias, kMostRows, AloneRows)
                                     : Linear(matrix.contiguous(), slices_[0].weight, bias);
  return out.view(shape);
}

at::Tensor SharedLinear(const at::Tensor& weight, const at::Tensor& x, const at::Tensor& bias) {
  const int64_t outputs = weight.size(0), inputs = weight.size(1);
  CheckInput(x, weight.scalar_type(), inputs);
  std::vector<int64_t> shape = x.sizes().vec();
  shape.back() = outputs;
  const at::Tensor matrix = x.reshape({x.numel() / inputs, inputs});
  if (weight.scalar_type() == at::kBFloat16 && !KnowsBf16())
    return PlainLinear(weight, matrix, bias).view(shape);
  return LinearInPieces(matrix, SlicesOf(weight.contiguous()), bias, kSharedRows,
                        [](int64_t) { return kSharedRows; })
      .view(shape);
}

void PackLinears(Program& program, const std::map<int, absl::Span<std::byte>>& weights,
                 const PackOptions& options, std::vector<IValue>& frame,
                 const std::function<void(absl::Span<std::byte>)>& release) {
  for (const auto& [slot, readers] : ReadersOf(program, weights, frame)) {
    if (readers.others || readers.linears.empty() ||
        !IsPackable(frame[slot], options.least_elements))
      continue;
    const at::Tensor weight = frame[slot].toTensor();
    const auto packed = std::make_shared<const PackedLinear>(
        readers.transposed ? weight.t() : weight, options.rows_alone);
    for (Instruction* instruction : readers.linears)
      instruction->packed = CallOf(*instruction, *UseOf(*instruction), packed);
    frame[slot] = IValue();
    release(weights.at(slot));
  }
  if (!options.rows_alone) return;
  for (Instruction& instruction : program.instructions) {
    instruction.elementwise = IsElementwise(instruction);
    instruction.may_be_complex_pair = MayBeComplexPair(instruction);
    const std::optional<Use> use = UsableAs(instruction, frame);
    if (use && !instruction.packed.is_set())
      instruction.packed = CallOf(instruction, *use, nullptr);
  }
}

}  // namespace echelon::exec
