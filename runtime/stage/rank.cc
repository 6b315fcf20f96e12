#include "runtime/stage/rank.h"

#include <malloc.h>

#include <chrono>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "runtime/plan/plan.h"

namespace echelon::stage {
namespace {

using Clock = std::chrono::steady_clock;

double SecondsSince(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

}  // namespace

Rank::Rank(const Options& options, const graph::Graph* graph, link::TcpListener* listener,
           serve::Metrics* metrics, Hooks hooks)
    : options_(options),
      graph_(graph),
      listener_(listener),
      metrics_(metrics),
      hooks_(std::move(hooks)) {
  compute_ = std::thread([this] { Compute(); });
}

Rank::~Rank() {
  CloseEpoch(UINT64_MAX, absl::CancelledError("the process stops"));
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  compute_.join();
}

absl::Status Rank::Load(const std::string& plan_json,
                        std::function<void(int64_t, int64_t)> progress) {
  const absl::StatusOr<plan::Plan> plan = plan::FromJson(plan_json, *graph_);
  if (!plan.ok()) return plan.status();
  if (module_ && plan->digest == plan_digest_) return absl::OkStatus();
  if (static_cast<int>(plan->stages.size()) != options_.world)
    return absl::FailedPreconditionError(absl::StrCat("the plan has ", plan->stages.size(),
                                                      " stages and WORLD is ", options_.world));
  loading_ = true;
  absl::Status status = LoadStage(*plan, progress);
  loading_ = false;
  return status;
}

absl::Status Rank::LoadStage(const plan::Plan& plan,
                             const std::function<void(int64_t, int64_t)>& progress) {
  const plan::Stage& stage = plan.stages[options_.rank];
  if (hooks_.planned) hooks_.planned(plan, stage);
  {
    // The epoch is closed, but its last step may still run: it ends by itself, its links are shut.
    std::unique_lock lock(mutex_);
    wake_.wait(lock, [&] { return !computing_; });
  }
  module_.reset();  // another plan's weights must go before this one's come
  const std::unique_ptr<weights::WeightSource> source = weights::LocalFiles();
  const auto set_reading = [&](const weights::WeightSource* from) {
    const std::lock_guard lock(reading_mutex_);
    source_ = from;
    reading_bytes_ = static_cast<uint64_t>(stage.weight_bytes);
  };
  const absl::Cleanup not_reading = [&] { set_reading(nullptr); };
  exec::LoadOptions load{.threads = options_.threads,
                         .checkpoint = options_.checkpoint,
                         .verify = options_.verify,
                         .exact = options_.exact,
                         .kv_blocks = plan.kv_blocks};
  const auto tell = [&](int64_t loaded) {
    metrics_->SetWeights(loaded, stage.weight_bytes);
    if (progress) progress(loaded, stage.weight_bytes);
  };
  load.progress = [&](int64_t loaded, int64_t total) {
    if (loaded >= total) set_reading(nullptr);  // laying them out comes next, at its own pace
    // A checkpoint in another dtype has other bytes than the stage: its share is what is told.
    const double share = total > 0 ? static_cast<double>(loaded) / static_cast<double>(total) : 1;
    tell(loaded >= total ? stage.weight_bytes
                         : static_cast<int64_t>(share * static_cast<double>(stage.weight_bytes)));
  };
  tell(0);
  set_reading(source.get());
  absl::StatusOr<std::unique_ptr<exec::StageModule>> module =
      exec::LoadStage(*graph_, stage, *source, load);
  if (!module.ok()) return module.status();
  module_ = *std::move(module);
  plan_digest_ = plan.digest;
  ::malloc_trim(0);  // what reading the graph left behind
  tell(stage.weight_bytes);
  if (hooks_.loaded) hooks_.loaded(source->bytes_read(), module_->weight_bytes());
  return absl::OkStatus();
}

std::optional<Rank::Reading> Rank::reading() const {
  const std::lock_guard lock(reading_mutex_);
  if (source_ == nullptr) return std::nullopt;
  return Reading{source_->bytes_read(), reading_bytes_};
}

absl::Status Rank::OpenEpoch(const group::Epoch& epoch, absl::Duration timeout) {
  CloseEpoch(epoch.number - 1, absl::UnavailableError("a new epoch begins"));
  auto links = std::make_shared<Links>();
  links->epoch = epoch.number;
  if (options_.world > 1) {
    // Both at once: each neighbour waits for the other in a ring.
    dial_cancelled_ = cancelled_through_ >= epoch.number;
    link::LinkOptions link_options = options_.link;
    link_options.cancelled = &dial_cancelled_;
    absl::StatusOr<std::unique_ptr<link::Link>> out;
    std::jthread dial([&] {
      out = link::Dial(epoch.next_address, {epoch.number, options_.rank, epoch.token},
                       options_.limits, timeout, link_options);
    });
    const int previous = (options_.rank + options_.world - 1) % options_.world;
    absl::StatusOr<std::unique_ptr<link::Link>> in =
        listener_->Accept({epoch.number, previous, epoch.token}, timeout);
    if (!in.ok()) dial_cancelled_ = true;
    dial.join();
    if (!in.ok()) return in.status();
    if (!out.ok()) return out.status();
    links->in = *std::move(in);
    links->out = *std::move(out);
    links->receiver = std::jthread([this, links] { Receive(links); });  // joined by CloseEpoch
  }
  const std::lock_guard lock(mutex_);
  links_ = std::move(links);
  return absl::OkStatus();
}

void Rank::CancelOpen(uint64_t epoch) {
  cancelled_through_ = epoch;
  dial_cancelled_ = true;
  if (listener_) listener_->CancelThrough(epoch);
}

void Rank::EpochFormed(uint64_t epoch) {
  metrics_->SetEpoch(epoch);
  metrics_->SetReady(true);
  if (hooks_.formed) hooks_.formed(epoch);
}

void Rank::CloseEpoch(uint64_t epoch, const absl::Status& why) {
  std::shared_ptr<Links> links;
  {
    const std::lock_guard lock(mutex_);
    if (!links_ || links_->epoch > epoch) return;
    links = std::exchange(links_, nullptr);
    std::erase_if(queue_, [&](const Work& work) { return work.links == links; });
  }
  metrics_->SetReady(false);
  links->closed = true;
  if (links->in) links->in->Close();
  if (links->out) links->out->Close();
  if (links->receiver.joinable()) links->receiver.join();
  if (hooks_.closed) hooks_.closed(why);
}

void Rank::Hold(uint64_t, std::function<void()> idle) {
  if (!hooks_.hold) return idle();
  hooks_.hold(std::move(idle));
}

void Rank::Submit(link::Frame frame) {
  std::shared_ptr<Links> links;
  {
    const std::lock_guard lock(mutex_);
    links = links_;
  }
  if (links && links->epoch == frame.epoch) Push({std::move(links), std::move(frame)});
}

void Rank::Push(Work work) {
  {
    const std::lock_guard lock(mutex_);
    if (work.links != links_) return;
    queue_.push_back(std::move(work));
  }
  wake_.notify_all();
}

void Rank::Receive(const std::shared_ptr<Links>& links) {
  uint64_t seen_bytes = 0;
  for (;;) {
    const auto start = Clock::now();
    absl::StatusOr<link::Frame> frame = links->in->Receive();
    metrics_->AddLinkWait(SecondsSince(start));
    const uint64_t bytes = links->in->bytes_received();
    metrics_->AddLinkReceived(bytes - std::exchange(seen_bytes, bytes));
    if (frame.ok() && frame->epoch != links->epoch)
      frame = absl::InvalidArgumentError(
          absl::StrCat("a frame of epoch ", frame->epoch, " in epoch ", links->epoch));
    if (!frame.ok()) {
      if (links->closed) return;
      metrics_->AddError(absl::IsInvalidArgument(frame.status()) ? "bad_frame" : "link_lost");
      if (hooks_.failed) hooks_.failed(links->epoch, frame.status());
      return;
    }
    if (options_.rank == 0)
      hooks_.result(*std::move(frame));
    else
      Push({links, *std::move(frame)});
  }
}

void Rank::Compute() {
  for (;;) {
    std::unique_lock lock(mutex_);
    wake_.wait(lock, [&] { return stopping_ || !queue_.empty(); });
    if (stopping_) return;
    Work work = std::move(queue_.front());
    queue_.pop_front();
    computing_ = true;
    lock.unlock();
    Run(std::move(work));
    lock.lock();
    computing_ = false;
    wake_.notify_all();
  }
}

void Rank::Run(Work work) {
  link::Frame& frame = work.frame;
  Links& links = *work.links;
  if (links.closed) return;
  if (frame.kind == link::FrameKind::kStep) {
    const auto start = Clock::now();
    const absl::Status status = module_->Run(frame);
    metrics_->ObserveCompute(SecondsSince(start));
    if (!status.ok()) {
      metrics_->AddError("step_failed");
      frame = link::ErrorFrame(frame.epoch, frame.step, frame.chunk, status);
    }
  }  // an error frame is relayed as it is
  if (!links.out) {
    if (!links.closed) hooks_.result(std::move(frame));
    return;
  }
  const uint64_t before = links.out->bytes_sent();
  const absl::Status sent = links.out->Send(frame);
  metrics_->AddLinkSent(links.out->bytes_sent() - before);
  if (sent.ok() || links.closed) return;
  metrics_->AddError("link_lost");
  if (hooks_.failed) hooks_.failed(links.epoch, sent);
}

}  // namespace echelon::stage
