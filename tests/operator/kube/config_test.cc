#include "operator/kube/config.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace echelon::op {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

class ConfigTest : public testing::Test {
 protected:
  ConfigTest() {
    std::string pattern = testing::TempDir() + "/config-XXXXXX";
    folder_ = mkdtemp(pattern.data());
  }
  ~ConfigTest() override { fs::remove_all(folder_); }

  std::string Write(const std::string& name, const std::string& text) {
    const fs::path path = folder_ / name;
    fs::create_directories(path.parent_path());
    std::ofstream(path) << text;
    return path.string();
  }
  // A kubeconfig with these lines in its cluster and its user.
  std::string Kubeconfig(const std::string& cluster, const std::string& user) {
    return Write("config",
                 "clusters: [{name: c, cluster: {" + cluster + "}}]\n" +
                     "users: [{name: u, user: {" + user + "}}]\n" +
                     "contexts: [{name: x, context: {cluster: c, user: u, namespace: n}}]\n" +
                     "current-context: x\n");
  }
  std::string Refusal(const std::string& paths, const std::string& context = "") {
    const auto config = ReadKubeconfig(paths, context);
    EXPECT_FALSE(config.ok());
    const std::string text(config.status().message());
    EXPECT_THAT(text, Not(HasSubstr("\n")));
    return text;
  }

  fs::path folder_;
};

TEST_F(ConfigTest, AKubeconfigGivesServerFilesAndNamespace) {
  const auto config = ReadKubeconfig(Kubeconfig(
      "server: 'https://h:1/', certificate-authority: pki/ca.crt, tls-server-name: other",
      "client-certificate: /abs/c.crt, client-key-data: a2V5Cg=="));
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->server, "https://h:1");
  EXPECT_EQ(config->ns, "n");
  EXPECT_EQ(config->ca.file, (folder_ / "pki/ca.crt").string());
  EXPECT_EQ(config->certificate.file, "/abs/c.crt");
  EXPECT_EQ(config->key.text, "key\n");
  EXPECT_EQ(config->server_name, "other");
  EXPECT_FALSE(config->insecure);
}

TEST_F(ConfigTest, DataGoesBeforeAFileAndATokenFileBeforeAToken) {
  const auto config = ReadKubeconfig(Kubeconfig(
      "server: 'https://h:1', certificate-authority: ca.crt, certificate-authority-data: "
      "Y2E=, insecure-skip-tls-verify: true",
      "token: text, tokenFile: token"));
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->ca.text, "ca");
  EXPECT_EQ(config->ca.file, "");
  EXPECT_EQ(config->token.file, (folder_ / "token").string());
  EXPECT_TRUE(config->insecure);
}

TEST_F(ConfigTest, SeveralFilesAreMergedAndTheFirstWins) {
  const std::string one = Write("one/config",
                                "contexts: [{name: x, context: {cluster: c, user: u}}]\n"
                                "users: [{name: u, user: {token: first}}]\n");
  const std::string two =
      Write("two/config",
            "clusters: [{name: c, cluster: {server: 'https://h:2', "
            "certificate-authority: ca.crt}}]\n"
            "users: [{name: u, user: {token: second}}]\n"
            "contexts: [{name: y, context: {cluster: c, user: u, namespace: m}}]\n"
            "current-context: x\n");
  const std::string paths = one + ":/does/not/exist:" + two;
  const auto config = ReadKubeconfig(paths);
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->token.text, "first");
  EXPECT_EQ(config->server, "https://h:2");
  EXPECT_EQ(config->ca.file, (folder_ / "two/ca.crt").string());
  EXPECT_EQ(config->ns, "default");
  EXPECT_EQ(ReadKubeconfig(paths, "y")->ns, "m");
}

TEST_F(ConfigTest, WhatIsNotSupportedIsRefusedByName) {
  for (const char* user : {"exec: {command: gke-gcloud-auth-plugin}", "auth-provider: {name: gcp}",
                           "username: a, password: b"}) {
    const std::string name = std::string(user).substr(0, std::string(user).find(':'));
    EXPECT_THAT(Refusal(Kubeconfig("server: 'https://h:1'", user)),
                AllOf(HasSubstr("`" + name + "`"), HasSubstr("not supported"),
                      HasSubstr((folder_ / "config").string())));
  }
  EXPECT_THAT(Refusal(Kubeconfig("server: 'https://h:1', proxy-url: 'http://p'", "token: t")),
              HasSubstr("`proxy-url`"));
}

TEST_F(ConfigTest, WhatIsMissingIsNamed) {
  EXPECT_THAT(Refusal("/does/not/exist"), HasSubstr("/does/not/exist"));
  EXPECT_THAT(Refusal(Kubeconfig("server: 'https://h:1'", ""), "z"),
              AllOf(HasSubstr("no context is called z"), HasSubstr("there are: x")));
  EXPECT_THAT(Refusal(Kubeconfig("server: h", "")), HasSubstr("must begin with https://"));
  EXPECT_THAT(Refusal(Kubeconfig("server: 'https://h:1', certificate-authority-data: '!'", "")),
              HasSubstr("certificate-authority-data is no base64"));
  EXPECT_THAT(
      Refusal(Write("odd", "contexts: [{name: x, context: {cluster: q}}]\ncurrent-context: x")),
      HasSubstr("names cluster q; there are: none"));
  EXPECT_THAT(Refusal(Write("odd", "a: [")), HasSubstr("odd"));
  EXPECT_THAT(Refusal(Write("odd", "just text")), HasSubstr("this is no kubeconfig"));
  EXPECT_THAT(Refusal(Write("odd", "clusters: []")), HasSubstr("no current-context"));
}

TEST_F(ConfigTest, CheckNamesTheFileThatIsWrong) {
  ClusterConfig config{.server = "https://h:1"};
  EXPECT_THAT(std::string(Check(config).message()), HasSubstr("no certificate-authority"));
  config.ca.file = "/does/not/exist";
  EXPECT_THAT(std::string(Check(config).message()), HasSubstr("cannot read /does/not/exist"));
  config.ca.file = Write("ca.crt", "no certificate");
  EXPECT_THAT(std::string(Check(config).message()), HasSubstr("ca.crt holds no PEM certificate"));
  config.ca = {};
  config.insecure = true;
  config.key.text = "no key";
  EXPECT_THAT(std::string(Check(config).message()), HasSubstr("client-key-data holds no PEM key"));
  config.key = {};
  EXPECT_TRUE(Check(config).ok());
}

TEST_F(ConfigTest, APodFindsItsClusterByItsServiceAccount) {
  const std::string folder = "var/run/secrets/kubernetes.io/serviceaccount/";
  Write(folder + "token", "secret\n");
  Write(folder + "namespace", "here\n");
  setenv("KUBERNETES_SERVICE_HOST", "fd00::1", 1);
  setenv("KUBERNETES_SERVICE_PORT", "6443", 1);
  const auto config = InClusterConfig(folder_.string());
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->server, "https://[fd00::1]:6443");
  EXPECT_EQ(config->ns, "here");
  EXPECT_EQ(*config->token.Read(), "secret\n");
  EXPECT_THAT(std::string(InClusterConfig(folder_.string() + "/x").status().message()),
              HasSubstr("automountServiceAccountToken"));
  unsetenv("KUBERNETES_SERVICE_HOST");
  EXPECT_THAT(std::string(InClusterConfig().status().message()), HasSubstr("this is no pod"));
}

}  // namespace
}  // namespace echelon::op
