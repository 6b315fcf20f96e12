// How to reach the cluster: from within a pod, or by a kubeconfig as kubectl reads it.
#ifndef ECHELON_OPERATOR_KUBE_CONFIG_H_
#define ECHELON_OPERATOR_KUBE_CONFIG_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace echelon::op {

// A file, read again whenever it is needed, or what would stand in it. Both empty: none.
struct FileOrText {
  std::string file, text;
  bool empty() const { return file.empty() && text.empty(); }
  absl::StatusOr<std::string> Read() const;
};

struct ClusterConfig {
  std::string server;  // https://10.0.0.1:443, https://[fd00::1]:6443, at times with a path
  std::string ns = "default";
  FileOrText ca;                // this authority alone is trusted; none: no server is
  FileOrText certificate, key;  // of the client
  FileOrText token;
  std::string server_name;  // what the server's certificate must be for; empty: the server's host
  bool insecure = false;    // any certificate will do
};

// The service account of the pod this runs in. root: tests put another one before
// /var/run/secrets/...
absl::StatusOr<ClusterConfig> InClusterConfig(const std::string& root = "");

// paths: as in $KUBECONFIG, parted by ':'; files that do not exist are passed over, as long as one
// does. The first file that says something wins. context: empty is current-context.
absl::StatusOr<ClusterConfig> ReadKubeconfig(const std::string& paths,
                                             const std::string& context = "");

// The file named by flag; else $KUBECONFIG; else, inside a pod, its service account; else
// ~/.kube/config.
absl::StatusOr<ClusterConfig> FindCluster(const std::string& flag, const std::string& context = "");

// Reads all files and parses certificates and keys, so that what is wrong is named before the first
// connection.
absl::Status Check(const ClusterConfig& config);

}  // namespace echelon::op

#endif  // ECHELON_OPERATOR_KUBE_CONFIG_H_
