#include "runtime/stage/driver.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "runtime/graph/signature.h"
#include "runtime/plan/cost.h"
#include "runtime/stage/rows.h"
#include "runtime/sync/steady_clock.h"

namespace echelon::stage {
namespace {

constexpr auto kWatchPeriod =
    std::chrono::milliseconds(20);  // a client that has gone is noticed within this

serve::TensorSpec Spec(const graph::Graph& graph, const std::string& name, graph::ValueId id) {
  const graph::Value& value = graph.values[id];
  serve::TensorSpec spec{.name = name, .dtype = value.dtype};
  if (value.type == graph::ValueType::kInt) spec.dtype = DType::kI64;
  if (value.type == graph::ValueType::kFloat) spec.dtype = DType::kF64;
  if (value.type == graph::ValueType::kBool) spec.dtype = DType::kBool;
  for (const graph::Dim& dim : value.shape) spec.shape.push_back(dim.symbolic() ? -1 : dim.hint);
  return spec;
}

template <class T>
Tensor Scalar(DType dtype, T number) {
  Tensor tensor = Tensor::Empty(dtype, {});
  std::memcpy(tensor.data, &number, sizeof number);
  return tensor;
}

Tensor ScalarTensor(const std::variant<int64_t, double, bool>& scalar) {
  if (const auto* number = std::get_if<int64_t>(&scalar)) return Scalar(DType::kI64, *number);
  if (const auto* number = std::get_if<double>(&scalar)) return Scalar(DType::kF64, *number);
  return Scalar(DType::kBool, std::get<bool>(scalar));
}

// Outputs that are no value of the graph: numbers fixed at export.
std::optional<Tensor> LiteralTensor(const graph::Item& item) {
  if (const auto* number = std::get_if<int64_t>(&item)) return Scalar(DType::kI64, *number);
  if (const auto* number = std::get_if<double>(&item)) return Scalar(DType::kF64, *number);
  if (const auto* flag = std::get_if<bool>(&item)) return Scalar(DType::kBool, *flag);
  return std::nullopt;
}

serve::ModelInfo Describe(const std::string& name, const graph::Graph& graph) {
  serve::ModelInfo info{.name = name};
  for (const graph::Input& input : graph.inputs)
    info.inputs.push_back(Spec(graph, input.name, input.value));
  for (const graph::Output& output : graph.outputs) {
    if (const auto* ref = std::get_if<graph::ValueRef>(&output.item))
      info.outputs.push_back(Spec(graph, output.name, ref->id));
    else if (const std::optional<Tensor> literal = LiteralTensor(output.item))
      info.outputs.push_back({output.name, literal->dtype, {}});
  }
  return info;
}

absl::Status CheckWanted(const std::vector<std::string>& wanted, const serve::ModelInfo& model) {
  for (const std::string& name : wanted) {
    const auto is_it = [&](const serve::TensorSpec& output) { return output.name == name; };
    if (std::any_of(model.outputs.begin(), model.outputs.end(), is_it)) continue;
    const auto append = [](std::string* out, const serve::TensorSpec& output) {
      out->append(output.name);
    };
    return absl::InvalidArgumentError(absl::StrCat("model ", model.name, " has no output '", name,
                                                   "'; it has ",
                                                   absl::StrJoin(model.outputs, ", ", append)));
  }
  return absl::OkStatus();
}

}  // namespace

// Guarded by the driver's mutex, except `outputs`, which only the thread of results touches.
struct Driver::Pending {
  serve::InferRequest request;
  serve::InferDone done;
  absl::Time deadline;
  int64_t rows = 0, input_bytes = 0;
  std::vector<const Tensor*> inputs;  // in the graph's order
  std::vector<Tensor> outputs;        // likewise
};

Driver::Driver(const Options& options, const graph::Graph* graph, const graph::BatchInfo& batch,
               serve::Metrics* metrics, std::function<void(link::Frame)> submit)
    : options_(options),
      graph_(graph),
      batch_(batch),
      metrics_(metrics),
      submit_(std::move(submit)),
      model_(Describe(options.name, *graph)),
      schedule_(std::make_unique<schedule::FillDrain>(schedule::FillDrain::Options{
          .window = options.window, .max_waiting = options.max_waiting})) {
  watch_ = std::jthread([this](std::stop_token stop) { Watch(stop); });
}

Driver::~Driver() {
  EpochClosed(absl::UnavailableError("the server is shutting down"));
  watch_.request_stop();
}

absl::Status Driver::Ready() const {
  const std::lock_guard lock(mutex_);
  return epoch_ != 0 ? absl::OkStatus() : absl::UnavailableError(waiting_for_);
}

void Driver::SetWaiting(const std::string& reason) {
  const std::lock_guard lock(mutex_);
  if (!shut_) waiting_for_ = reason;
}

void Driver::Infer(serve::InferRequest request, serve::InferDone done) {
  graph::SymbolValues symbols;
  absl::Status status = graph::BindInputs(*graph_, request.inputs, &symbols);
  if (status.ok()) status = CheckWanted(request.outputs, model_);
  if (!status.ok()) return done(status);
  auto pending = std::make_shared<Pending>();
  pending->request = std::move(request);
  pending->done = std::move(done);
  // From here on by a clock that nobody sets.
  pending->deadline =
      SteadyNow() + std::min(pending->request.deadline - absl::Now(), options_.request_timeout);
  for (const graph::Input& input : graph_->inputs)
    for (NamedTensor& given : pending->request.inputs)
      if (given.name == input.name) {
        given.tensor = Aligned(RowMajor(std::move(given.tensor)));
        pending->inputs.push_back(&given.tensor);
        pending->input_bytes += static_cast<int64_t>(given.tensor.nbytes);
      }
  const auto symbol = symbols.find(batch_.symbol);
  pending->rows = symbol == symbols.end() ? 1 : symbol->second;
  pending->outputs.resize(graph_->outputs.size());

  Answers answers;
  {
    const std::lock_guard lock(mutex_);
    if (!Takes()) {
      answers.push_back([&, why = waiting_for_] { pending->done(absl::UnavailableError(why)); });
    } else if (pending_bytes_ > 0 &&
               pending->input_bytes > options_.max_input_bytes - pending_bytes_) {
      answers.push_back([&] {
        pending->done(absl::ResourceExhaustedError(absl::StrCat(
            "the inputs of the requests here would take more than ",
            plan::BytesText(options_.max_input_bytes), "; try again when some are answered")));
      });
    } else {
      const schedule::RequestId id = next_request_++;
      pending_[id] = pending;
      pending_bytes_ += pending->input_bytes;
      // An empty batch still runs once: the model decides what it makes of it.
      Perform(schedule_->On(schedule::Request{.id = id,
                                              .rows = std::max<int64_t>(pending->rows, 1),
                                              .chunks = options_.chunks,
                                              .chunkable = batch_.chunkable}),
              &answers);
    }
  }
  changed_.notify_one();
  for (const auto& answer : answers) answer();
}

void Driver::Perform(const std::vector<schedule::Action>& actions, Answers* answers) {
  for (const schedule::Action& action : actions) {
    if (const auto* launch = std::get_if<schedule::Launch>(&action)) {
      LaunchStep(*launch);
    } else if (const auto* finish = std::get_if<schedule::Finish>(&action)) {
      serve::InferResult result;
      const std::shared_ptr<Pending>& pending = pending_.at(finish->request);
      for (size_t i = 0; i < graph_->outputs.size(); ++i) {
        const std::string& name = graph_->outputs[i].name;
        const auto& wanted = pending->request.outputs;
        if (!wanted.empty() && std::find(wanted.begin(), wanted.end(), name) == wanted.end())
          continue;
        if (const std::optional<Tensor> literal = LiteralTensor(graph_->outputs[i].item))
          pending->outputs[i] = *literal;
        result.outputs.push_back({name, std::move(pending->outputs[i])});
      }
      Answer(finish->request, std::move(result), answers);
    } else if (const auto* fail = std::get_if<schedule::Fail>(&action)) {
      Answer(fail->request, fail->status, answers);
    } else if (const auto* reject = std::get_if<schedule::Reject>(&action)) {
      Answer(reject->request, reject->status, answers);
    }
  }
  metrics_->SetQueueDepth(schedule_->waiting());
  if (!IsIdle()) return;
  for (std::function<void()>& idle : std::exchange(on_idle_, {}))
    answers->push_back(std::move(idle));
}

// Under the lock.
bool Driver::Takes() const {
  if (shut_) return false;
  return epoch_ != 0 || (held_ && SteadyNow() < hold_until_);
}

// Under the lock.
bool Driver::IsIdle() const { return held_ ? schedule_->begun() == 0 : pending_.empty(); }

void Driver::Answer(schedule::RequestId id, absl::StatusOr<serve::InferResult> result,
                    Answers* answers) {
  auto node = pending_.extract(id);
  pending_bytes_ -= node.mapped()->input_bytes;
  answers->push_back([pending = std::move(node.mapped()), result = std::move(result)]() mutable {
    pending->done(std::move(result));
  });
}

void Driver::LaunchStep(const schedule::Launch& launch) {
  const std::shared_ptr<Pending>& pending = pending_.at(launch.request);
  flights_[launch.step] = {pending, launch.first_row};
  link::Frame frame{
      .epoch = epoch_, .step = launch.step, .chunk = static_cast<uint32_t>(launch.chunk)};
  for (size_t i = 0; i < graph_->inputs.size(); ++i) {
    const graph::ValueId id = graph_->inputs[i].value;
    Tensor tensor = *pending->inputs[i];
    if (launch.chunks > 1) {
      // An input without rows goes to all micro-batches: each gets its own copy, since a stage may
      // write to it.
      tensor = batch_.inputs[i] ? Rows(tensor, launch.first_row, launch.row_count) : Copy(tensor);
    }
    if (graph_->values[id].type == graph::ValueType::kTensor) {
      frame.tensors.push_back({static_cast<uint32_t>(id), std::move(tensor)});
    } else {
      int64_t number = 0;  // BindInputs lets only i64 scalars through here
      std::memcpy(&number, tensor.data, sizeof number);
      frame.scalars.push_back({static_cast<uint32_t>(id), number});
    }
  }
  submit_(std::move(frame));
}

void Driver::OnResult(link::Frame frame) {
  Flight flight;
  {
    const std::lock_guard lock(mutex_);
    if (frame.epoch != epoch_) return;
    auto node = flights_.extract(frame.step);
    if (node.empty()) return;
    flight = std::move(node.mapped());
  }
  absl::Status status =
      frame.kind == link::FrameKind::kError ? link::StatusOf(frame) : absl::OkStatus();
  for (size_t i = 0; status.ok() && i < graph_->outputs.size(); ++i) {
    const auto* ref = std::get_if<graph::ValueRef>(&graph_->outputs[i].item);
    if (!ref) continue;
    Tensor& whole = flight.request->outputs[i];
    for (const link::Frame::ScalarValue& value : frame.scalars)
      if (value.value == static_cast<uint32_t>(ref->id)) whole = ScalarTensor(value.scalar);
    for (const link::Frame::TensorValue& value : frame.tensors) {
      if (value.value != static_cast<uint32_t>(ref->id)) continue;
      const bool is_part = batch_.chunkable && batch_.outputs[i];
      status = is_part ? PutRows(value.tensor, flight.first_row, flight.request->rows, &whole)
                       : absl::OkStatus();
      if (!is_part) whole = RowMajor(value.tensor);
    }
    if (status.ok() && whole.owner == nullptr)
      status = absl::InternalError(
          absl::StrCat("the last stage sent no output ", graph_->outputs[i].name));
  }
  Answers answers;
  {
    const std::lock_guard lock(mutex_);
    if (frame.epoch != epoch_) return;
    if (status.ok())
      Perform(schedule_->On(schedule::StepDone{frame.step}), &answers);
    else
      Perform(schedule_->On(schedule::StepFailed{frame.step, status}), &answers);
  }
  for (const auto& answer : answers) answer();
}

void Driver::EpochFormed(uint64_t epoch) {
  Answers answers;
  {
    const std::lock_guard lock(mutex_);
    epoch_ = epoch;
    held_ = false;
    Perform(schedule_->On(schedule::Resume{}), &answers);
  }
  for (const auto& answer : answers) answer();
}

void Driver::Hold(std::function<void()> idle) {
  Answers answers;
  {
    const std::lock_guard lock(mutex_);
    on_idle_.push_back(std::move(idle));
    held_ = !shut_;
    Perform(held_ ? schedule_->On(schedule::Hold{}) : std::vector<schedule::Action>(), &answers);
  }
  for (const auto& answer : answers) answer();
}

void Driver::Shut(const std::string& why, std::function<void()> idle) {
  Answers answers;
  {
    const std::lock_guard lock(mutex_);
    on_idle_.push_back(std::move(idle));
    shut_ = true;
    held_ = false;
    waiting_for_ = why;
    if (epoch_ == 0) CancelAll(&answers);  // what is held has nothing to wait for
    Perform(schedule_->On(schedule::Resume{}), &answers);
  }
  for (const auto& answer : answers) answer();
}

// Under the lock.
void Driver::CancelAll(Answers* answers) {
  std::vector<schedule::Cancel> cancels;
  for (const auto& [id, pending] : pending_)
    cancels.push_back({id, absl::UnavailableError(waiting_for_)});
  for (const schedule::Cancel& cancel : cancels) Perform(schedule_->On(cancel), answers);
}

void Driver::EpochClosed(const absl::Status& why) {
  Answers answers;
  {
    const std::lock_guard lock(mutex_);
    epoch_ = 0;
    if (!shut_) waiting_for_ = std::string(why.message());
    hold_until_ = SteadyNow() + kLongestHold;
    flights_.clear();
    Perform(schedule_->On(schedule::EpochEnded{absl::UnavailableError(why.message())}), &answers);
  }
  for (const auto& answer : answers) answer();
}

void Driver::Watch(std::stop_token stop) {
  std::unique_lock lock(mutex_);
  while (!stop.stop_requested()) {
    if (pending_.empty())
      changed_.wait(lock, stop, [&] { return !pending_.empty(); });
    else
      changed_.wait_for(lock, stop, kWatchPeriod, [] { return false; });
    const absl::Time now = SteadyNow();
    std::vector<schedule::Cancel> cancels;
    for (const auto& [id, pending] : pending_) {
      if (pending->request.cancelled && *pending->request.cancelled)
        cancels.push_back({id, absl::CancelledError("the client has gone")});
      else if (now >= pending->deadline)
        cancels.push_back(
            {id, absl::DeadlineExceededError(
                     "the request's deadline passed before the last stage answered")});
    }
    Answers answers;
    if (held_ && !Takes()) CancelAll(&answers);
    for (const schedule::Cancel& cancel : cancels) Perform(schedule_->On(cancel), &answers);
    if (answers.empty()) continue;
    lock.unlock();
    for (const auto& answer : answers) answer();
    lock.lock();
  }
}

}  // namespace echelon::stage
