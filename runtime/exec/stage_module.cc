#include "runtime/exec/stage_module.h"

#include <ATen/Parallel.h>
#include <ATen/ops/clone.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <set>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "runtime/exec/convert.h"
#include "runtime/exec/packed_linear.h"
#include "runtime/exec/parameters.h"
#include "runtime/exec/program.h"
#include "runtime/exec/text_stage.h"
#include "runtime/ops/invariant.h"
#include "runtime/ops/operators.h"

namespace echelon::exec {
namespace {

using c10::IValue;
using graph::Graph;
using graph::ValueId;
using Clock = std::chrono::steady_clock;

std::string FirstLine(const std::string& text) {
  return std::string(text.substr(0, text.find('\n')));
}

// The number of threads is each calling thread's own in OpenMP: one that has not been told takes
// every core.
void AdoptThreads() {
  thread_local const bool adopted = (at::init_num_threads(), true);
  static_cast<void>(adopted);
}

class TorchStage final : public StageModule {
 public:
  TorchStage(const Graph& graph, const plan::Stage& stage, Program program,
             const LoadOptions& options)
      : graph_(graph),
        stage_(stage),
        program_(std::move(program)),
        node_times_ns_(options.node_times_ns),
        observe_(options.observe) {
    frame_.resize(program_.slots.size());
    for (const ValueId id : stage_.receives) received_[id] = program_.slots.at(id);
    for (const graph::Input& input : graph_.inputs) inputs_.insert(input.value);
  }

  // Weights stay in their slots from here on.
  absl::Status LoadWeights(weights::WeightSource& source, const LoadOptions& options) {
    Parameters parameters(options.checkpoint, options.verify);
    absl::Status status;
    for (size_t i = 0; i < graph_.stored.size() && status.ok(); ++i)
      if (program_.stored_slots[i] >= 0) status = parameters.Add(graph_.stored[i]);
    const auto kv_bytes = static_cast<uint64_t>(plan::KvBytes(stage_, options.kv_blocks));
    if (status.ok()) status = parameters.Load(source, options.threads, options.progress, kv_bytes);
    if (!status.ok()) return Named(status);
    weight_bytes_ = parameters.nbytes();
    weights_ = parameters.arena();
    const c10::InferenceMode inference;
    try {
      std::map<int, absl::Span<std::byte>> own;
      for (size_t i = 0; i < graph_.stored.size(); ++i) {
        const int slot = program_.stored_slots[i];
        if (slot < 0) continue;
        frame_[slot] = parameters.Make(graph_.stored[i]);
        if (const auto bytes = parameters.OwnBytes(graph_.stored[i])) own[slot] = *bytes;
      }
      // Each weight's bytes, or the tensor computed, go as soon as oneDNN has its own copy. Tied
      // ones stay as they are: another reader may want them so. A sequence's tokens must not depend
      // on who shares its step, whatever that costs.
      const PackOptions pack = graph_.text ? PackOptions{.least_elements = 1, .rows_alone = true}
                                           : PackOptions{options.least_packed_elements};
      if (!options.exact || graph_.text)
        PackLinears(program_, own, pack, frame_,
                    [this](absl::Span<std::byte> bytes) { weights_->Release(bytes); });
    } catch (const c10::Error& error) {
      return absl::InternalError(absl::StrCat(
          "stage ", stage_.rank,
          ": its weights cannot be laid out: ", FirstLine(error.what_without_backtrace())));
    }
    return absl::OkStatus();
  }

  absl::Status OpenCache(const LoadOptions& options) {
    if (!graph_.text) return absl::OkStatus();
    absl::StatusOr<std::unique_ptr<TextStage>> text =
        TextStage::Open(graph_, stage_, options.kv_blocks);
    if (!text.ok()) return Named(text.status());
    text_ = *std::move(text);
    draws_ = options.draws && stage_.end == static_cast<int>(graph_.nodes.size());
    return absl::OkStatus();
  }

  absl::Status Run(link::Frame& frame) override {
    AdoptThreads();
    const c10::InferenceMode inference;
    // Tensors are made on the way in and out too, for which memory may lack.
    absl::Status status;
    try {
      status = RunStep(frame);
    } catch (const c10::Error& error) {
      status = Named(absl::InternalError(FirstLine(error.what_without_backtrace())));
    } catch (const std::exception& error) {
      status = Named(absl::InternalError(FirstLine(error.what())));
    }
    Forget();
    return status;
  }

  uint64_t weight_bytes() const override { return weight_bytes_; }
  uint64_t kv_bytes() const override { return text_ ? text_->kv_bytes() : 0; }

 private:
  absl::Status Named(const absl::Status& status) const {
    if (status.ok()) return status;
    return absl::Status(status.code(), absl::StrCat("stage ", stage_.rank, ": ", status.message()));
  }

  absl::Status RunStep(link::Frame& frame) {
    std::optional<ops::Running> running;
    if (text_) {
      const absl::Status begun = text_->Begin(frame);
      if (!begun.ok()) return Named(begun);
      running.emplace(text_->context());
    }
    absl::Status status = Feed(frame);
    for (size_t i = 0; status.ok() && i < program_.instructions.size(); ++i)
      status = Execute(program_.instructions[i]);
    if (!status.ok()) return status;
    return draws_ ? Draw(frame) : Collect(frame);
  }

  absl::Status Feed(link::Frame& frame) {
    size_t fed = 0;
    for (link::Frame::TensorValue& value : frame.tensors) {
      const auto slot = received_.find(static_cast<ValueId>(value.value));
      if (slot == received_.end()) return Unexpected(value.value);
      const graph::Value& declared = graph_.values[value.value];
      // The file may be wrong about the shape of what an operator makes (oneDNN's lstm): only
      // inputs are held to it.
      const bool is_odd =
          inputs_.contains(slot->first) && declared.shape.size() != value.tensor.shape.size();
      if (declared.type != graph::ValueType::kTensor || declared.dtype != value.tensor.dtype ||
          is_odd)
        return absl::InvalidArgumentError(
            absl::StrCat("stage ", stage_.rank, ": value ", declared.name, " arrives as ",
                         std::string(Name(value.tensor.dtype)), "[", ShapeText(value.tensor.shape),
                         "], the graph has ", std::string(Name(declared.dtype)), " of ",
                         declared.shape.size(), " dimensions"));
      if (!frame_[slot->second].isNone()) return Twice(declared.name);
      frame_[slot->second] = ToTorch(value.tensor);
      ++fed;
    }
    for (const link::Frame::ScalarValue& value : frame.scalars) {
      const auto slot = received_.find(static_cast<ValueId>(value.value));
      if (slot == received_.end()) return Unexpected(value.value);
      const graph::Value& declared = graph_.values[value.value];
      if (declared.type == graph::ValueType::kTensor)
        return absl::InvalidArgumentError(
            absl::StrCat("stage ", stage_.rank, ": value ", declared.name,
                         " arrives as a number, the graph has a tensor"));
      if (!frame_[slot->second].isNone()) return Twice(declared.name);
      frame_[slot->second] = std::visit([](auto number) { return IValue(number); }, value.scalar);
      ++fed;
    }
    frame.tensors.clear();
    frame.scalars.clear();
    if (fed == received_.size()) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrCat("stage ", stage_.rank, ": a step brings ", fed,
                                                   " values, the plan has ", received_.size()));
  }

  absl::Status Unexpected(uint32_t value) const {
    return absl::InvalidArgumentError(absl::StrCat("stage ", stage_.rank, ": a step brings value ",
                                                   value, ", which the plan does not send here"));
  }

  absl::Status Twice(const std::string& name) const {
    return absl::InvalidArgumentError(
        absl::StrCat("stage ", stage_.rank, ": value ", name, " comes twice"));
  }

  absl::Status Execute(const Instruction& instruction) {
    const auto start = node_times_ns_ ? Clock::now() : Clock::time_point();
    try {
      Call(instruction);
      Store(instruction);
    } catch (const c10::Error& error) {
      return Failed(instruction, error.what_without_backtrace());
    } catch (const std::exception& error) {
      return Failed(instruction, error.what());
    }
    if (observe_) observe_(instruction.index, [this](ValueId id) { return StorageOf(id); });
    for (const int slot : instruction.frees) frame_[slot] = IValue();
    if (node_times_ns_)
      (*node_times_ns_)[instruction.index] +=
          std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now() - start).count();
    return absl::OkStatus();
  }

  // Leaves the results on the stack.
  void Call(const Instruction& instruction) {
    stack_.clear();
    if (instruction.packed.is_set()) return CallPacked(instruction.packed);
    if (instruction.elementwise) return CallElementwise(instruction);
    if (instruction.may_be_complex_pair && CallComplexPair(instruction)) return;
    for (const ArgumentTemplate& argument : instruction.arguments)
      stack_.push_back(Materialise(argument));
    if (instruction.op)
      instruction.op->callBoxed(stack_);
    else
      stack_ = {instruction.python(stack_)};
  }

  void CallElementwise(const Instruction& instruction) {
    const at::Tensor& input = frame_[instruction.arguments[0].operands[0].slot].toTensor();
    const at::Tensor out = ops::RunElementwise(input, [&](const at::Tensor& piece) {
      torch::jit::Stack stack{piece};
      for (size_t i = 1; i < instruction.arguments.size(); ++i)
        stack.push_back(instruction.arguments[i].operands[0].literal);
      instruction.op->callBoxed(stack);
      return stack[0].toTensor();
    });
    stack_.emplace_back(out);
  }

  bool CallComplexPair(const Instruction& instruction) {
    const at::Tensor& x = frame_[instruction.arguments[0].operands[0].slot].toTensor();
    const at::Tensor& y = frame_[instruction.arguments[1].operands[0].slot].toTensor();
    const bool is_real_product =
        !x.is_complex() && !y.is_complex() && instruction.op->schema().name() == "aten::mul";
    if (is_real_product) return false;
    stack_.emplace_back(ops::RunElementwise(x, y, [&](const at::Tensor& a, const at::Tensor& b) {
      torch::jit::Stack stack{a, b};
      instruction.op->callBoxed(stack);
      return stack[0].toTensor();
    }));
    return true;
  }

  void CallPacked(const PackedCall& call) {
    const at::Tensor& input = frame_[call.input].toTensor();
    const at::Tensor bias = call.bias < 0 ? at::Tensor() : frame_[call.bias].toTensor();
    if (call.linear) {
      stack_.emplace_back(call.linear->Run(input, bias));
      return;
    }
    const at::Tensor& weight = frame_[call.weight].toTensor();
    stack_.emplace_back(SharedLinear(call.transposed ? weight.t() : weight, input, bias));
  }

  absl::Span<const std::byte> StorageOf(ValueId id) const {
    const IValue& value = frame_[program_.slots.at(id)];
    if (!value.isTensor() || !value.toTensor().has_storage()) return {};
    const c10::Storage& storage = value.toTensor().storage();
    return {static_cast<const std::byte*>(storage.data()), storage.nbytes()};
  }

  absl::Status Failed(const Instruction& instruction, const std::string& why) const {
    const std::string module =
        instruction.node->module.empty() ? "" : absl::StrCat(" of ", instruction.node->module);
    return absl::InternalError(absl::StrCat("stage ", stage_.rank, ", node ",
                                            instruction.node->name, module, " (",
                                            instruction.node->target, "): ", FirstLine(why)));
  }

  IValue Materialise(const ArgumentTemplate& argument) const {
    const auto get = [&](const Operand& operand) -> const IValue& {
      return operand.slot < 0 ? operand.literal : frame_[operand.slot];
    };
    const auto fill = [&](auto list, auto convert) -> IValue {
      list.reserve(argument.operands.size());
      for (const Operand& operand : argument.operands) list.push_back(convert(get(operand)));
      return list;
    };
    switch (argument.form) {
      case ArgumentTemplate::kTensors:
        return fill(c10::List<at::Tensor>(), [](const IValue& v) { return v.toTensor(); });
      case ArgumentTemplate::kOptionalTensors:
        return fill(c10::List<std::optional<at::Tensor>>(),
                    [](const IValue& v) { return v.toOptional<at::Tensor>(); });
      case ArgumentTemplate::kInts:
        return fill(c10::List<int64_t>(), [](const IValue& v) { return v.toScalar().toLong(); });
      case ArgumentTemplate::kFloats:
        return fill(c10::List<double>(), [](const IValue& v) { return v.toScalar().toDouble(); });
      case ArgumentTemplate::kItem:
        break;
    }
    const IValue& value = get(argument.operands[0]);
    return argument.coerce ? Coerce(value, *argument.coerce) : value;
  }

  void Store(const Instruction& instruction) {
    size_t next = 0;
    const auto store = [&](IValue value) {
      if (next >= instruction.results.size())
        throw std::runtime_error("returns more values than the graph names");
      frame_[instruction.results[next++]] = std::move(value);
    };
    size_t position = 0;  // among the node's results, to know lists from values
    for (IValue& result : stack_) {
      const auto& declared = instruction.node->results;
      const bool is_list = position < declared.size() && declared[position].is_list;
      ++position;
      if (is_list && result.isTensorList())
        for (at::Tensor tensor : result.toTensorList()) store(std::move(tensor));
      else if (is_list && result.isList())
        for (const IValue& item : result.toListRef()) store(item);
      else if (next < instruction.results.size())
        store(std::move(
            result));  // an operator may return more than the graph keeps (trailing unused results)
    }
    if (next != instruction.results.size())
      throw std::runtime_error("returns fewer values than the graph names");
  }

  absl::Status Collect(link::Frame& frame) {
    for (const ValueId id : stage_.sends) {
      const IValue& value = frame_[program_.slots.at(id)];
      const auto wire = static_cast<uint32_t>(id);
      if (value.isTensor())
        frame.tensors.push_back({wire, FromTorch(Owned(value.toTensor()))});
      else if (value.isInt())
        frame.scalars.push_back({wire, value.toInt()});
      else if (value.isDouble())
        frame.scalars.push_back({wire, value.toDouble()});
      else if (value.isBool())
        frame.scalars.push_back({wire, value.toBool()});
      else
        return absl::InternalError(
            absl::StrCat("stage ", stage_.rank, ": value ", graph_.values[id].name,
                         " is neither a tensor nor a number and cannot leave the stage"));
    }
    return absl::OkStatus();
  }

  absl::Status Draw(link::Frame& frame) {
    const IValue& logits = frame_[program_.slots.at(stage_.sends[0])];
    return Named(text_->Draw(logits.toTensor(), frame));
  }

  // A buffer that leaves the stage is copied: the next step may write to it while this one is still
  // being sent.
  at::Tensor Owned(const at::Tensor& tensor) const {
    const auto* data = static_cast<const std::byte*>(tensor.const_data_ptr());
    const bool is_weight =
        weights_ && data >= weights_->data() && data < weights_->data() + weights_->nbytes();
    return is_weight ? tensor.clone(at::MemoryFormat::Preserve) : tensor;
  }

  // What is no weight is dead between steps.
  void Forget() {
    for (const auto& [id, slot] : program_.slots)
      if (graph_.values[id].stored < 0) frame_[slot] = IValue();
  }

  const Graph& graph_;
  const plan::Stage stage_;
  Program program_;
  std::map<ValueId, int> received_;
  std::set<ValueId> inputs_;  // of the graph
  std::vector<IValue> frame_;
  torch::jit::Stack stack_;
  std::shared_ptr<weights::Arena> weights_;
  uint64_t weight_bytes_ = 0;        // without the arena's gaps
  std::unique_ptr<TextStage> text_;  // null for what is no language model
  bool draws_ = false;
  std::vector<int64_t>* const node_times_ns_;
  const std::function<void(int, const LoadOptions::StorageOf&)> observe_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<StageModule>> LoadStage(const graph::Graph& graph,
                                                       const plan::Stage& stage,
                                                       weights::WeightSource& source,
                                                       const LoadOptions& options) {
  absl::StatusOr<Program> program = Compile(graph, stage);
  if (!program.ok()) return program.status();
  auto module = std::make_unique<TorchStage>(graph, stage, *std::move(program), options);
  if (graph.text) KeepRowsAlone();
  absl::Status status = module->LoadWeights(source, options);
  if (status.ok()) status = module->OpenCache(options);
  if (!status.ok()) return status;
  return module;
}

void SetThreads(int threads) {
  if (threads > 0) at::set_num_threads(threads);
}

}  // namespace echelon::exec
