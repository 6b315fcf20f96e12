// Reads kubeconfig files as kubectl does: several are merged, paths in one are relative to it.
#include <cstdlib>
#include <filesystem>
#include <map>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "operator/kube/config.h"
#include "yaml-cpp/yaml.h"

namespace echelon::op {
namespace {

namespace fs = std::filesystem;

struct Entry {
  YAML::Node node;
  std::string file;
};

struct Merged {
  std::string context;  // current-context
  std::map<std::string, Entry> clusters, users, contexts;
};

absl::Status Bad(const Entry& entry, const std::string& what) {
  return absl::InvalidArgumentError(absl::StrCat(entry.file, ": ", what));
}

std::string TextOf(const YAML::Node& node, const char* name) {
  if (!node.IsMap()) return "";
  const YAML::Node value = node[name];
  return value && value.IsScalar() ? value.Scalar() : "";
}

void Collect(const YAML::Node& root, const char* list, const char* inner, const std::string& file,
             std::map<std::string, Entry>& into) {
  const YAML::Node all = root[list];
  if (!all || !all.IsSequence()) return;
  for (const YAML::Node& one : all) {
    if (!one.IsMap() || !one[inner]) continue;
    into.try_emplace(TextOf(one, "name"), Entry{one[inner], file});  // the first file wins
  }
}

// yaml-cpp throws; this is its adapter.
absl::Status Merge(const std::string& file, Merged& merged) {
  try {
    const YAML::Node root = YAML::LoadFile(file);
    if (!root.IsMap()) return absl::InvalidArgumentError(file + ": this is no kubeconfig");
    if (merged.context.empty()) merged.context = TextOf(root, "current-context");
    Collect(root, "clusters", "cluster", file, merged.clusters);
    Collect(root, "users", "user", file, merged.users);
    Collect(root, "contexts", "context", file, merged.contexts);
  } catch (const YAML::Exception& error) {
    return absl::InvalidArgumentError(absl::StrCat(file, ": ", error.what()));
  }
  return absl::OkStatus();
}

// NAME (a file) or NAME-data (base64); the data wins, as with kubectl.
absl::Status ReadFileOrData(const Entry& entry, const std::string& name, FileOrText& into) {
  const std::string data_field = name + "-data";
  if (const std::string data = TextOf(entry.node, data_field.c_str()); !data.empty()) {
    std::string compact;
    for (const char c : data) {
      if (!absl::ascii_isspace(static_cast<unsigned char>(c))) compact += c;
    }
    if (!absl::Base64Unescape(compact, &into.text)) {
      return Bad(entry, absl::StrCat(data_field, " is no base64"));
    }
    return absl::OkStatus();
  }
  if (const std::string file = TextOf(entry.node, name.c_str()); !file.empty()) {
    into.file = (fs::path(entry.file).parent_path() / file).string();  // absolute ones stay so
  }
  return absl::OkStatus();
}

absl::Status ReadUser(const Entry& user, ClusterConfig& config) {
  for (const char* unsupported : {"exec", "auth-provider", "username", "password", "as"}) {
    if (!user.node.IsMap() || !user.node[unsupported]) continue;
    return absl::UnimplementedError(
        absl::StrCat(user.file, ": the user has `", unsupported,
                     "`, which is not supported; use a client certificate, a token or a tokenFile "
                     "(kubectl create token SERVICEACCOUNT)"));
  }
  if (auto bad = ReadFileOrData(user, "client-certificate", config.certificate); !bad.ok()) {
    return bad;
  }
  if (auto bad = ReadFileOrData(user, "client-key", config.key); !bad.ok()) return bad;
  if (const std::string file = TextOf(user.node, "tokenFile"); !file.empty()) {
    config.token.file = (fs::path(user.file).parent_path() / file).string();
  } else {
    config.token.text = TextOf(user.node, "token");
  }
  return absl::OkStatus();
}

absl::Status ReadCluster(const Entry& cluster, ClusterConfig& config) {
  if (!TextOf(cluster.node, "proxy-url").empty()) {
    return Bad(cluster, "the cluster has `proxy-url`, which is not supported; connect directly");
  }
  config.server = TextOf(cluster.node, "server");
  while (config.server.ends_with("/")) config.server.pop_back();
  if (!config.server.starts_with("https://") && !config.server.starts_with("http://")) {
    return Bad(cluster, absl::StrCat("the cluster's server is `", config.server,
                                     "`; it must begin with https://"));
  }
  config.server_name = TextOf(cluster.node, "tls-server-name");
  config.insecure = TextOf(cluster.node, "insecure-skip-tls-verify") == "true";
  return ReadFileOrData(cluster, "certificate-authority", config.ca);
}

std::string NamesIn(const std::map<std::string, Entry>& entries) {
  std::string names;
  for (const auto& [name, entry] : entries)
    absl::StrAppend(&names, names.empty() ? "" : ", ", name);
  return names.empty() ? "none" : names;
}

}  // namespace

absl::StatusOr<ClusterConfig> ReadKubeconfig(const std::string& paths, const std::string& context) {
  Merged merged;
  bool any = false;
  for (const std::string& file :
       std::vector<std::string>(absl::StrSplit(paths, ':', absl::SkipEmpty()))) {
    std::error_code error;
    if (!fs::exists(file, error)) continue;
    any = true;
    if (auto bad = Merge(file, merged); !bad.ok()) return bad;
  }
  if (!any) return absl::NotFoundError(absl::StrCat("there is no kubeconfig at ", paths));
  const std::string name = context.empty() ? merged.context : context;
  if (name.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(
        paths, ": no current-context is set; name one of: ", NamesIn(merged.contexts)));
  }
  const auto chosen = merged.contexts.find(name);
  if (chosen == merged.contexts.end()) {
    return absl::InvalidArgumentError(absl::StrCat(paths, ": no context is called ", name,
                                                   "; there are: ", NamesIn(merged.contexts)));
  }
  const std::string cluster = TextOf(chosen->second.node, "cluster");
  const std::string user = TextOf(chosen->second.node, "user");
  if (!merged.clusters.contains(cluster)) {
    return Bad(chosen->second, absl::StrCat("context ", name, " names cluster ", cluster,
                                            "; there are: ", NamesIn(merged.clusters)));
  }
  ClusterConfig config;
  if (const std::string ns = TextOf(chosen->second.node, "namespace"); !ns.empty()) config.ns = ns;
  if (auto bad = ReadCluster(merged.clusters.at(cluster), config); !bad.ok()) return bad;
  if (!user.empty()) {
    if (!merged.users.contains(user)) {
      return Bad(chosen->second, absl::StrCat("context ", name, " names user ", user,
                                              "; there are: ", NamesIn(merged.users)));
    }
    if (auto bad = ReadUser(merged.users.at(user), config); !bad.ok()) return bad;
  }
  return config;
}

}  // namespace echelon::op
