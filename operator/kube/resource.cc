#include "operator/kube/resource.h"

#include <array>
#include <initializer_list>
#include <utility>

#include "absl/strings/ascii.h"
#include "nlohmann/json.hpp"

namespace echelon::op {
namespace {

constexpr std::array kAll{kPipelineDeployments,
                          kPods,
                          kServices,
                          kConfigMaps,
                          kPersistentVolumeClaims,
                          kNodes,
                          kNamespaces,
                          kCoreEvents,
                          kEvents,
                          kStatefulSets,
                          kControllerRevisions,
                          kJobs,
                          kLeases,
                          kNetworkPolicies,
                          kPodDisruptionBudgets,
                          kCustomResourceDefinitions};

// The packaged absl::StrCat knows no std::string_view.
std::string Join(std::initializer_list<std::string_view> parts) {
  std::string text;
  for (const std::string_view part : parts) text += part;
  return text;
}

// "?a=1&b=2" out of the pairs whose value is not empty.
class Query {
 public:
  Query& Add(std::string_view name, std::string_view value) {
    if (!value.empty()) {
      text_ += Join({text_.empty() ? "?" : "&", name, "=", UrlEncode(value)});
    }
    return *this;
  }
  const std::string& text() const { return text_; }

 private:
  std::string text_;
};

Query& AddSelection(Query& query, const Selection& of) {
  return query.Add("labelSelector", of.label_selector).Add("fieldSelector", of.field_selector);
}

}  // namespace

std::string Resource::ApiVersion() const {
  return group.empty() ? std::string(version) : Join({group, "/", version});
}

const Resource* FindResource(std::string_view api_version, std::string_view kind) {
  for (const Resource& resource : kAll) {
    if (resource.kind == kind && resource.ApiVersion() == api_version) return &resource;
  }
  return nullptr;
}

const Resource* FindCollection(std::string_view api_version, std::string_view plural) {
  for (const Resource& resource : kAll) {
    if (resource.plural == plural && resource.ApiVersion() == api_version) return &resource;
  }
  return nullptr;
}

std::string UrlEncode(std::string_view text) {
  static constexpr char kHex[] = "0123456789ABCDEF";
  std::string encoded;
  encoded.reserve(text.size());
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (absl::ascii_isalnum(byte) || std::string_view("-._~").find(c) != std::string_view::npos) {
      encoded += c;
    } else {
      encoded += '%';
      encoded += kHex[byte >> 4];
      encoded += kHex[byte & 15];
    }
  }
  return encoded;
}

std::string CollectionPath(const Resource& resource, std::string_view ns) {
  const std::string root = resource.group.empty()
                               ? Join({"/api/", resource.version})
                               : Join({"/apis/", resource.group, "/", resource.version});
  if (!resource.namespaced || ns.empty()) return Join({root, "/", resource.plural});
  return Join({root, "/namespaces/", UrlEncode(ns), "/", resource.plural});
}

std::string ObjectPath(const Resource& resource, std::string_view ns, std::string_view name,
                       std::string_view subresource) {
  return Join({CollectionPath(resource, ns), "/", UrlEncode(name), subresource.empty() ? "" : "/",
               subresource});
}

std::string ListPath(const Resource& resource, const Selection& of, int limit,
                     std::string_view continue_token, std::string_view resource_version) {
  Query query;
  AddSelection(query, of);
  if (limit > 0) query.Add("limit", std::to_string(limit));
  query.Add("continue", continue_token);
  // The token already fixes the version; the server refuses both together.
  if (continue_token.empty()) query.Add("resourceVersion", resource_version);
  return CollectionPath(resource, of.ns) + query.text();
}

std::string WatchPath(const Resource& resource, const Selection& of,
                      std::string_view resource_version, absl::Duration lifetime) {
  Query query;
  query.Add("watch", "true").Add("allowWatchBookmarks", "true");
  AddSelection(query, of);
  query.Add("resourceVersion", resource_version);
  query.Add("timeoutSeconds", std::to_string(absl::ToInt64Seconds(lifetime)));
  return CollectionPath(resource, of.ns) + query.text();
}

Request Get(const Resource& resource, std::string_view ns, std::string_view name) {
  Request request;
  request.path = ObjectPath(resource, ns, name);
  return request;
}

Request Create(const Resource& resource, std::string_view ns, std::string body) {
  return {.method = "POST",
          .path = Join({CollectionPath(resource, ns), "?fieldManager=", kOurManager}),
          .body = std::move(body)};
}

Request Replace(const Resource& resource, std::string_view ns, std::string_view name,
                std::string body, std::string_view subresource) {
  return {
      .method = "PUT",
      .path = Join({ObjectPath(resource, ns, name, subresource), "?fieldManager=", kOurManager}),
      .body = std::move(body)};
}

Request MergePatch(const Resource& resource, std::string_view ns, std::string_view name,
                   std::string body, std::string_view subresource) {
  return {
      .method = "PATCH",
      .path = Join({ObjectPath(resource, ns, name, subresource), "?fieldManager=", kOurManager}),
      .body = std::move(body),
      .content_type = kMergePatch};
}

Request Apply(const Resource& resource, std::string_view ns, std::string_view name,
              std::string body, const ApplyOptions& options) {
  Query query;
  query.Add("fieldManager", options.field_manager).Add("force", options.force ? "true" : "");
  query.Add("dryRun", options.dry_run ? "All" : "");
  query.Add("fieldValidation", options.strict ? "Strict" : "");
  return {.method = "PATCH",
          .path = ObjectPath(resource, ns, name, options.subresource) + query.text(),
          .body = std::move(body),
          .content_type = kApplyPatch};
}

Request Delete(const Resource& resource, std::string_view ns, std::string_view name,
               const DeleteOptions& options) {
  nlohmann::json body{{"apiVersion", "v1"}, {"kind", "DeleteOptions"}};
  if (!options.propagation.empty()) body["propagationPolicy"] = options.propagation;
  if (options.grace_seconds >= 0) body["gracePeriodSeconds"] = options.grace_seconds;
  if (!options.uid.empty()) body["preconditions"]["uid"] = options.uid;
  if (!options.resource_version.empty()) {
    body["preconditions"]["resourceVersion"] = options.resource_version;
  }
  return {.method = "DELETE", .path = ObjectPath(resource, ns, name), .body = body.dump()};
}

}  // namespace echelon::op
