// How a rank ends: told to, by a signal; by itself, when its group or its loading fails.
#include <pthread.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "runtime/plan/cost.h"
#include "runtime/stage/stage_process.h"
#include "runtime/stage/standstill.h"
#include "runtime/sync/steady_clock.h"

namespace echelon::stage {
namespace {

constexpr auto kLoadingPeriod = std::chrono::milliseconds(200);
// From readiness lost until those who route requests have heard of it.
constexpr absl::Duration kEndpointsTime = absl::Seconds(2);
// For answers on their way to clients, after the last one is computed.
constexpr absl::Duration kFlushTime = absl::Seconds(2);
// What a worker grants the head beyond --drain-seconds.
const absl::Duration kHeadsOwnTime = kEndpointsTime + kFlushTime;

class Flag {
 public:
  void Set() {
    const MutexLock lock(&mutex_);
    is_set_ = true;
  }
  bool AwaitUntil(absl::Time deadline) {
    const MutexLock lock(&mutex_);
    return mutex_.AwaitUntil([this]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return is_set_; },
                             deadline);
  }

 private:
  Mutex mutex_;
  bool is_set_ ABSL_GUARDED_BY(mutex_) = false;
};

// Bytes that read calls have given this process, from anywhere; but for what asking reads. None
// where the kernel does not tell. One thread at a time.
std::optional<uint64_t> BytesRead() {
  static uint64_t own_bytes = 0;
  std::ifstream file("/proc/self/io");
  uint64_t bytes = 0, asked_bytes = 0;
  bool found = false;
  for (std::string line; std::getline(file, line); asked_bytes += line.size() + 1)
    if (absl::StartsWith(line, "rchar: ")) found = absl::SimpleAtoi(line.substr(7), &bytes);
  const uint64_t before = std::exchange(own_bytes, own_bytes + asked_bytes);
  return found ? std::optional(bytes - before) : std::nullopt;
}

}  // namespace

absl::Status StageProcess::Run() {
  std::thread signals([this] { WatchSignals(); });
  std::jthread loading;
  if (flags_.no_progress_s > 0)
    loading = std::jthread([this](const std::stop_token& stop) { WatchLoading(stop); });
  absl::Status status = Start();
  if (status.ok()) status = node_->Wait();
  if (!status.ok() && started_ && rank_->loading()) {  // it cannot be told to give up
    Say(status);
    Quit(1);
  }
  if (!status.ok() && started_) Stop(/*told=*/false);
  ended_ = true;
  ::pthread_kill(signals.native_handle(), SIGTERM);
  signals.join();
  return status;
}

void StageProcess::Say(const absl::Status& status) {
  const std::string who = absl::StrCat("rank ", flags_.rank);
  std::string text(status.message());
  report_.Error(text);
  if (!absl::StartsWith(text, who + " ")) text = absl::StrCat(who, ": ", text);
  WriteTermination(flags_.report_termination, text);
  std::fprintf(stderr, "echelon-stage: %s\n", text.c_str());
}

void StageProcess::Quit(int status) {
  spdlog::default_logger()->flush();
  std::fflush(stdout);
  std::_Exit(status);
}

void StageProcess::WatchSignals() {
  std::thread stopping;
  for (;;) {
    int signal = 0;
    ::sigwait(&stop_signals_, &signal);
    if (ended_) break;
    if (stopping.joinable()) {
      spdlog::warn("told to stop a second time: stopping at once");
      Quit(128 + signal);
    }
    spdlog::info("stopping");
    if (!started_) Quit(0);
    stopping = std::thread([this] { Stop(/*told=*/true); });
  }
  if (stopping.joinable()) stopping.join();
}

// A thread that hangs in a read cannot be ended: the process goes without it.
void StageProcess::WatchLoading(const std::stop_token& stop) {
  Standstill standstill(absl::Seconds(flags_.no_progress_s));
  std::mutex mutex;
  std::condition_variable_any wake;
  std::unique_lock lock(mutex);
  while (!wake.wait_for(lock, stop, kLoadingPeriod, [&] { return stop.stop_requested(); })) {
    std::optional<uint64_t> read_bytes;
    std::string what = absl::StrCat("while ", flags_.model, " was opened");
    if (opening_) {
      read_bytes = BytesRead();
    } else if (started_) {
      if (const std::optional<Rank::Reading> reading = rank_->reading()) {
        read_bytes = reading->read_bytes;
        what = absl::StrCat("with ", plan::BytesText(static_cast<int64_t>(reading->read_bytes)),
                            " of ", plan::BytesText(static_cast<int64_t>(reading->total_bytes)),
                            " of weights loaded");
      }
    }
    if (!standstill.Observe(read_bytes, SteadyNow())) continue;
    if (health_) health_->Fail();
    const std::string& place = flags_.weights.empty() ? flags_.model : flags_.weights;
    Say(absl::DeadlineExceededError(absl::StrCat("no progress for ", flags_.no_progress_s, " s ",
                                                 what, "; see whether ", place, " can be read")));
    Quit(1);
  }
}

void StageProcess::Stop(bool told) {
  std::call_once(stop_once_, [&] {
    draining_ = true;
    if (health_) health_->SetReady(false);
    grpc_->Drain();
    if (is_head())
      StopHead(told);
    else
      StopWorker(told);
  });
}

// Whoever is told to go while it loads has nothing to finish, and a read that hangs has no end.
void StageProcess::StopWorker(bool told) {
  if (told) node_->Leave(absl::Seconds(flags_.drain_s) + kHeadsOwnTime);
  if (told && rank_->loading()) Quit(0);
  node_->Stop();
  grpc_->Stop(absl::Now());
  http_->Stop(absl::Now());
}

void StageProcess::StopHead(bool told) {
  node_->Leave(absl::ZeroDuration());
  if (told && rank_->loading()) Quit(0);
  http_->Drain();
  Flag never;
  if (told && health_ && formed_) never.AwaitUntil(SteadyNow() + kEndpointsTime);
  const absl::Duration patience = absl::Seconds(told ? flags_.drain_s : 0);
  const absl::Time deadline = SteadyNow() + patience;
  const auto idle = std::make_shared<Flag>(), calls_ended = std::make_shared<Flag>();
  driver_->Shut("the server is shutting down", [idle] { idle->Set(); });
  // In a thread of its own: new calls are turned away from now on, and it waits for the others.
  std::jthread grpc_stop([&, grpc_deadline = absl::Now() + patience + kFlushTime] {
    grpc_->Stop(grpc_deadline);
    calls_ended->Set();
  });
  if (!idle->AwaitUntil(deadline))
    spdlog::warn("requests still ran after --drain-seconds {}: they fail", flags_.drain_s);
  node_->Stop();  // releases the workers; what still runs fails
  if (!calls_ended->AwaitUntil(SteadyNow() + kFlushTime)) grpc_->CancelCalls();
  http_->Stop(absl::Now() + kFlushTime);
}

}  // namespace echelon::stage
