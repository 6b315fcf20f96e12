#include "operator/render/deployment_file.h"

#include <cerrno>
#include <cstring>
#include <fstream>
#include <iostream>
#include <sstream>

#include "absl/strings/str_cat.h"
#include "operator/api/yaml.h"

namespace echelon::op {
namespace {

using nlohmann::json;

absl::Status Bad(const std::string& file, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat(file, ": ", what));
}

// The objects of a file: its documents, and the items of those that are lists.
std::vector<json> Objects(std::vector<json> documents) {
  std::vector<json> objects;
  for (json& document : documents) {
    const bool is_list =
        document.is_object() && document.contains("items") && document["items"].is_array();
    if (!is_list) {
      objects.push_back(std::move(document));
      continue;
    }
    for (json& item : document["items"]) objects.push_back(std::move(item));
  }
  return objects;
}

}  // namespace

absl::StatusOr<std::vector<Deployment>> DeploymentsIn(const std::string& text,
                                                      const std::string& file) {
  absl::StatusOr<std::vector<json>> documents = ParseYaml(text);
  if (!documents.ok()) return Bad(file, documents.status().message());
  std::vector<Deployment> deployments;
  for (const json& object : Objects(*std::move(documents))) {
    if (!object.is_object() || !object.contains("kind"))
      return Bad(file, "holds something that is no object of Kubernetes: it has no kind");
    if (object["kind"] != kKind) continue;
    absl::StatusOr<Deployment> deployment = FromJson(object);
    if (!deployment.ok()) return Bad(file, deployment.status().message());
    if (const std::vector<std::string> unknown = UnknownFields(object); !unknown.empty())
      return Bad(file, absl::StrCat(deployment->name, ": there is no field ", unknown[0]));
    if (deployment->ns.empty()) deployment->ns = "default";
    deployments.push_back(*std::move(deployment));
  }
  if (deployments.empty()) return Bad(file, absl::StrCat("holds no object of kind ", kKind));
  return deployments;
}

absl::StatusOr<std::vector<Deployment>> ReadDeploymentFile(const std::string& file) {
  std::stringstream text;
  if (file == "-") {
    text << std::cin.rdbuf();
    return DeploymentsIn(text.str(), "standard input");
  }
  std::ifstream in(file);
  if (!in) return Bad(file, absl::StrCat("cannot be read: ", std::strerror(errno)));
  text << in.rdbuf();
  if (in.bad() || text.bad()) return Bad(file, "cannot be read: is it a file?");
  return DeploymentsIn(text.str(), file);
}

}  // namespace echelon::op
