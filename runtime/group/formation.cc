#include "runtime/group/formation.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace echelon::group {
namespace {

constexpr int kSignsOfLife = 2;  // one may have been on its way when its sender died
const absl::Duration kLogEvery = absl::Seconds(10);
const absl::Duration kFirstOpenPause = absl::Milliseconds(50);
const absl::Duration kLongestOpenPause = absl::Seconds(2);

std::string Text(const SendPlan& action) {
  return absl::StrCat("stream ", action.stream, ": send the plan");
}
std::string Text(const Refuse& action) {
  return absl::StrCat("stream ", action.stream, ": refuse: ", action.why.ToString());
}
std::string Text(const Drop& action) {
  return absl::StrCat("stream ", action.stream, ": drop: ", action.why);
}
std::string Text(const OpenLinks& action) {
  return absl::StrCat("stream ", action.stream, ": open epoch ", action.epoch, ", next is ",
                      action.next_address);
}
std::string Text(const Formed& action) {
  return absl::StrCat("stream ", action.stream, ": epoch ", action.epoch, " is formed");
}
std::string Text(const Close& action) {
  return absl::StrCat("stream ", action.stream, ": close epoch ", action.epoch, ": ",
                      action.why.ToString());
}
std::string Text(const End& action) { return absl::StrCat("end: ", action.why.ToString()); }
std::string Text(const Log& action) { return absl::StrCat("log: ", action.text); }

bool IsMissing(Phase phase) { return phase == Phase::kMissing; }
bool IsNotLoaded(Phase phase) { return phase != Phase::kLoaded && phase != Phase::kReady; }
bool IsNotReady(Phase phase) { return phase != Phase::kReady; }

absl::Status Refusal(int rank, absl::string_view why) {
  return absl::FailedPreconditionError(absl::StrCat("rank ", rank, " is refused: ", why));
}

}  // namespace

std::string_view Name(Phase phase) {
  switch (phase) {
    case Phase::kMissing:
      return "missing";
    case Phase::kJoined:
      return "joined";
    case Phase::kLoading:
      return "loading";
    case Phase::kLoaded:
      return "loaded";
    case Phase::kReady:
      return "ready";
  }
  return "?";
}

std::string ToString(const Action& action) {
  return std::visit([](const auto& one) { return Text(one); }, action);
}

std::string ToString(const std::vector<Action>& actions) {
  std::string text;
  for (const Action& action : actions) absl::StrAppend(&text, ToString(action), "\n");
  return text;
}

Formation::Formation(const Identity& self, const Timing& timing, uint64_t first_epoch,
                     absl::Time now)
    : self_(self),
      timing_(timing),
      epoch_(first_epoch - 1),
      ranks_(static_cast<size_t>(self.world)),
      now_(now),
      progress_at_(now),
      log_at_(now + kLogEvery),
      open_at_(now),
      open_pause_(kFirstOpenPause) {}

std::vector<Action> Formation::On(const Event& event, absl::Time now) {
  now_ = now;
  if (state_ != State::kEnded) std::visit([this](const auto& one) { Handle(one); }, event);
  return std::exchange(actions_, {});
}

Formation::Rank* Formation::Find(StreamId stream, int* number) {
  for (size_t i = 0; i < ranks_.size(); ++i) {
    Rank& rank = ranks_[i];
    if (rank.phase == Phase::kMissing || rank.hello.stream != stream) continue;
    *number = static_cast<int>(i);
    return &rank;
  }
  return nullptr;
}

absl::Status Formation::Check(const Identity& identity) const {
  const int rank = identity.rank;
  if (identity.world != self_.world) {
    return Refusal(rank, absl::StrCat("rank ", rank, " says WORLD=", identity.world,
                                      ", the head has WORLD=", self_.world));
  }
  if (rank < 1 || rank >= self_.world) {
    return Refusal(rank, absl::StrCat("ranks of WORLD=", self_.world, " that join are 1 to ",
                                      self_.world - 1));
  }
  if (identity.graph_digest != self_.graph_digest) {
    return Refusal(
        rank, absl::StrCat("its model file differs from the head's (digest ", identity.graph_digest,
                           ", the head has ", self_.graph_digest, "); give both the same file"));
  }
  if (identity.revision != self_.revision) {
    return Refusal(rank, absl::StrCat("it is of revision \"", identity.revision,
                                      "\", the head of \"", self_.revision, "\""));
  }
  return absl::OkStatus();
}

void Formation::Handle(const Joined& event) {
  if (event.stream == kSelf) return Admit(event);
  if (absl::Status status = Check(event.identity); !status.ok()) {
    Do(Log{absl::StrCat(status.message(), " (", event.address, ")")});
    return Do(Refuse{event.stream, status});
  }
  const int number = event.identity.rank;
  Rank& rank = ranks_[static_cast<size_t>(number)];
  if (rank.phase == Phase::kMissing) return Admit(event);
  if (rank.hello.identity.incarnation == event.identity.incarnation) {
    // The same process dialled anew: its older stream is dead, whether or not that has been seen
    // here.
    if (rank.claimant.has_value()) RefuseClaimant(number);
    Do(Drop{rank.hello.stream, "it joined anew"});
    Lose(number, "it joined anew");
    return Admit(event);
  }
  if (rank.claimant.has_value()) {
    return Do(
        Refuse{event.stream,
               Refusal(number, absl::StrCat("rank ", number, " is already claimed by a process at ",
                                            rank.claimant->address))});
  }
  rank.claimant = event;
  rank.claimant_heard = now_;
  rank.signs_of_life = 0;
}

void Formation::Admit(const Joined& hello) {
  Rank& rank = ranks_[static_cast<size_t>(hello.identity.rank)];
  rank.phase = Phase::kJoined;
  rank.hello = hello;
  rank.heard = now_;
  rank.loaded_bytes = rank.total_bytes = 0;
  ++rank.joins;
  rank.claimant.reset();
  Do(SendPlan{hello.stream});
}

void Formation::Handle(const Heard& event) {
  for (Rank& rank : ranks_) {
    if (rank.claimant.has_value() && rank.claimant->stream == event.stream)
      rank.claimant_heard = now_;
  }
  int number;
  Rank* rank = Find(event.stream, &number);
  if (rank == nullptr) return;
  rank->heard = now_;
  if (rank->claimant.has_value() && ++rank->signs_of_life >= kSignsOfLife) {
    RefuseClaimant(number);
  }
}

void Formation::RefuseClaimant(int number) {
  Rank& rank = ranks_[static_cast<size_t>(number)];
  Do(Refuse{rank.claimant->stream,
            Refusal(number, absl::StrCat("rank ", number, " is already taken by a process at ",
                                         rank.hello.address))});
  rank.claimant.reset();
}

void Formation::Handle(const Progressed& event) {
  int number;
  Rank* rank = Find(event.stream, &number);
  if (rank == nullptr) return;
  if (event.loaded_bytes > rank->loaded_bytes) progress_at_ = now_;
  rank->loaded_bytes = event.loaded_bytes;
  rank->total_bytes = event.total_bytes;
  if (rank->phase == Phase::kJoined) rank->phase = Phase::kLoading;
}

void Formation::Handle(const Loaded& event) {
  int number;
  Rank* rank = Find(event.stream, &number);
  if (rank == nullptr || !IsNotLoaded(rank->phase)) return;
  rank->phase = Phase::kLoaded;
  rank->last_error.clear();
  TryToOpen();
}

void Formation::Handle(const LoadFailed& event) {
  int number;
  if (Find(event.stream, &number) == nullptr) return;
  const std::string why =
      absl::StrCat("rank ", number, " cannot load its stage: ", event.why.message());
  Do(Log{why});
  if (event.stream == kSelf) {
    state_ = State::kEnded;
    return Do(End{absl::Status(event.why.code(), why)});
  }
  Do(Drop{event.stream, why});
  Lose(number, why);
}

void Formation::Handle(const Opened& event) {
  int number;
  Rank* rank = Find(event.stream, &number);
  if (rank == nullptr || state_ != State::kOpening || event.epoch != epoch_) return;
  rank->phase = Phase::kReady;
  if (std::any_of(ranks_.begin(), ranks_.end(),
                  [](const Rank& one) { return IsNotReady(one.phase); }))
    return;
  state_ = State::kFormed;
  last_formed_ = epoch_;
  open_pause_ = kFirstOpenPause;
  for (const Rank& one : ranks_) Do(Formed{one.hello.stream, epoch_});
  Do(Log{absl::StrCat("epoch ", epoch_, " is formed: ", self_.world, " ranks")});
}

void Formation::Handle(const Failed& event) {
  int number;
  Rank* rank = Find(event.stream, &number);
  if (rank == nullptr || event.epoch != epoch_ || state_ == State::kGathering) return;
  const std::string why = absl::StrCat("rank ", number, " reports: ", event.why.message());
  rank->last_error = why;
  CloseEpoch(absl::UnavailableError(why), /*retry_later=*/true);
}

void Formation::Handle(const Lost& event) {
  for (Rank& rank : ranks_) {
    if (rank.claimant.has_value() && rank.claimant->stream == event.stream) rank.claimant.reset();
  }
  int number;
  if (Find(event.stream, &number) != nullptr) Lose(number, event.why);
}

void Formation::Lose(int number, const std::string& why) {
  Rank& rank = ranks_[static_cast<size_t>(number)];
  rank.phase = Phase::kMissing;
  rank.last_error = why;
  Do(Log{absl::StrCat("rank ", number, " at ", rank.hello.address, " is gone: ", why)});
  if (state_ != State::kGathering) {
    CloseEpoch(absl::UnavailableError(absl::StrCat("rank ", number, " is gone: ", why)),
               /*retry_later=*/false);
  }
  if (rank.claimant.has_value()) Admit(Joined(*rank.claimant));
}

void Formation::TryToOpen() {
  if (state_ != State::kGathering || now_ < open_at_) return;
  if (std::any_of(ranks_.begin(), ranks_.end(),
                  [](const Rank& one) { return IsNotLoaded(one.phase); }))
    return;
  state_ = State::kOpening;
  ++epoch_;
  open_deadline_ = now_ + timing_.open;
  for (size_t i = 0; i < ranks_.size(); ++i) {
    Do(OpenLinks{ranks_[i].hello.stream, epoch_,
                 ranks_[(i + 1) % ranks_.size()].hello.link_address});
  }
}

void Formation::CloseEpoch(const absl::Status& why, bool retry_later) {
  state_ = State::kGathering;
  Do(Log{absl::StrCat("epoch ", epoch_, " is closed: ", why.message())});
  for (Rank& rank : ranks_) {
    if (rank.phase == Phase::kMissing) continue;
    if (rank.phase == Phase::kReady) rank.phase = Phase::kLoaded;
    Do(Close{rank.hello.stream, epoch_, why});
  }
  log_at_ = now_ + kLogEvery;
  if (!retry_later) return;
  open_at_ = now_ + open_pause_;
  open_pause_ = std::min(open_pause_ * 2, kLongestOpenPause);
}

void Formation::Handle(const Tick&) {
  CheckSilence();
  if (state_ == State::kOpening && now_ > open_deadline_) {
    CloseEpoch(
        absl::DeadlineExceededError(absl::StrCat(Who(IsNotReady), " did not open its links within ",
                                                 absl::FormatDuration(timing_.open))),
        /*retry_later=*/true);
  }
  TryToOpen();
  if (state_ == State::kGathering) CheckDeadlines();
}

void Formation::CheckSilence() {
  const auto silent = [this](absl::Time heard) { return now_ - heard > timing_.liveness; };
  for (size_t i = 0; i < ranks_.size(); ++i) {
    Rank& rank = ranks_[i];
    if (rank.claimant.has_value() && silent(rank.claimant_heard)) {
      Do(Drop{rank.claimant->stream, "silent"});
      rank.claimant.reset();
    }
    if (rank.phase == Phase::kMissing || rank.hello.stream == kSelf || !silent(rank.heard))
      continue;
    const std::string why = absl::StrCat("silent for ", absl::FormatDuration(timing_.liveness));
    Do(Drop{rank.hello.stream, why});
    Lose(static_cast<int>(i), why);
  }
}

absl::Time Formation::NextDeadline() const {
  if (state_ != State::kFormed) return absl::InfinitePast();
  absl::Time heard = absl::InfiniteFuture();
  for (const Rank& rank : ranks_) {
    if (rank.claimant.has_value()) return absl::InfinitePast();
    if (rank.phase != Phase::kMissing && rank.hello.stream != kSelf)
      heard = std::min(heard, rank.heard);
  }
  return heard + timing_.liveness;
}

void Formation::CheckDeadlines() {
  const std::string missing = Who(IsMissing);
  if (last_formed_ == 0 && now_ > progress_at_ + timing_.join) {
    const std::string who = missing.empty() ? Who(IsNotLoaded) : missing;
    state_ = State::kEnded;
    return Do(End{absl::DeadlineExceededError(
        absl::StrCat(who.empty() ? "the group" : who,
                     missing.empty() ? " was not ready within " : " did not join within ",
                     absl::ToInt64Seconds(timing_.join), " s"))});
  }
  if (now_ < log_at_) return;
  log_at_ = now_ + kLogEvery;
  const std::string loading = Who(IsNotLoaded);
  if (!missing.empty()) {
    Do(Log{absl::StrCat("waiting for ", missing, " to join")});
  } else if (!loading.empty()) {
    Do(Log{absl::StrCat("waiting for ", loading, " to load")});
  }
}

std::string Formation::Who(bool (*is_behind)(Phase)) const {
  std::vector<size_t> behind;
  for (size_t i = 0; i < ranks_.size(); ++i) {
    if (is_behind(ranks_[i].phase)) behind.push_back(i);
  }
  if (behind.empty()) return "";
  return absl::StrCat(behind.size() == 1 ? "rank " : "ranks ", absl::StrJoin(behind, ", "), " of ",
                      self_.world);
}

GroupStatus Formation::status() const {
  GroupStatus status{.epoch = last_formed_, .formed = state_ == State::kFormed};
  for (size_t i = 0; i < ranks_.size(); ++i) {
    const Rank& rank = ranks_[i];
    const bool in = rank.phase != Phase::kMissing;
    status.ranks.push_back(RankStatus{.rank = static_cast<int>(i),
                                      .phase = rank.phase,
                                      .address = in ? rank.hello.address : "",
                                      .incarnation = in ? rank.hello.identity.incarnation : "",
                                      .loaded_bytes = rank.loaded_bytes,
                                      .total_bytes = rank.total_bytes,
                                      .joins = rank.joins,
                                      .last_error = rank.last_error});
  }
  return status;
}

std::string Formation::ToString() const {
  constexpr absl::string_view kStates[] = {"gathering", "opening", "formed", "ended"};
  std::string text = absl::StrCat("epoch ", epoch_, " ", kStates[static_cast<int>(state_)], ":");
  for (size_t i = 0; i < ranks_.size(); ++i) {
    absl::StrAppend(&text, i == 0 ? " " : ", ", i, " ", std::string(Name(ranks_[i].phase)));
  }
  return text;
}

}  // namespace echelon::group
