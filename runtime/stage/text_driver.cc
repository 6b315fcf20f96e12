#include "runtime/stage/text_driver.h"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "runtime/graph/text_model.h"
#include "runtime/stage/text_sequence.h"
#include "runtime/sync/steady_clock.h"

namespace echelon::stage {
namespace {

using schedule::Continuous;

// A client that has gone is noticed within this.
constexpr auto kWatchPeriod = std::chrono::milliseconds(20);

// Tokens of other users that go along with a chunk of a prompt.
constexpr int64_t kRoomForOthers = 384;

struct Input {
  graph::ValueId value = -1;
  graph::Range range;  // of its last dimension
};

absl::StatusOr<Input> FindInput(const graph::Graph& graph, const std::string& name) {
  for (const graph::Input& input : graph.inputs) {
    if (input.name != name) continue;
    const graph::Value& value = graph.values[input.value];
    if (value.dtype != DType::kI64 || value.shape.empty() || !value.shape.back().symbolic())
      return absl::InvalidArgumentError(
          absl::StrCat("model ", graph.name, ": input ", name,
                       " is not i64 with a dynamic last dimension; export it again"));
    const auto range = graph.symbols.find(value.shape.back().expr);
    return Input{input.value, range == graph.symbols.end() ? graph::Range{1} : range->second};
  }
  return absl::InvalidArgumentError(absl::StrCat("model ", graph.name, " has no input ", name,
                                                 "; a language model's graph needs one"));
}

serve::TextModelInfo Describe(const std::string& name, const graph::TextModel& text) {
  serve::TextModelInfo info{.name = name,
                            .vocab_size = static_cast<int32_t>(text.vocab_size),
                            .max_model_len = static_cast<int32_t>(text.max_model_len),
                            .bos_token_id = static_cast<int32_t>(text.bos_token_id)};
  info.eos_token_ids.assign(text.eos_token_ids.begin(), text.eos_token_ids.end());
  return info;
}

Tensor Numbers(const std::vector<int64_t>& numbers, std::vector<int64_t> shape) {
  Tensor tensor = Tensor::Empty(DType::kI64, std::move(shape));
  std::copy(numbers.begin(), numbers.end(), reinterpret_cast<int64_t*>(tensor.data));
  return tensor;
}

}  // namespace

// Guarded by the driver's mutex, but for `on_token` and `is_silent`, which are the watch thread's.
struct TextDriver::Pending {
  Pending(const serve::TokenRequest& request, const serve::TextModelInfo& model,
          int64_t cache_tokens)
      : sequence(request, model, cache_tokens), cancelled(request.cancelled) {}

  RequestId id = 0;
  TextSequence sequence;
  const std::shared_ptr<const std::atomic<bool>> cancelled;
  absl::Time deadline;
  absl::Time last = SteadyNow();  // arrival, then each token
  serve::OnToken on_token;
  bool is_silent = false;  // it wants to hear no more
};

absl::StatusOr<std::unique_ptr<TextDriver>> TextDriver::Create(
    Options options, const graph::Graph* graph, serve::Metrics* metrics,
    std::function<void(link::Frame)> submit) {
  if (!graph->text)
    return absl::InvalidArgumentError(
        absl::StrCat("model ", graph->name, " is no language model: it was exported as a module"));
  const auto tokens = FindInput(*graph, graph::kTokens);
  if (!tokens.ok()) return tokens.status();
  const auto positions = FindInput(*graph, graph::kPositions);
  if (!positions.ok()) return positions.status();
  const auto rows = FindInput(*graph, graph::kRows);
  if (!rows.ok()) return rows.status();
  const step::Limits limits;
  const int64_t most = std::min(tokens->range.max, int64_t{limits.tokens});
  // Each sequence has a token in a step, and may have a row.
  const int64_t most_sequences =
      std::min({most, rows->range.max, int64_t{limits.sequences}, int64_t{limits.samples}});
  options.schedule.max_running =
      static_cast<int>(std::min<int64_t>(options.schedule.max_running, most_sequences));
  if (tokens->range.min > 1 || most_sequences < 2)
    return absl::InvalidArgumentError(
        absl::StrCat("model ", graph->name, " takes ", tokens->range.min, "..", most,
                     " tokens at a time; it must take a single one and several; export it again"));
  if (options.schedule.blocks < 1)
    return absl::InvalidArgumentError(
        "the KV cache holds not one block of tokens; start with a larger --kv-memory");
  const int64_t chunk = options.schedule.chunk_tokens;
  if (chunk >= most)
    return absl::InvalidArgumentError(
        absl::StrCat("--chunk-tokens ", chunk, ": model ", graph->name, " takes ", most,
                     " tokens in a step, one of them another user's; give at most ", most - 1));
  options.schedule.step_tokens = static_cast<int>(
      std::min(most, std::max<int64_t>(options.schedule.step_tokens, chunk + kRoomForOthers)));
  const Inputs inputs{.tokens = tokens->value,
                      .positions = positions->value,
                      .rows = rows->value,
                      .min_rows = rows->range.min};
  return std::unique_ptr<TextDriver>(
      new TextDriver(std::move(options), inputs, *graph, metrics, std::move(submit)));
}

TextDriver::TextDriver(Options options, const Inputs& inputs, const graph::Graph& graph,
                       serve::Metrics* metrics, std::function<void(link::Frame)> submit)
    : options_(std::move(options)),
      inputs_(inputs),
      metrics_(metrics),
      submit_(std::move(submit)),
      model_(Describe(options_.name, *graph.text)),
      limits_{.tokens = options_.schedule.step_tokens,
              .sequences = options_.schedule.max_running,
              .samples = options_.schedule.max_running,
              .length = model_.max_model_len,
              .block_tokens = options_.schedule.block_tokens,
              .blocks = options_.schedule.blocks,
              .vocabulary = model_.vocab_size},
      schedule_(options_.schedule) {
  metrics_->SetKvBlocks(0, options_.schedule.blocks);
  watch_ = std::jthread([this](std::stop_token stop) { Watch(stop); });
}

TextDriver::~TextDriver() {
  const std::string why = "the server is shutting down";
  Shut(why, [] {});  // or what is held would wait for an epoch
  EpochClosed(absl::UnavailableError(why));
  watch_.request_stop();
  watch_.join();
}

absl::Status TextDriver::Ready() const {
  const std::lock_guard lock(mutex_);
  return epoch_ != 0 ? absl::OkStatus() : absl::UnavailableError(waiting_for_);
}

void TextDriver::SetWaiting(const std::string& reason) {
  const std::lock_guard lock(mutex_);
  if (!shut_) waiting_for_ = reason;
}

void TextDriver::Generate(serve::TokenRequest request, serve::OnToken on_token) {
  if (absl::Status status = CheckRequest(request, model_, limits_); !status.ok()) {
    on_token(std::move(status));
    return;
  }
  const int64_t cache_tokens = int64_t{options_.schedule.blocks} * options_.schedule.block_tokens;
  auto pending = std::make_shared<Pending>(request, model_, cache_tokens);
  // From here on by a clock that nobody sets.
  pending->deadline =
      SteadyNow() + std::min(request.deadline - absl::Now(), options_.request_timeout);
  pending->on_token = std::move(on_token);
  std::unique_lock lock(mutex_);
  if (!Takes()) {
    absl::Status status = absl::UnavailableError(waiting_for_);
    lock.unlock();
    pending->on_token(std::move(status));
    return;
  }
  pending->id = next_request_++;
  pending_[pending->id] = pending;
  Perform(schedule_.On(Continuous::Request{.id = pending->id,
                                           .prompt_tokens = pending->sequence.prompt_tokens(),
                                           .max_tokens = pending->sequence.max_tokens()}));
  changed_.notify_all();
}

void TextDriver::Perform(const std::vector<Continuous::Action>& actions) {
  for (const Continuous::Action& action : actions) {
    if (const auto* launch = std::get_if<Continuous::Launch>(&action)) {
      LaunchStep(*launch);
    } else if (const auto* fail = std::get_if<Continuous::Fail>(&action)) {
      Fail(fail->request, fail->status);
    } else {
      const auto& reject = std::get<Continuous::Reject>(action);
      Fail(reject.request, reject.status);
    }
  }
  metrics_->SetQueueDepth(schedule_.waiting());
  metrics_->SetRunning(schedule_.running());
  metrics_->SetKvBlocks(schedule_.used_blocks(), options_.schedule.blocks);
  const int64_t preemptions = schedule_.preemptions();
  metrics_->AddPreemptions(preemptions - std::exchange(preemptions_, preemptions));
}

void TextDriver::LaunchStep(const Continuous::Launch& launch) {
  step::Step step;
  std::vector<int64_t> tokens, positions, rows;
  std::vector<RequestId>& drawing = flights_[launch.step];
  for (const Continuous::Part& part : launch.parts) {
    const TextSequence& sequence = pending_.at(part.request)->sequence;
    step.sequences.push_back(
        {.id = part.request, .start = part.start, .count = part.count, .blocks = part.blocks});
    for (int32_t position = part.start; position < part.start + part.count; ++position) {
      tokens.push_back(sequence.tokens()[position]);
      positions.push_back(position);
    }
    if (!part.draws) continue;
    step.samples.push_back(sequence.NextSample());
    step.samples.back().row = static_cast<int32_t>(rows.size());
    rows.push_back(static_cast<int64_t>(tokens.size()) - 1);
    drawing.push_back(part.request);
  }
  while (static_cast<int64_t>(rows.size()) < inputs_.min_rows) rows.push_back(0);
  const auto count = static_cast<int64_t>(tokens.size());
  const auto row_count = static_cast<int64_t>(rows.size());
  link::Frame frame{.epoch = epoch_, .step = launch.step, .rows = step::Serialize(step)};
  frame.tensors.push_back({static_cast<uint32_t>(inputs_.tokens), Numbers(tokens, {1, count})});
  frame.tensors.push_back(
      {static_cast<uint32_t>(inputs_.positions), Numbers(positions, {1, count})});
  frame.tensors.push_back({static_cast<uint32_t>(inputs_.rows), Numbers(rows, {row_count})});
  submit_(std::move(frame));
}

void TextDriver::OnResult(link::Frame frame) {
  const std::lock_guard lock(mutex_);
  if (frame.epoch != epoch_) return;
  const auto flight = flights_.extract(frame.step);
  if (flight.empty()) return;
  absl::StatusOr<step::Result> result = step::Result();
  if (frame.kind == link::FrameKind::kError) {
    result = link::StatusOf(frame);
  } else {
    result = step::ParseResult(frame.rows, flight.mapped().size(), limits_);
    if (!result.ok())
      result = absl::InternalError(absl::StrCat("what the last stage sent for step ", frame.step,
                                                " cannot be read: ", result.status().message()));
  }
  if (result.ok()) {
    Continuous::StepDone done{.step = frame.step};
    Take(flight.mapped(), *std::move(result), &done);
    Perform(schedule_.On(done));
  } else {
    Perform(schedule_.On(Continuous::StepFailed{frame.step, result.status()}));
  }
  changed_.notify_all();
}

void TextDriver::Take(const std::vector<RequestId>& drawing, step::Result result,
                      Continuous::StepDone* done) {
  const absl::Time now = SteadyNow();
  for (size_t i = 0; i < drawing.size(); ++i) {
    const auto found = pending_.find(drawing[i]);
    if (found == pending_.end()) continue;  // it has gone meanwhile
    const std::shared_ptr<Pending> pending = found->second;
    if (!result.drawn[i].status.ok()) {
      Fail(drawing[i], result.drawn[i].status);
      done->finished.push_back(drawing[i]);
      continue;
    }
    const serve::FinishReason finish = pending->sequence.Take(result.drawn[i].token);
    const double seconds = absl::ToDoubleSeconds(now - std::exchange(pending->last, now));
    if (pending->sequence.generated_tokens() == 1) {
      metrics_->AddPromptTokens(pending->sequence.prompt_tokens());
      metrics_->ObserveFirstToken(seconds);
    } else {
      metrics_->ObserveNextToken(seconds);
    }
    metrics_->AddGeneratedTokens(1);
    deliveries_.push_back(
        {pending, serve::TokenEvent{.drawn = std::move(result.drawn[i]), .finish = finish}});
    if (finish == serve::FinishReason::kNone) continue;
    done->finished.push_back(pending->id);
    pending_.erase(found);
  }
}

void TextDriver::Fail(RequestId id, const absl::Status& status) {
  const auto node = pending_.extract(id);
  if (!node.empty()) deliveries_.push_back({node.mapped(), status});
}

void TextDriver::EpochFormed(uint64_t epoch) {
  const std::lock_guard lock(mutex_);
  epoch_ = epoch;
  held_ = false;
  Perform(schedule_.On(Continuous::Resume{}));
}

void TextDriver::Hold(std::function<void()> idle) {
  const std::lock_guard lock(mutex_);
  on_idle_.push_back(std::move(idle));
  held_ = !shut_;
  if (held_) Perform(schedule_.On(Continuous::Hold{}));
  changed_.notify_all();
}

void TextDriver::Shut(const std::string& why, std::function<void()> idle) {
  const std::lock_guard lock(mutex_);
  on_idle_.push_back(std::move(idle));
  shut_ = true;
  held_ = false;
  waiting_for_ = why;
  if (epoch_ == 0) CancelAll();  // what is held has nothing to wait for
  Perform(schedule_.On(Continuous::Resume{}));
  changed_.notify_all();
}

bool TextDriver::Takes() const {
  if (shut_) return false;
  return epoch_ != 0 || (held_ && SteadyNow() < hold_until_);
}

// Who has been told everything is no longer pending, but must have been told.
bool TextDriver::IsIdle() const {
  return deliveries_.empty() && (held_ ? schedule_.begun() == 0 : pending_.empty());
}

void TextDriver::EpochClosed(const absl::Status& why) {
  const std::lock_guard lock(mutex_);
  epoch_ = 0;
  if (!shut_) waiting_for_ = std::string(why.message());
  hold_until_ = SteadyNow() + kLongestHold;
  flights_.clear();
  Perform(schedule_.On(Continuous::EpochEnded{absl::UnavailableError(why.message())}));
  changed_.notify_all();
}

void TextDriver::Deliver(std::deque<Delivery> deliveries) {
  for (Delivery& delivery : deliveries) {
    Pending& pending = *delivery.pending;
    if (pending.is_silent || pending.on_token(std::move(delivery.event))) continue;
    pending.is_silent = true;
    const std::lock_guard lock(mutex_);
    // Where its last token is on the list already, the schedule has let it go.
    if (pending_.erase(pending.id) > 0) Perform(schedule_.On(Continuous::Cancel{pending.id}));
  }
}

void TextDriver::CancelAll() {
  std::vector<Continuous::Cancel> cancels;
  for (const auto& [id, pending] : pending_)
    cancels.push_back({id, absl::UnavailableError(waiting_for_)});
  for (const Continuous::Cancel& cancel : cancels) Perform(schedule_.On(cancel));
}

void TextDriver::CancelOverdue() {
  if (held_ && !Takes()) CancelAll();
  const absl::Time now = SteadyNow();
  std::vector<Continuous::Cancel> cancels;
  for (const auto& [id, pending] : pending_) {
    if (pending->cancelled && *pending->cancelled)
      cancels.push_back({id, absl::CancelledError("the client has gone")});
    else if (now >= pending->deadline)
      cancels.push_back({id, absl::DeadlineExceededError(absl::StrCat(
                                 "the request's deadline passed after ",
                                 pending->sequence.generated_tokens(), " tokens of its answer"))});
  }
  for (const Continuous::Cancel& cancel : cancels) Perform(schedule_.On(cancel));
}

void TextDriver::Watch(std::stop_token stop) {
  const auto is_due = [&] { return !deliveries_.empty() || (!on_idle_.empty() && IsIdle()); };
  const auto has_work = [&] { return is_due() || !pending_.empty(); };
  absl::Time next_check = SteadyNow();
  std::unique_lock lock(mutex_);
  while (!stop.stop_requested() || !deliveries_.empty()) {
    if (pending_.empty())
      changed_.wait(lock, stop, has_work);
    else
      changed_.wait_for(lock, stop, kWatchPeriod, is_due);
    if (SteadyNow() >= next_check) {
      CancelOverdue();
      next_check = SteadyNow() + absl::FromChrono(kWatchPeriod);
    }
    std::deque<Delivery> deliveries = std::exchange(deliveries_, {});
    lock.unlock();
    Deliver(std::move(deliveries));
    lock.lock();
    if (on_idle_.empty() || !IsIdle()) continue;
    const std::vector<std::function<void()>> idles = std::exchange(on_idle_, {});
    lock.unlock();
    for (const auto& idle : idles) idle();
    lock.lock();
  }
}

}  // namespace echelon::stage
