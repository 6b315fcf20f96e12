#include "operator/controller/executor.h"

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"
#include "operator/controller/project.h"
#include "operator/kube/resource.h"

namespace echelon::op {
namespace {

using nlohmann::json;

constexpr absl::Duration kDefaultPause = absl::Seconds(1);  // of a 429 that names no time

// Made once for each revision and never rendered again.
bool IsMadeOnce(std::string_view kind) {
  return kind == "StatefulSet" || kind == "Job" || kind == "ControllerRevision";
}

// Within a wave what makes pods comes last: a name that is taken is found before there are any.
std::pair<int, bool> TurnOf(const Action& action) {
  if (action.verb == Verb::kForceDeletePod) return {-1, false};
  return {action.wave,
          action.verb == Verb::kApply && (action.kind == "StatefulSet" || action.kind == "Job")};
}

const Resource* ResourceOf(std::string_view kind) {
  for (const Resource* resource : {&kServices, &kStatefulSets, &kControllerRevisions, &kJobs,
                                   &kNetworkPolicies, &kPodDisruptionBudgets, &kPods}) {
    if (resource->kind == kind) return resource;
  }
  return nullptr;
}

Request Post(const Resource& resource, std::string_view ns, const json& object, bool dry_run) {
  Request request = Create(resource, ns, object.dump());
  absl::StrAppend(&request.path, "&fieldValidation=Strict", dry_run ? "&dryRun=All" : "");
  return request;
}

bool Says(const absl::StatusOr<Response>& response, absl::string_view words) {
  return response.ok() && absl::StrContains(ErrorMessage(*response), words);
}

// By the API server's own rules. What a webhook denies, with whatever code, it may allow later.
bool IsInvalid(const absl::StatusOr<Response>& response) {
  return response.ok() && (response->code == 422 || response->code == 400) &&
         !Says(response, "admission webhook");
}

// What a try may come to though the write would not: room is made, a webhook only takes real ones.
bool IsOfTheTryAlone(const absl::StatusOr<Response>& response) {
  return Says(response, "exceeded quota") || Says(response, "does not support dry run");
}

std::string ResultOf(const absl::StatusOr<Response>& response) {
  if (response.ok()) return std::to_string(response->code);
  return absl::IsAborted(response.status()) ? "not_leader" : "unreachable";
}

}  // namespace

std::string IdOf(const Action& action) { return absl::StrCat(action.kind, "/", action.name); }

struct Executor::Job {
  std::string key, ns, uid;
  bool again = false;
  std::vector<Action> actions;
  size_t next = 0;  // the first action that is not started
  int64_t generation = 0;
  bool read_spec = false;      // comes before the first wave
  std::vector<size_t> trials;  // then these
  bool stopped = false;        // no later wave begins
  int outstanding = 0;
  bool starting = false;  // keeps an answer that comes at once from ending the wave too early
  Outcome outcome;
  std::function<void(Outcome)> done;
};

Executor::Executor(Cache* cache, Writer* writer, std::function<absl::Time()> wall_clock,
                   OnRequest on_request)
    : cache_(cache),
      writer_(writer),
      wall_clock_(std::move(wall_clock)),
      on_request_(std::move(on_request)) {}

std::vector<size_t> Executor::Trials(const Deployment& deployment,
                                     const std::vector<Action>& actions) {
  const json& pod_template = deployment.spec.pod_template;
  const bool users_own =
      (pod_template.is_object() && !pod_template.empty()) || !deployment.spec.overrides.empty();
  std::set<std::string_view> tried;
  for (const Action& action : actions) {
    if (action.verb == Verb::kTry) tried.insert(action.name);
  }
  std::vector<size_t> trials;
  for (size_t i = 0; i < actions.size(); ++i) {
    const Action& action = actions[i];
    const bool makes = action.verb == Verb::kApply && action.kind == "StatefulSet";
    if (action.verb == Verb::kTry || (makes && users_own && !tried.contains(action.name))) {
      trials.push_back(i);
    }
  }
  return trials;
}

void Executor::Run(const Deployment& deployment, std::vector<Action> actions, bool again,
                   std::function<void(Outcome)> done) {
  auto job = std::make_shared<Job>();
  job->again = again;
  job->key = KeyOf(deployment.ns, deployment.name);
  job->ns = deployment.ns;
  job->uid = deployment.uid;
  job->generation = deployment.generation;
  job->actions = std::move(actions);
  std::stable_sort(job->actions.begin(), job->actions.end(),
                   [](const Action& a, const Action& b) { return TurnOf(a) < TurnOf(b); });
  job->trials = Trials(deployment, job->actions);
  job->done = std::move(done);
  job->read_spec = NeedsFreshSpec(*job);
  StartWave(job);
}

void Executor::StartWave(const JobPtr& job) {
  job->starting = true;
  const auto is_next = [&](auto matches) {
    return job->next < job->actions.size() && matches(job->actions[job->next]);
  };
  // Pods on lost nodes wait for nothing.
  while (is_next([](const Action& a) { return a.verb == Verb::kForceDeletePod; })) {
    Start(job, job->actions[job->next++]);
  }
  if (job->read_spec) {
    ReadSpec(job);
  } else if (!job->trials.empty()) {
    for (const size_t trial : job->trials) Try(job, job->actions[trial]);
  } else if (job->next < job->actions.size()) {
    const auto turn = TurnOf(job->actions[job->next]);
    while (is_next([&](const Action& a) { return TurnOf(a) == turn; })) {
      Start(job, job->actions[job->next++]);
    }
  }
  job->starting = false;
  if (job->outstanding == 0) Finish(job);
}

void Executor::Finish(const JobPtr& job) {
  if (job->starting || job->outstanding > 0) return;
  if (!std::exchange(job->read_spec, false)) job->trials.clear();
  if (!job->stopped && job->next < job->actions.size()) return StartWave(job);
  while (job->outcome.retry && job->next < job->actions.size()) {
    job->outcome.failed.insert(IdOf(job->actions[job->next++]));
  }
  job->done(std::move(job->outcome));
}

void Executor::Ask(
    const JobPtr& job, const Action& action, Request request, std::string_view verb,
    std::function<void(const absl::StatusOr<Response>&, std::optional<AnySeen>)> then) {
  ++job->outstanding;
  writer_->Send(
      std::move(request), Lane::kObjects,
      [this, job, verb, kind = action.kind, then = std::move(then)](auto response) -> Writer::Task {
        std::optional<AnySeen> view;
        if (response.ok() && response->ok()) {
          const json object = Skim(response->body, Unread(kind));
          if (object.is_object() && object.contains("metadata")) {
            view = SeeMade(object, kind, job->key);
          }
          response->body.clear();
        }
        return [this, job, verb, then, view = std::move(view), response = std::move(response)] {
          on_request_(verb, ResultOf(response));
          then(response, view);
          --job->outstanding;
          Finish(job);
        };
      });
}

// Later waves stand on what is applied, and on nothing that goes.
void Executor::Retry(const JobPtr& job, const Action& action) {
  job->outcome.retry = true;
  job->outcome.failed.insert(IdOf(action));
  if (action.verb == Verb::kApply || action.verb == Verb::kTry) job->stopped = true;
}

bool Executor::PauseIfAsked(const Response& response) {
  const bool asked = response.retry_after > absl::ZeroDuration();
  if (!asked && response.code != 429) return false;
  writer_->Pause(asked ? response.retry_after : kDefaultPause);
  return true;
}

void Executor::Failed(const JobPtr& job, const Action& action,
                      const absl::StatusOr<Response>& response) {
  Retry(job, action);
  const std::string why =
      response.ok() ? ErrorText(*response) : std::string(response.status().message());
  if (job->outcome.error.empty()) {
    job->outcome.error = absl::StrCat(action.kind, " ", action.name, ": ", why);
  }
  if (!response.ok() || PauseIfAsked(*response)) return;
  const int code = response->code;
  if (code >= 400 && code != 409 && (code < 500 || job->again)) {
    cache_->Warn(job->key, {.kind = action.kind,
                            .object = action.name,
                            .reason = kFailedWrite,
                            .message = ErrorMessage(*response),
                            .last_seen = wall_clock_()});
  }
}

void Executor::Refused(const JobPtr& job, const Action& action, const Response& response) {
  job->outcome.invalid_template = ErrorMessage(response);
  job->outcome.error = absl::StrCat(action.name, ": ", job->outcome.invalid_template);
  job->stopped = true;
}

void Executor::Remember(const JobPtr& job, std::optional<AnySeen> view) {
  if (view && cache_->Get(job->key) != nullptr) {
    std::visit(
        [&](const auto& seen) { cache_->TakeBack(job->key, seen.view.kind, seen.view.name); },
        *view);
    cache_->PutAnswer(*std::move(view), wall_clock_());
  }
}

void Executor::Recheck(const Cache::Name& name, std::function<void(const std::string& key)> done) {
  const Resource* resource = ResourceOf(name.kind);
  if (resource == nullptr) return;
  writer_->Send(Get(*resource, NamespaceOf(name.key), name.name), Lane::kWords,
                [this, name, done = std::move(done)](auto response) -> Writer::Task {
                  std::optional<AnySeen> view;
                  if (response.ok() && response->ok()) {
                    const json object = Skim(response->body, Unread(name.kind));
                    if (object.is_object()) view = SeeMade(object, name.kind, name.key);
                  }
                  return
                      [this, name, done, view = std::move(view), response = std::move(response)] {
                        on_request_("get", ResultOf(response));
                        if (cache_->Get(name.key) == nullptr) return;
                        if (view) {
                          if (cache_->PutAnswer(*view, wall_clock_())) done(name.key);
                        } else if (response.ok() && response->code == 404) {
                          cache_->Remove(name.kind, NamespaceOf(name.key), name.name, 0);
                          done(name.key);
                        } else {
                          if (response.ok()) PauseIfAsked(*response);
                          cache_->KeepUnconfirmed(name, wall_clock_());
                        }
                      };
                });
}

// A replica that has just become the leader may have heard nothing for a while. What it takes away
// or puts beside what is there must be wanted by the spec as it is now.
bool Executor::NeedsFreshSpec(const Job& job) const {
  const Cache::Entry* entry = cache_->Get(job.key);
  const bool is_new = entry == nullptr || entry->observed.revisions.empty();
  return std::any_of(job.actions.begin(), job.actions.end(), [&](const Action& action) {
    return action.verb == Verb::kDelete || action.verb == Verb::kScale ||
           (action.kind == "StatefulSet" && !is_new);
  });
}

void Executor::ReadSpec(const JobPtr& job) {
  ++job->outstanding;
  writer_->Send(Get(kPipelineDeployments, job->ns, NameOf(job->key)), Lane::kObjects,
                [this, job](auto response) -> Writer::Task {
                  auto live = std::make_shared<absl::StatusOr<Deployment>>(absl::NotFoundError(""));
                  uint64_t version = 0;
                  if (response.ok() && response->ok()) {
                    const json object = json::parse(response->body, nullptr, false);
                    *live = FromJson(object);
                    version = VersionOf(object);
                    response->body.clear();
                  }
                  return [this, job, live, version, response = std::move(response)] {
                    on_request_("get", ResultOf(response));
                    const Action reading{.kind = kKind, .name = std::string(NameOf(job->key))};
                    if (live->ok()) {
                      cache_->TakeBack(job->key, reading.kind, reading.name);
                    } else if (!response.ok() || response->code != 404) {  // its watch will tell
                      Failed(job, reading, response);
                    }
                    const bool is_it = live->ok() && (*live)->uid == job->uid &&
                                       (*live)->generation == job->generation && !(*live)->deleting;
                    if (!is_it) {
                      job->stopped = true;
                      const bool is_news =
                          live->ok() && cache_->Put(**std::move(live), version).has_value();
                      (is_news ? job->outcome.look_again : job->outcome.retry) = true;
                    }
                    --job->outstanding;
                    Finish(job);
                  };
                });
}

void Executor::Try(const JobPtr& job, const Action& action) {
  if (cache_->Find(action.kind, job->key, action.name) != nullptr) return;
  Ask(job, action, Post(kStatefulSets, job->ns, action.object, /*dry_run=*/true), "try",
      [this, job, &action](const auto& response, auto) {
        if (IsInvalid(response)) return Refused(job, action, *response);
        // A webhook that is down, say: the write itself will tell, and others go on. But what
        // serves does not go for what may not come.
        const bool taken = response.ok() && response->ok();
        if (action.verb != Verb::kTry || taken || IsOfTheTryAlone(response)) return;
        if (response.ok() && response->code == 409) return Look(job, action);
        Failed(job, action, response);
      });
}

void Executor::Start(const JobPtr& job, const Action& action) {
  switch (action.verb) {
    case Verb::kScale:
      return Scale(job, action);
    case Verb::kDelete:
    case Verb::kForceDeletePod:
      return Delete(job, action);
    case Verb::kTry:  // has been
      return;
    case Verb::kApply:
      break;
  }
  const OwnedObject* known = cache_->Find(action.kind, job->key, action.name);
  if (known == nullptr) return Make(job, action);
  const bool is_ours = known->owner_uid == job->uid && !known->deleting;
  if (is_ours && !IsMadeOnce(action.kind)) ApplyAgain(job, action);
}

void Executor::Make(const JobPtr& job, const Action& action) {
  Ask(job, action, Post(*ResourceOf(action.kind), job->ns, action.object, /*dry_run=*/false),
      "create", [this, job, &action](const auto& response, auto view) {
        if (response.ok() && response->ok()) return Remember(job, std::move(view));
        if (response.ok() && response->code == 409) return Look(job, action);
        if (IsInvalid(response) && action.kind == "StatefulSet") {
          return Refused(job, action, *response);
        }
        Failed(job, action, response);
      });
}

// Something has the name: ours, if a watch is late or the answer to an earlier POST was lost. From
// now on reconcile sees it, whoever owns it.
void Executor::Look(const JobPtr& job, const Action& action) {
  Ask(job, action, Get(*ResourceOf(action.kind), job->ns, action.name), "get",
      [this, job, &action](const auto& response, auto view) {
        if (response.ok() && response->ok()) {
          job->outcome.look_again = job->stopped = true;
          return Remember(job, std::move(view));
        }
        if (response.ok() && response->code == 404) return Retry(job, action);  // gone meanwhile
        Failed(job, action, response);
      });
}

// Also reads the object afresh: what the cache took for ours is changed only if it still is.
void Executor::ApplyAgain(const JobPtr& job, const Action& action) {
  ++job->outstanding;
  const Resource& resource = *ResourceOf(action.kind);
  writer_->Send(Get(resource, job->ns, action.name), Lane::kObjects,
                [this, job, &action, &resource](auto response) -> Writer::Task {
                  json fields, object;
                  if (response.ok() && response->ok()) {
                    object = json::parse(response->body, nullptr, false);
                    if (object.is_object()) fields = AppliedFields(object);
                  }
                  std::optional<Request> upgrade;
                  if (!fields.is_null()) {
                    const json& meta = object["metadata"];
                    const json patch{{"metadata",
                                      {{"uid", meta.value("uid", "")},
                                       {"resourceVersion", meta.value("resourceVersion", "")},
                                       {"managedFields", fields}}}};
                    upgrade = MergePatch(resource, job->ns, action.name, patch.dump());
                  }
                  return [this, job, &action, response = std::move(response),
                          upgrade = std::move(upgrade)] {
                    on_request_("get", ResultOf(response));
                    if (!response.ok() || !response->ok()) {
                      Failed(job, action, response);
                    } else if (!upgrade) {
                      Apply(job, action);
                    } else {
                      Ask(job, action, *upgrade, "patch",
                          [this, job, &action](const auto& patched, auto view) {
                            if (!patched.ok() || !patched->ok())
                              return Failed(job, action, patched);
                            Remember(job, std::move(view));
                            Apply(job, action);
                          });
                    }
                    --job->outstanding;
                    Finish(job);
                  };
                });
}

void Executor::Apply(const JobPtr& job, const Action& action) {
  const OwnedObject* known = cache_->Find(action.kind, job->key, action.name);
  if (known == nullptr || known->owner_uid != job->uid) return Retry(job, action);
  json object = action.object;
  object["metadata"]["uid"] = known->uid;
  Ask(job, action,
      op::Apply(*ResourceOf(action.kind), job->ns, action.name, object.dump(), {.strict = true}),
      "apply", [this, job, &action](const auto& response, auto view) {
        if (response.ok() && response->ok()) return Remember(job, std::move(view));
        Failed(job, action, response);
      });
}

void Executor::Scale(const JobPtr& job, const Action& action) {
  const OwnedObject* known = cache_->Find(action.kind, job->key, action.name);
  if (known == nullptr || known->uid != action.uid || known->owner_uid != job->uid) {
    return Retry(job, action);
  }
  const json object{{"apiVersion", kStatefulSets.ApiVersion()},
                    {"kind", action.kind},
                    {"metadata", {{"name", action.name}, {"uid", action.uid}}},
                    {"spec", {{"replicas", action.replicas}}}};
  Ask(job, action, op::Apply(kStatefulSets, job->ns, action.name, object.dump()), "scale",
      [this, job, &action](const auto& response, auto view) {
        if (response.ok() && response->ok()) return Remember(job, std::move(view));
        Failed(job, action, response);
      });
}

void Executor::Delete(const JobPtr& job, const Action& action) {
  const bool force = action.verb == Verb::kForceDeletePod;
  DeleteOptions options{.uid = action.uid};
  if (force) options.grace_seconds = 0;
  Ask(job, action, op::Delete(*ResourceOf(action.kind), job->ns, action.name, options),
      force ? "force_delete" : "delete", [this, job, &action](const auto& response, auto) {
        if (response.ok() && (response->ok() || response->code == 404)) {
          cache_->TakeBack(job->key, action.kind, action.name);
          cache_->MarkDeleting(action.kind, job->key, action.name, action.uid);
          return;
        }
        Failed(job, action, response);
      });
}

json AppliedFields(const json& object) {
  const auto meta = object.find("metadata");
  if (meta == object.end() || !meta->is_object() || !meta->contains("managedFields")) return {};
  json fields = (*meta)["managedFields"];
  if (!fields.is_array()) return {};
  const auto is_ours = [](const json& entry, std::string_view operation) {
    return entry.is_object() && entry.value("manager", "") == kOurManager &&
           entry.value("operation", "") == operation && entry.value("subresource", "").empty();
  };
  const auto posted = std::find_if(fields.begin(), fields.end(),
                                   [&](const json& entry) { return is_ours(entry, "Update"); });
  if (posted == fields.end()) return {};
  const bool has_applied = std::any_of(fields.begin(), fields.end(),
                                       [&](const json& entry) { return is_ours(entry, "Apply"); });
  if (has_applied) {
    fields.erase(posted);
  } else {
    (*posted)["operation"] = "Apply";
  }
  return fields;
}

}  // namespace echelon::op
