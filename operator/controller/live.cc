#include "operator/controller/live.h"

#include <future>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"
#include "operator/controller/cache.h"
#include "operator/controller/project.h"
#include "operator/controller/seen.h"
#include "operator/kube/resource.h"
#include "operator/render/render.h"

namespace echelon::op {
namespace {

using nlohmann::json;

absl::StatusOr<Response> Wait(Api* api, Request request) {
  auto answer = std::make_shared<std::promise<absl::StatusOr<Response>>>();
  api->Call(std::move(request),
            [answer](auto response) { answer->set_value(std::move(response)); });
  return answer->get_future().get();
}

// null: there is none.
absl::StatusOr<json> Read(Api* api, const Request& request) {
  const auto response = Wait(api, request);
  if (!response.ok()) return response.status();
  if (response->code == 404) return json();
  if (!response->ok()) return ToStatus(*response);
  json object = json::parse(response->body, nullptr, false);
  if (!object.is_object()) return absl::DataLossError("the API server sent no object");
  return object;
}

absl::Status ReadOwned(Api* api, const Deployment& of, Cache* cache) {
  const std::string selector = absl::StrCat(kDeploymentLabel, "=", of.name);
  const std::string key = KeyOf(of.ns, of.name);
  for (const Resource* resource : {&kServices, &kPodDisruptionBudgets, &kNetworkPolicies, &kJobs,
                                   &kControllerRevisions, &kStatefulSets, &kPods}) {
    Request list;
    list.path = ListPath(*resource, {.ns = of.ns, .label_selector = selector});
    auto answer = Read(api, list);
    if (!answer.ok()) return answer.status();
    if (!answer->is_object() || !answer->contains("items")) continue;
    for (const json& item : (*answer)["items"]) {
      if (resource == &kPods) {
        if (auto pod = SeePod(item)) cache->Put(*std::move(pod));
      } else if (resource == &kControllerRevisions) {
        if (auto revision = SeeRevision(item)) cache->Put(*std::move(revision));
      } else {
        cache->Put(SeeMade(item, resource->kind, key));
      }
    }
  }
  // What has our names without our labels is somebody else's, and in the way.
  for (const json& wanted :
       {HeadService(of), RanksService(of), DisruptionBudget(of), NetworkPolicy(of)}) {
    const std::string kind = wanted["kind"], name = wanted["metadata"]["name"];
    if (cache->Find(kind, key, name) != nullptr) continue;
    const Resource* resource = FindResource(wanted["apiVersion"].get<std::string>(), kind);
    auto object = Read(api, Get(*resource, of.ns, name));
    if (!object.ok()) return object.status();
    if (object->is_object()) cache->Put(SeeMade(*object, kind, key));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Observed> ReadLive(Api* api, Deployment* deployment) {
  auto object = Read(api, Get(kPipelineDeployments, deployment->ns, deployment->name));
  if (!object.ok()) return object.status();
  if (object->is_object()) {
    auto live = FromJson(*object);
    if (!live.ok()) return live.status();
    deployment->uid = live->uid;
    deployment->status = std::move(live->status);
    deployment->generation = live->generation;
    deployment->deleting = live->deleting;
  }
  Cache cache;
  const std::string key = KeyOf(deployment->ns, deployment->name);
  cache.Put(*deployment, 0);
  if (auto read = ReadOwned(api, *deployment, &cache); !read.ok()) return read;
  const std::string& claim = deployment->spec.model.source.claim_name;
  if (!claim.empty()) {
    auto found = Read(api, Get(kPersistentVolumeClaims, deployment->ns, claim));
    if (!found.ok()) return found.status();
    if (found->is_object()) cache.PutClaim(deployment->ns, ClaimFromJson(*found));
    cache.ClaimsSynced();
  }
  return std::move(cache.Get(key)->observed);
}

}  // namespace echelon::op
