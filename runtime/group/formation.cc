#include "runtime/group/formation.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace echelon::group {
namespace {

constexpr size_t kMaxFenced = 16;  // of a rank, the latest
constexpr int kSignsOfLife = 2;    // one may have been on its way when its sender died
const absl::Duration kLogEvery = absl::Seconds(10);
const absl::Duration kFirstOpenPause = absl::Milliseconds(50);
const absl::Duration kLongestOpenPause = absl::Seconds(2);

bool IsMissing(Phase phase) { return phase == Phase::kMissing; }
bool IsNotLoaded(Phase phase) { return phase != Phase::kLoaded && phase != Phase::kReady; }
bool IsNotReady(Phase phase) { return phase != Phase::kReady; }

absl::Status Refusal(int rank, absl::string_view why) {
  return absl::FailedPreconditionError(absl::StrCat("rank ", rank, " is refused: ", why));
}

absl::Status FencedOff(int rank) {
  return Refusal(rank, absl::StrCat("a newer incarnation of rank ", rank, " has joined"));
}

}  // namespace

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
  const std::string& incarnation = event.identity.incarnation;
  if (std::find(rank.fenced.begin(), rank.fenced.end(), incarnation) != rank.fenced.end()) {
    Do(Log{absl::StrCat(FencedOff(number).message(), " (", event.address, ")")});
    return Do(Refuse{event.stream, FencedOff(number)});
  }
  if (rank.phase == Phase::kMissing) return Admit(event);
  const Identity& in = rank.hello.identity;
  if (in.incarnation != incarnation && !in.pod_name.empty() &&
      in.pod_name == event.identity.pod_name) {
    if (absl::Status status = CheckSuccession(in, event.identity); !status.ok())
      return Do(Refuse{event.stream, status});
    Fence(number);
    return Admit(event);
  }
  if (in.incarnation == incarnation) {
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

// Of two incarnations of one pod name.
absl::Status Formation::CheckSuccession(const Identity& in, const Identity& newcomer) const {
  const bool is_known = in.started_ms != 0 && newcomer.started_ms != 0;
  if (!is_known || newcomer.started_ms >= in.started_ms) return absl::OkStatus();
  return absl::UnavailableError(
      absl::StrCat("rank ", in.rank, " is held by an incarnation of pod ", in.pod_name,
                   " that began later; it is yours when that one has gone"));
}

void Formation::Fence(int number) {
  Rank& rank = ranks_[static_cast<size_t>(number)];
  if (rank.claimant.has_value()) RefuseClaimant(number);
  Do(Refuse{rank.hello.stream, FencedOff(number)});
  Lose(number, "a newer incarnation has joined");
}

void Formation::Admit(const Joined& hello) {
  Rank& rank = ranks_[static_cast<size_t>(hello.identity.rank)];
  const std::string& before = rank.hello.identity.incarnation;
  if (rank.joins > 0 && before != hello.identity.incarnation) {
    rank.fenced.push_back(before);
    if (rank.fenced.size() > kMaxFenced) rank.fenced.pop_front();
  }
  rank.leaving = false;
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

void Formation::Handle(const Leaving& event) {
  if (event.stream == kSelf) {
    stopping_ = true;
    return;
  }
  int number;
  Rank* rank = Find(event.stream, &number);
  if (rank == nullptr) return Do(Release{event.stream});  // a claimant, at most
  rank->leaving = true;
  if (state_ == State::kFormed) {
    if (hold_at_ == absl::InfiniteFuture()) hold_at_ = now_ + timing_.settle;
    Do(Log{absl::StrCat("rank ", number, " at ", rank->hello.address,
                        " is told to stop: it stays until what runs has ended")});
  } else if (state_ == State::kOpening) {
    CloseEpoch(absl::UnavailableError(absl::StrCat("rank ", number, " leaves")),
               /*retry_later=*/false);
  } else {
    ReleaseLeaving();
  }
}

void Formation::Handle(const Idle& event) {
  if (state_ != State::kFormed || event.epoch != epoch_ || stopping_) return;
  std::vector<size_t> leaving;
  for (size_t i = 0; i < ranks_.size(); ++i) {
    if (ranks_[i].leaving) leaving.push_back(i);
  }
  CloseEpoch(absl::UnavailableError(absl::StrCat(leaving.size() == 1 ? "rank " : "ranks ",
                                                 absl::StrJoin(leaving, ", "),
                                                 leaving.size() == 1 ? " leaves" : " leave")),
             /*retry_later=*/false);
}

// Where no epoch is open.
void Formation::ReleaseLeaving() {
  for (size_t i = 0; i < ranks_.size(); ++i) {
    Rank& rank = ranks_[i];
    if (!rank.leaving || rank.phase == Phase::kMissing) continue;
    Do(Release{rank.hello.stream});
    Lose(static_cast<int>(i), "it was told to stop");
  }
}

void Formation::HoldForLeaving() {
  if (state_ != State::kFormed || stopping_ || now_ < hold_at_) return;
  hold_at_ = absl::InfiniteFuture();
  Do(Hold{epoch_});
}

void Formation::Lose(int number, const std::string& why) {
  Rank& rank = ranks_[static_cast<size_t>(number)];
  rank.phase = Phase::kMissing;
  rank.leaving = false;
  rank.last_error = why;
  Do(Log{absl::StrCat("rank ", number, " at ", rank.hello.address, " is gone: ", why)});
  if (state_ != State::kGathering) {
    CloseEpoch(absl::UnavailableError(absl::StrCat("rank ", number, " is gone: ", why)),
               /*retry_later=*/false);
  }
  if (rank.claimant.has_value()) Admit(Joined(*rank.claimant));
}

void Formation::TryToOpen() {
  if (state_ != State::kGathering || now_ < open_at_ || stopping_) return;
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
  if (retry_later) {
    open_at_ = now_ + open_pause_;
    open_pause_ = std::min(open_pause_ * 2, kLongestOpenPause);
  }
  hold_at_ = absl::InfiniteFuture();
  ReleaseLeaving();
}

void Formation::Handle(const Tick& tick) {
  Excuse(Stall(tick.due, now_, timing_));
  CheckSilence();
  if (state_ == State::kOpening && now_ > open_deadline_) {
    CloseEpoch(
        absl::DeadlineExceededError(absl::StrCat(Who(IsNotReady), " did not open its links within ",
                                                 absl::FormatDuration(timing_.open))),
        /*retry_later=*/true);
  }
  HoldForLeaving();
  TryToOpen();
  if (state_ == State::kGathering) CheckDeadlines();
}

void Formation::Excuse(absl::Duration stall) {
  open_deadline_ += stall;
  for (Rank& rank : ranks_) {
    rank.heard = std::min(now_, rank.heard + stall);
    rank.claimant_heard = std::min(now_, rank.claimant_heard + stall);
  }
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
  return std::min(heard + timing_.liveness, stopping_ ? absl::InfiniteFuture() : hold_at_);
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

}  // namespace echelon::group
