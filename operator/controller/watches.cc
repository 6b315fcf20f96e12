#include "operator/controller/watches.h"

#include <mutex>
#include <utility>

#include "absl/strings/str_cat.h"
#include "operator/controller/project.h"

namespace echelon::op {
namespace {

using nlohmann::json;

constexpr char kManaged[] = "app.kubernetes.io/managed-by=echelon-operator";
// The StatefulSet controller's own revisions carry our pods' labels and this one.
constexpr char kOwnRevisions[] =
    "app.kubernetes.io/managed-by=echelon-operator,!controller.kubernetes.io/hash";

// "NAMESPACE/NAME" or "NAME".
std::pair<std::string, std::string> Split(const std::string& key) {
  const size_t slash = key.find('/');
  if (slash == std::string::npos) return {"", key};
  return {key.substr(0, slash), key.substr(slash + 1)};
}

}  // namespace

// Which reflectors have had their turn; the lock keeps Stop from passing one that is being started.
struct Watches::Chain {
  std::mutex mutex;
  std::vector<char> passed;  // it has synced or failed once
  bool stopped = false;
};

Watches::Watches(Api* api, Timer* timer, Options options, Sink sink)
    : api_(api),
      timer_(timer),
      options_(std::move(options)),
      sink_(std::make_shared<const Sink>(std::move(sink))),
      chain_(std::make_shared<Chain>()) {
  const auto made = [sink = sink_](auto see) {
    return [sink, see](const json& object) {
      if (auto seen = see(object)) sink->made(*std::move(seen));
    };
  };
  for (const Resource* resource : {&kServices, &kPodDisruptionBudgets, &kNetworkPolicies}) {
    Add(*resource, kManaged, "",
        made([kind = resource->kind](const json& object) { return SeeOwned(object, kind); }));
  }
  Add(kControllerRevisions, kOwnRevisions, "", made(SeeRevision));
  Add(kJobs, kManaged, "", made(SeeJob));
  Add(kStatefulSets, kManaged, "", made(SeeSet));
  Add(kPersistentVolumeClaims, "", "", [sink = sink_](const json& object) {
    sink->claim(object["metadata"].value("namespace", ""), ClaimFromJson(object));
  });
  Add(kPods, kManaged, "", [sink = sink_](const json& object) {
    if (auto seen = SeePod(object)) sink->pod(*std::move(seen));
  });
  Add(kPipelineDeployments, "", "", [sink = sink_](const json& object) {
    auto deployment = FromJson(object);
    if (deployment.ok()) {
      sink->deployment(*std::move(deployment), VersionOf(object));
    } else {
      sink->error(kPlural, deployment.status());
    }
  });
  Add(kCoreEvents, "", "type=Warning", [sink = sink_](const json& object) {
    if (auto seen = SeeWarning(object)) sink->warning(*std::move(seen));
  });
}

Watches::~Watches() { Stop(); }

void Watches::Add(const Resource& resource, std::string label_selector, std::string field_selector,
                  std::function<void(const json& object)> upsert) {
  const size_t index = reflectors_.size();
  const std::string_view kind = resource.kind;
  Reflector::Callbacks callbacks;
  callbacks.upsert = [upsert = std::move(upsert)](const std::string&, const json& object) {
    upsert(object);
  };
  callbacks.remove = [sink = sink_, kind](const std::string& key) {
    auto [ns, name] = Split(key);
    if (kind != kCoreEvents.kind) sink->removed(kind, std::move(ns), std::move(name));
  };
  callbacks.synced = [this, sink = sink_, kind, index] {
    sink->synced(kind);
    StartNext(index);
  };
  callbacks.error = [this, sink = sink_, plural = resource.plural, index](const absl::Status& why) {
    sink->error(plural, why);
    StartNext(index);
  };
  Reflector::Options options;
  options.of = {.ns = options_.ns,
                .label_selector = std::move(label_selector),
                .field_selector = std::move(field_selector)};
  options.without = Unread(kind);
  options.page = options_.page;
  options.seed = options_.seed + index;
  reflectors_.push_back(std::make_unique<Reflector>(api_, timer_, resource, std::move(options),
                                                    std::move(callbacks)));
  chain_->passed.push_back(0);
}

void Watches::Start() { reflectors_.front()->Start(); }

void Watches::StartNext(size_t after) {
  {
    const std::lock_guard lock(chain_->mutex);
    if (std::exchange(chain_->passed[after], 1) != 0) return;
  }
  if (after + 1 == reflectors_.size()) return;
  // Not from within a reflector's callback.
  timer_->After(absl::ZeroDuration(), [this, chain = chain_, next = after + 1] {
    const std::lock_guard lock(chain->mutex);
    if (!chain->stopped) reflectors_[next]->Start();
  });
}

void Watches::Stop() {
  {
    const std::lock_guard lock(chain_->mutex);
    chain_->stopped = true;
  }
  for (auto& reflector : reflectors_) reflector->Stop();
}

int64_t Watches::opened() const {
  int64_t opened = 0;
  for (const auto& reflector : reflectors_) opened += reflector->stats().watches;
  return opened;
}

}  // namespace echelon::op
