#include "operator/kube/config.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include <cstdlib>
#include <fstream>
#include <memory>
#include <sstream>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "runtime/host_port.h"

namespace echelon::op {
namespace {

constexpr char kServiceAccount[] = "/var/run/secrets/kubernetes.io/serviceaccount";
constexpr size_t kLargestFile = 1 << 20;

std::string Env(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

absl::StatusOr<std::string> ReadFile(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) return absl::NotFoundError(absl::StrCat("cannot read ", path));
  std::string text(kLargestFile + 1, '\0');
  in.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(in.gcount()));
  if (text.size() > kLargestFile) {
    return absl::InvalidArgumentError(absl::StrCat(path, " has over ", kLargestFile, " bytes"));
  }
  return text;
}

using Bio = std::unique_ptr<BIO, decltype(&BIO_free)>;

Bio BioOf(const std::string& text) {
  return {BIO_new_mem_buf(text.data(), static_cast<int>(text.size())), BIO_free};
}

std::string NameOf(const FileOrText& what, const char* field) {
  return what.file.empty() ? absl::StrCat("the kubeconfig's ", field) : what.file;
}

absl::Status CheckCertificate(const FileOrText& what, const char* field) {
  if (what.empty()) return absl::OkStatus();
  const auto text = what.Read();
  if (!text.ok()) return text.status();
  const Bio bio = BioOf(*text);
  const std::unique_ptr<X509, decltype(&X509_free)> read(
      PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr), X509_free);
  ERR_clear_error();
  if (read == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat(NameOf(what, field), " holds no PEM certificate"));
  }
  return absl::OkStatus();
}

absl::Status CheckKey(const FileOrText& what) {
  if (what.empty()) return absl::OkStatus();
  const auto text = what.Read();
  if (!text.ok()) return text.status();
  const Bio bio = BioOf(*text);
  // Never ask a terminal for a password.
  const auto no_password = [](char*, int, int, void*) { return 0; };
  const std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)> read(
      PEM_read_bio_PrivateKey(bio.get(), nullptr, no_password, nullptr), EVP_PKEY_free);
  ERR_clear_error();
  if (read == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat(NameOf(what, "client-key-data"), " holds no PEM key without a password"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::string> FileOrText::Read() const {
  if (file.empty()) return text;
  return ReadFile(file);
}

absl::StatusOr<ClusterConfig> InClusterConfig(const std::string& root) {
  const std::string host = Env("KUBERNETES_SERVICE_HOST"), port = Env("KUBERNETES_SERVICE_PORT");
  if (host.empty() || port.empty()) {
    return absl::FailedPreconditionError(
        "this is no pod: KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set; name a "
        "kubeconfig by --kubeconfig");
  }
  const std::string folder = root + kServiceAccount;
  ClusterConfig config;
  config.server = absl::StrCat("https://", JoinHostPort(host, port));
  config.ca.file = folder + "/ca.crt";
  config.token.file = folder + "/token";
  if (const auto ns = ReadFile(folder + "/namespace"); ns.ok()) {
    config.ns = std::string(absl::StripAsciiWhitespace(*ns));
  }
  if (const auto token = config.token.Read(); !token.ok()) {
    return absl::FailedPreconditionError(
        absl::StrCat(std::string(token.status().message()),
                     "; the pod needs automountServiceAccountToken: true"));
  }
  return config;
}

absl::StatusOr<ClusterConfig> FindCluster(const std::string& flag, const std::string& context) {
  if (!flag.empty()) return ReadKubeconfig(flag, context);
  if (const std::string paths = Env("KUBECONFIG"); !paths.empty()) {
    return ReadKubeconfig(paths, context);
  }
  if (!Env("KUBERNETES_SERVICE_HOST").empty()) return InClusterConfig();
  return ReadKubeconfig(Env("HOME") + "/.kube/config", context);
}

absl::Status Check(const ClusterConfig& config) {
  if (auto bad = CheckCertificate(config.ca, "certificate-authority-data"); !bad.ok()) return bad;
  if (auto bad = CheckCertificate(config.certificate, "client-certificate-data"); !bad.ok()) {
    return bad;
  }
  if (auto bad = CheckKey(config.key); !bad.ok()) return bad;
  if (config.certificate.empty() != config.key.empty()) {
    return absl::InvalidArgumentError(
        "the kubeconfig has only one of client certificate and client key; it needs both");
  }
  if (const auto token = config.token.Read(); !token.ok()) return token.status();
  if (config.server.starts_with("https://") && config.ca.empty() && !config.insecure) {
    return absl::InvalidArgumentError(
        absl::StrCat("no certificate-authority is given for ", config.server,
                     "; the operator trusts the cluster's alone, never the system's: name it in "
                     "the kubeconfig"));
  }
  return absl::OkStatus();
}

}  // namespace echelon::op
