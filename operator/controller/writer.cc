#include "operator/controller/writer.h"

#include <algorithm>
#include <utility>

#include "absl/status/status.h"

namespace echelon::op {
namespace {

constexpr size_t kObjects = static_cast<size_t>(Lane::kObjects);
constexpr size_t kWords = static_cast<size_t>(Lane::kWords);
constexpr absl::Duration kLongestPause = absl::Seconds(30);

}  // namespace

Writer::Writer(Api* api, Timer* loop, int in_flight, std::function<absl::Duration()> write_time)
    : api_(api),
      loop_(loop),
      max_in_flight_(std::max(in_flight, 1)),
      write_time_(std::move(write_time)),
      resume_(loop, [this] { Pump(); }) {}

void Writer::Send(Request request, Lane lane, Answer answer) {
  lanes_[static_cast<size_t>(lane)].push_back({std::move(request), nullptr, std::move(answer)});
  Pump();
}

void Writer::SendLate(Make make, Lane lane, Answer answer) {
  lanes_[static_cast<size_t>(lane)].push_back({{}, std::move(make), std::move(answer)});
  Pump();
}

void Writer::Pause(absl::Duration time) {
  not_before_ = std::max(not_before_, loop_->Now() + std::min(time, kLongestPause));
}

void Writer::Stop() {
  alive_.reset();
  for (auto& lane : lanes_) lane.clear();
}

absl::Time Writer::NextWord() const {
  if (lanes_[kWords].empty()) return absl::InfiniteFuture();
  const absl::Time since_word = last_start_[kWords] + kWordsEvery;
  if (!lanes_[kObjects].empty()) return since_word;
  return std::min(since_word, last_start_[kObjects] + kWordsEvery);
}

bool Writer::HasPlace(size_t lane) const {
  if (in_flight() >= max_in_flight_) return false;
  const bool word_is_due = NextWord() <= loop_->Now();
  if (lane == kWords) return word_is_due;
  return !word_is_due || in_flight() + 1 < max_in_flight_;
}

void Writer::Pump() {
  if (alive_ == nullptr) return;
  if (loop_->Now() < not_before_) {
    resume_.Set(not_before_);
    return;
  }
  for (bool started = true; started;) {
    started = false;
    for (size_t lane = 0; lane < lanes_.size(); ++lane) {
      if (lanes_[lane].empty() || !HasPlace(lane)) continue;
      Start(lane);
      started = true;
    }
  }
  const absl::Time next_word = NextWord();  // what is due by now waits for a place
  if (next_word > loop_->Now() && next_word != absl::InfiniteFuture()) resume_.Set(next_word);
}

void Writer::Start(size_t lane) {
  Pending pending = std::move(lanes_[lane].front());
  lanes_[lane].pop_front();
  ++in_flight_[lane];
  last_start_[lane] = loop_->Now();
  if (pending.make) pending.request = pending.make();
  const auto finish = [this, lane](Task task) {
    --in_flight_[lane];
    if (task) task();
    Pump();
  };
  const bool is_read = pending.request.method == "GET";
  const absl::Duration left = is_read ? absl::InfiniteDuration() : write_time_();
  pending.request.timeout = std::min(pending.request.timeout, left);
  if (left <= absl::ZeroDuration()) {
    // Not at once: who sends does not expect the answer before Send returns.
    loop_->After(absl::ZeroDuration(),
                 [finish, answer = std::move(pending.answer), alive = std::weak_ptr(alive_)] {
                   if (!alive.expired()) finish(answer(absl::AbortedError("not the leader")));
                 });
    return;
  }
  api_->Call(std::move(pending.request),
             [loop = loop_, finish, answer = std::move(pending.answer),
              alive = std::weak_ptr(alive_)](absl::StatusOr<Response> response) {
               Task task = answer(std::move(response));
               loop->After(absl::ZeroDuration(), [finish, task = std::move(task), alive] {
                 if (!alive.expired()) finish(task);
               });
             });
}

}  // namespace echelon::op
