#include "operator/controller/head_poller.h"

#include <algorithm>

#include "operator/controller/project.h"

namespace echelon::op {

HeadPoller::HeadPoller(HeadClient* client, Timer* loop, std::function<absl::Time()> wall_clock,
                       int max_in_flight, OnHead on_head)
    : client_(client),
      loop_(loop),
      wall_clock_(std::move(wall_clock)),
      max_in_flight_(max_in_flight),
      on_head_(std::move(on_head)),
      alarm_(loop, [this] { Pump(); }) {}

void HeadPoller::SetDue(const Id& id, State& state, absl::Time due) {
  if (!state.in_flight) {
    due_.erase({state.due, id});
    due_.emplace(due, id);
  }
  state.due = due;
}

void HeadPoller::Ask(const std::string& key, const std::vector<Head>& heads, absl::Duration every) {
  for (auto at = heads_.lower_bound({key, ""}); at != heads_.end() && at->first.first == key;) {
    const bool wanted = std::any_of(heads.begin(), heads.end(), [&](const Head& head) {
      return head.pod == at->first.second && head.uid == at->second.head.uid &&
             head.ip == at->second.head.ip;
    });
    if (wanted) {
      ++at;
      continue;
    }
    due_.erase({at->second.due, at->first});
    at = heads_.erase(at);  // an answer that is under way finds none, or another's UID
  }
  for (const Head& head : heads) {
    const Id id{key, head.pod};
    const auto [at, is_new] = heads_.try_emplace(id);
    State& state = at->second;
    if (is_new) {
      state.head = head;
      state.due = absl::InfiniteFuture();
    } else if (state.every == every) {
      continue;
    }
    state.every = every;
    SetDue(id, state, is_new ? loop_->Now() : state.last + every);
  }
  Pump();
}

void HeadPoller::Stop() {
  alive_.reset();
  heads_.clear();
  due_.clear();
}

void HeadPoller::Pump() {
  while (!due_.empty() && in_flight_ < max_in_flight_) {
    const auto [due, id] = *due_.begin();
    if (due > loop_->Now()) {
      alarm_.Set(due);
      return;
    }
    due_.erase(due_.begin());
    Start(id, heads_.at(id));
  }
}

void HeadPoller::Start(const Id& id, State& state) {
  state.in_flight = true;
  state.last = loop_->Now();
  state.due = absl::InfiniteFuture();
  ++in_flight_;
  client_->Get(state.head.ip, [this, loop = loop_, id, uid = state.head.uid,
                               alive = std::weak_ptr(alive_)](absl::StatusOr<std::string> body) {
    HeadView view;
    if (auto read = body.ok() ? HeadFromText(*body) : body.status(); read.ok()) {
      view = *std::move(read);
    } else {
      view.error = std::string(read.status().message());
    }
    loop->After(absl::ZeroDuration(), [this, id, uid, view = std::move(view), alive]() mutable {
      if (!alive.expired()) Finish(id, uid, std::move(view));
    });
  });
}

void HeadPoller::Finish(const Id& id, const std::string& uid, HeadView view) {
  --in_flight_;
  const auto at = heads_.find(id);
  if (at != heads_.end() && at->second.head.uid == uid && at->second.in_flight) {
    State& state = at->second;
    state.in_flight = false;
    state.due = absl::InfiniteFuture();
    SetDue(id, state, state.last + state.every);
    view.pod_uid = uid;
    view.asked = wall_clock_();
    on_head_(id.first, id.second, std::move(view));
  }
  Pump();
}

}  // namespace echelon::op
