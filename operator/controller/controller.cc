#include "operator/controller/controller.h"

#include <time.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "operator/controller/crd_check.h"
#include "operator/kube/resource.h"
#include "spdlog/spdlog.h"

namespace echelon::op {
namespace {

constexpr absl::Duration kTick = absl::Seconds(1);
constexpr absl::Duration kConfirmWithin = absl::Seconds(15);  // what a watch has not told by then
constexpr absl::Duration kCrdRetry = absl::Seconds(2), kCrdAgain = absl::Minutes(1);
constexpr absl::Duration kLeaseAgain = absl::Milliseconds(200);
constexpr int kSlice = 8;       // reconciles before other tasks of the loop have their turn
constexpr int kMaxRounds = 20;  // of actions in a row, before they count as going in circles
constexpr int kSilent = 3;      // misses in a row after which one more says nothing new

double ThreadCpuSeconds() {
  timespec time{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
}

bool SaysTheSame(const HeadView& a, HeadView b) {
  b.asked = a.asked;
  if (a.missed >= kSilent && b.missed >= kSilent) b.missed = a.missed;
  return a == b;
}

}  // namespace

Controller::Controller(World world, Options options)
    : world_(std::move(world)),
      options_(std::move(options)),
      queue_({.seed = options_.seed}),
      writer_(world_.api, world_.loop, options_.requests_in_flight, world_.write_time),
      executor_(&cache_, &writer_, world_.wall_clock,
                [this](auto verb, auto code) { world_.metrics->AddRequest(verb, code); }),
      reporter_(
          &writer_, world_.loop, world_.wall_clock, {.instance = options_.instance},
          [this](auto verb, auto code) { world_.metrics->AddRequest(verb, code); },
          [this](const std::string& key, const std::string& error) {
            world_.metrics->AddError();
            spdlog::warn("{}: {}", key, error);
          }),
      poller_(world_.heads, world_.loop, world_.wall_clock, options_.polls_in_flight,
              [this](const auto& key, const auto& pod, HeadView view) {
                Heard(key, pod, std::move(view));
              }),
      alarm_(world_.loop, [this] { Pump(); }),
      last_tick_ns_(absl::ToUnixNanos(world_.loop->Now())),
      readiness_(absl::UnavailableError("starting")) {
  watches_ = std::make_unique<Watches>(
      world_.api, world_.watches,
      Watches::Options{.ns = options_.ns, .page = options_.page, .seed = options_.seed}, Sink());
  for (const Resource* resource : {&kPipelineDeployments, &kServices, &kPodDisruptionBudgets,
                                   &kNetworkPolicies, &kControllerRevisions, &kJobs, &kStatefulSets,
                                   &kPods, &kPersistentVolumeClaims, &kCoreEvents}) {
    unsynced_.emplace(resource->kind);
  }
}

Controller::~Controller() { watches_->Stop(); }

void Controller::Post(std::function<void()> task) {
  world_.loop->After(absl::ZeroDuration(), [task = std::move(task), alive = std::weak_ptr(alive_)] {
    if (!alive.expired()) task();
  });
}

Watches::Sink Controller::Sink() {
  return {
      .deployment =
          [this](Deployment deployment, uint64_t version) {
            auto shared = std::make_shared<Deployment>(std::move(deployment));
            Post([this, shared, version] {
              const std::string seen = KeyOf(shared->ns, shared->name);
              const auto key = cache_.Put(std::move(*shared), version);
              const Cache::Entry* entry = cache_.Get(seen);
              if (entry != nullptr && entry->deployment != nullptr) {
                reporter_.Saw(*entry->deployment);
              }
              if (key) queue_.Forget(*key);  // what failed was another spec's
              Touch(key);
            });
          },
      .made =
          [this](AnySeen seen) {
            Post([this, seen = std::move(seen)]() mutable { Touch(cache_.Put(std::move(seen))); });
          },
      .pod =
          [this](Seen<PodView> seen) {
            Post([this, seen = std::move(seen)]() mutable { Touch(cache_.Put(std::move(seen))); });
          },
      .warning =
          [this](SeenWarning seen) {
            Post([this, seen = std::move(seen)]() mutable {
              Touch(cache_.Put(std::move(seen), world_.wall_clock()));
            });
          },
      .claim =
          [this](std::string ns, ClaimView claim) {
            Post([this, ns = std::move(ns), claim = std::move(claim)] {
              Touch(cache_.PutClaim(ns, claim));
            });
          },
      .removed =
          [this](std::string_view kind, std::string ns, std::string name) {
            Post([this, kind, ns = std::move(ns), name = std::move(name)] {
              Removed(kind, ns, name);
            });
          },
      .synced = [this](std::string_view kind) { Post([this, kind] { Synced(kind); }); },
      .error =
          [this](std::string_view plural, const absl::Status& why) {
            Post([this, plural, why] { WatchFailed(plural, why); });
          },
  };
}

void Controller::Start() {
  Post([this] {
    AskForCrd();
    Tick();
  });
  watches_->Start();
}

void Controller::Stop(std::function<void()> done) {
  Post([this, done = std::move(done)] {
    watches_->Stop();
    writer_.Stop();
    poller_.Stop();
    alive_.reset();
    done();
  });
}

void Controller::Lead(bool leads) {
  Post([this, leads] {
    if (leads == leads_) return;
    leads_ = leads;
    spdlog::info(leads ? "leading: this replica writes" : "not leading any more: writes nothing");
    reporter_.Clear();
    failed_.clear();
    world_.metrics->ForgetAllGroups();
    for (const auto& [key, entry] : cache_.entries()) {
      if (leads) {
        queue_.Forget(key);
        queue_.Add(key, world_.loop->Now());
      } else {
        poller_.Ask(key, {}, absl::InfiniteDuration());
      }
    }
    Pump();
  });
}

// ---- what watches tell --------------------------------------------------------------------------

void Controller::Removed(std::string_view kind, const std::string& ns, const std::string& name) {
  if (kind == kPersistentVolumeClaims.kind) return Touch(cache_.RemoveClaim(ns, name));
  Touch(cache_.Remove(kind, ns, name, 0));
}

void Controller::Synced(std::string_view kind) {
  if (kind == kPersistentVolumeClaims.kind) cache_.ClaimsSynced();
  unsynced_.erase(std::string(kind));
  SetReadiness(crd_is_right_ ? absl::OkStatus() : absl::UnavailableError("not checked yet"));
  Pump();
}

void Controller::WatchFailed(std::string_view plural, const absl::Status& why) {
  world_.metrics->AddWatchError(plural);
  // An old version or a server that is restarting belongs to a watch's life.
  if (absl::IsOutOfRange(why) || absl::IsUnavailable(why) || absl::IsDeadlineExceeded(why)) {
    spdlog::debug("{}", std::string(why.message()));
  } else {
    spdlog::warn("{}: {}", plural, std::string(why.message()));
  }
}

void Controller::AskForCrd() {
  Request request = Get(kCustomResourceDefinitions, "", kCrdName);
  world_.api->Call(std::move(request), [this, alive = std::weak_ptr(alive_)](auto response) {
    absl::Status status = response.ok() ? CheckCrd(*response) : response.status();
    const bool unread = response.ok() && response->code == 403;
    if (alive.expired()) return;
    Post([this, unread, status = std::move(status)] {
      if (unread && !crd_is_right_) {
        spdlog::warn(
            "CustomResourceDefinition {} may not be read, so an older one is not noticed; "
            "this operator needs {} {}",
            kCrdName, kCrdVersionAnnotation, kCrdVersion);
      }
      // Once it was right, an API server that does not answer changes nothing.
      if (!absl::IsFailedPrecondition(status) && crd_is_right_) return;
      SetReadiness(status);
      Pump();
    });
  });
  world_.loop->After(crd_is_right_ ? kCrdAgain : kCrdRetry, [this, alive = std::weak_ptr(alive_)] {
    if (!alive.expired()) AskForCrd();
  });
}

void Controller::SetReadiness(absl::Status crd) {
  if (absl::IsFailedPrecondition(crd) && crd.message() != last_crd_error_) {
    last_crd_error_ = std::string(crd.message());
    spdlog::error("{}", last_crd_error_);
  }
  if (crd_is_right_ && !crd.ok()) world_.metrics->ForgetAllGroups();  // nobody counts them now
  if (!crd_is_right_ && crd.ok()) {
    for (const auto& [key, entry] : cache_.entries()) queue_.Add(key, world_.loop->Now());
  }
  crd_is_right_ = crd.ok();
  absl::Status readiness = std::move(crd);
  if (readiness.ok() && !unsynced_.empty()) {
    readiness =
        absl::UnavailableError(absl::StrCat("not listed yet: ", absl::StrJoin(unsynced_, ", ")));
  }
  const std::lock_guard lock(readiness_mutex_);
  if (readiness.ok() && !readiness_.ok()) spdlog::info("ready: all resources are listed");
  readiness_ = std::move(readiness);
}

absl::Status Controller::Ready() const {
  const std::lock_guard lock(readiness_mutex_);
  return readiness_;
}

absl::Duration Controller::Silence() const {
  return world_.loop->Now() - absl::FromUnixNanos(last_tick_ns_.load());
}

void Controller::Tick() {
  last_tick_ns_.store(absl::ToUnixNanos(world_.loop->Now()));
  int64_t deployments = 0, pods = 0;
  for (const auto& [key, entry] : cache_.entries()) {
    deployments += entry.deployment != nullptr ? 1 : 0;
    pods += static_cast<int64_t>(entry.observed.pods.size());
  }
  world_.metrics->Set({.queued = static_cast<int64_t>(queue_.waiting()),
                       .working = static_cast<int64_t>(queue_.working()),
                       .deployments = deployments,
                       .pods = pods,
                       .requests_waiting = static_cast<int64_t>(writer_.waiting()),
                       .requests_in_flight = writer_.in_flight(),
                       .heads = static_cast<int64_t>(poller_.asked()),
                       .leader = leads_,
                       .synced = unsynced_.empty()});
  world_.metrics->SetWatches(watches_->opened());
  if (leads_) {
    for (const auto& name : cache_.TakeUnconfirmed(world_.wall_clock() - kConfirmWithin)) {
      executor_.Recheck(name, [this](const std::string& key) { Touch(key); });
    }
  }
  world_.loop->After(kTick, [this, alive = std::weak_ptr(alive_)] {
    if (!alive.expired()) Tick();
  });
}

// ---- the queue ----------------------------------------------------------------------------------

void Controller::Touch(const std::optional<std::string>& key) {
  if (!key) return;
  rounds_.erase(*key);
  queue_.Add(*key, world_.loop->Now());
  Pump();
}

void Controller::Touch(const std::vector<std::string>& keys) {
  for (const std::string& key : keys) Touch(key);
}

// Hands out a few objects and comes back by way of the loop, so that news are not kept waiting.
void Controller::Pump() {
  if (pumping_ || !leads_ || !crd_is_right_ || !unsynced_.empty()) return;
  pumping_ = true;
  Post([this] {
    pumping_ = false;
    if (!leads_) return;
    if (world_.write_time() <= absl::ZeroDuration()) {  // the lease's word of it is on its way
      alarm_.Set(world_.loop->Now() + kLeaseAgain);
      return;
    }
    for (int i = 0; i < kSlice && acting_ < 2 * options_.requests_in_flight; ++i) {
      const auto key = queue_.Take(world_.loop->Now());
      if (!key) break;
      Work(*key);
    }
    if (acting_ >= 2 * options_.requests_in_flight) return;  // Acted goes on
    if (queue_.next() <= world_.loop->Now()) {
      Pump();
    } else if (queue_.next() != absl::InfiniteFuture()) {
      alarm_.Set(queue_.next());
    }
  });
}

void Controller::Work(const std::string& key) {
  Cache::Entry* entry = cache_.Get(key);
  if (entry == nullptr || entry->deployment == nullptr) {
    reporter_.Forget(key);
    poller_.Ask(key, {}, absl::InfiniteDuration());
    verdicts_.erase(key);
    rounds_.erase(key);
    failed_.erase(key);
    queue_.Remove(key);
    world_.metrics->ForgetGroups(NamespaceOf(key), NameOf(key));
    return;
  }
  Plan plan = MakePlan(key, entry);
  const Deployment& deployment = *entry->deployment;
  AskHeads(key, entry, plan);
  world_.metrics->SetGroups(deployment.ns, deployment.name,
                            deployment.spec.suspend ? 0 : deployment.spec.replicas,
                            plan.status.ready_replicas);
  if (plan.requeue) {
    const absl::Duration wait =
        std::max(*plan.requeue - world_.wall_clock(), absl::Milliseconds(10));
    queue_.Add(key, world_.loop->Now() + wait);
  }
  reporter_.Say(deployment, std::move(plan.status), std::move(plan.notes));
  if (plan.actions.empty()) {
    rounds_.erase(key);
    queue_.Forget(key);
  } else if (const absl::Time held = queue_.held_until(key); world_.loop->Now() < held) {
    HoldBack(key, &plan.actions);
    queue_.Add(key, held);
  } else {
    failed_.erase(key);
  }
  if (!plan.actions.empty()) return Act(key, deployment, std::move(plan.actions));
  queue_.Done(key);
}

// While what failed waits for its next try, so does what is made; what goes need not. A plan that
// went in circles waits as a whole.
void Controller::HoldBack(const std::string& key, std::vector<Action>* actions) const {
  const auto failed = failed_.find(key);
  const bool replaces = std::any_of(actions->begin(), actions->end(), [](const Action& action) {
    return action.verb == Verb::kTry;  // then sets go only together with it
  });
  std::erase_if(*actions, [&](const Action& action) {
    return failed == failed_.end() || action.verb == Verb::kApply || action.verb == Verb::kTry ||
           (replaces && action.kind == "StatefulSet") || failed->second.contains(IdOf(action));
  });
}

Plan Controller::MakePlan(const std::string& key, Cache::Entry* entry) {
  const double start = ThreadCpuSeconds();
  Deployment& deployment = *entry->deployment;
  const Status& current = reporter_.Current(deployment);
  Status as_read = std::exchange(deployment.status, current);
  const auto verdict = verdicts_.find(key);
  if (verdict != verdicts_.end()) {
    if (verdict->second.uid != deployment.uid ||
        verdict->second.generation != deployment.generation) {
      verdicts_.erase(verdict);
    } else if (deployment.invalid_reason.empty()) {
      deployment.invalid_reason = "InvalidTemplate";
      deployment.invalid_message = verdict->second.message;
    }
  }
  Plan plan = Reconcile(deployment, entry->observed, options_.settings, world_.wall_clock());
  deployment.status = std::move(as_read);
  world_.metrics->ObserveReconcile(ThreadCpuSeconds() - start);
  return plan;
}

void Controller::Act(const std::string& key, const Deployment& deployment,
                     std::vector<Action> actions) {
  ++acting_;
  spdlog::info("{}: {}: {} {}{}", key, actions.front().why, actions.front().kind,
               actions.front().name,
               actions.size() > 1 ? absl::StrCat(" and ", actions.size() - 1, " more") : "");
  executor_.Run(deployment, std::move(actions), queue_.held_until(key) != absl::InfinitePast(),
                [this, key, uid = deployment.uid, generation = deployment.generation](
                    Outcome outcome) { Acted(key, uid, generation, std::move(outcome)); });
}

void Controller::Acted(const std::string& key, const std::string& uid, int64_t generation,
                       Outcome outcome) {
  --acting_;
  if (!outcome.error.empty()) {
    world_.metrics->AddError();
    spdlog::warn("{}: {}", key, outcome.error);
  }
  const absl::Time now = world_.loop->Now();
  if (!outcome.invalid_template.empty()) {
    verdicts_[key] = {uid, generation, std::move(outcome.invalid_template)};
    queue_.Add(key, now);
  } else if (outcome.retry) {
    failed_[key].merge(outcome.failed);
    queue_.Retry(key, now);
    queue_.Add(key, now);  // to say why
  } else if (failed_.erase(key); ++rounds_[key] > kMaxRounds) {
    queue_.Retry(key, now);
  } else {
    queue_.Forget(key);
    queue_.Add(key, now);
  }
  queue_.Done(key);
  Pump();
}

// ---- heads --------------------------------------------------------------------------------------

void Controller::AskHeads(const std::string& key, Cache::Entry* entry, const Plan& plan) {
  std::vector<HeadPoller::Head> heads;
  for (const std::string& name : plan.ask) {
    const auto pod = std::find_if(entry->observed.pods.begin(), entry->observed.pods.end(),
                                  [&](const PodView& view) { return view.name == name; });
    if (pod == entry->observed.pods.end()) continue;
    const std::string& address = options_.status_host.empty() ? pod->ip : options_.status_host;
    if (!address.empty()) heads.push_back({pod->name, pod->uid, address});
  }
  // Misses in a row are those of one life of its process.
  for (auto& [pod, head] : entry->observed.heads) {
    if (std::find(plan.ask.begin(), plan.ask.end(), pod) == plan.ask.end()) head.missed = 0;
  }
  poller_.Ask(key, heads, plan.ask_every);
}

void Controller::Heard(const std::string& key, const std::string& pod, HeadView view) {
  world_.metrics->AddPoll(view.error.empty());
  Cache::Entry* entry = cache_.Get(key);
  if (entry == nullptr) return;
  const auto [at, is_first] = entry->observed.heads.try_emplace(pod);
  HeadView& known = at->second;
  if (!view.error.empty()) {  // what it said last stands, with the error
    HeadView last = known.pod_uid == view.pod_uid ? known : HeadView{};
    last.pod_uid = std::move(view.pod_uid);
    last.asked = view.asked;
    last.error = std::move(view.error);
    ++last.missed;
    view = std::move(last);
  }
  const bool is_news = is_first || !SaysTheSame(known, view);
  known = std::move(view);
  if (is_news) Touch(key);
}

bool Controller::idle() const {
  return acting_ == 0 && !pumping_ && writer_.in_flight() == 0 && writer_.waiting() == 0 &&
         queue_.next() > world_.loop->Now();
}

}  // namespace echelon::op
