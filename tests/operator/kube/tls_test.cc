// Whom the adapter trusts, shown on a real API server.
#include <cstdlib>
#include <future>
#include <memory>
#include <utility>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "operator/kube/http_api.h"

namespace echelon::op {
namespace {

using testing::HasSubstr;

class Tls : public testing::Test {
 protected:
  void SetUp() override {
    const char* path = std::getenv("ECHELON_KUBE_TEST_CONFIG");
    if (path == nullptr) GTEST_SKIP() << "no API server: ECHELON_KUBE_TEST_CONFIG is not set";
    const auto config = ReadKubeconfig(path);
    ASSERT_TRUE(config.ok()) << config.status();
    config_ = *config;
  }
  absl::StatusOr<Response> Ask() {
    auto api = MakeHttpApi(config_);
    if (!api.ok()) return api.status();
    auto promise = std::make_shared<std::promise<absl::StatusOr<Response>>>();
    auto future = promise->get_future();
    (*api)->Call(
        {.path = "/api/v1/namespaces?limit=1"},
        [promise](absl::StatusOr<Response> response) { promise->set_value(std::move(response)); });
    return future.get();
  }

  ClusterConfig config_;
};

TEST_F(Tls, TrustsTheClustersAuthorityAlone) {
  ASSERT_TRUE(Ask().ok());
  EXPECT_EQ(Ask()->code, 200);
  config_.ca = config_.certificate;  // some other certificate
  const auto refused = Ask();
  EXPECT_TRUE(absl::IsUnavailable(refused.status())) << refused.status();
  EXPECT_THAT(std::string(refused.status().message()), HasSubstr("unknown CA"));
  config_.insecure = true;
  EXPECT_TRUE(Ask().ok());
}

TEST_F(Tls, ChecksTheServersNameAgainstTlsServerName) {
  config_.server_name = "kubernetes.default.svc";
  EXPECT_TRUE(Ask().ok()) << Ask().status();
  config_.server_name = "somebody.else";
  const auto refused = Ask();
  EXPECT_TRUE(absl::IsUnavailable(refused.status())) << refused.status();
  EXPECT_THAT(std::string(refused.status().message()),
              HasSubstr("check the certificate authority"));
}

TEST_F(Tls, AClientWithoutACertificateIsAnonymous) {
  config_.certificate = config_.key = {};
  const auto response = Ask();
  ASSERT_TRUE(response.ok()) << response.status();
  EXPECT_TRUE(response->code == 401 || response->code == 403) << response->code;
}

TEST_F(Tls, ATokenThatIsNoneIsRefused) {
  config_.certificate = config_.key = {};
  config_.token.text = "nonsense";
  EXPECT_EQ(Ask()->code, 401);
}

}  // namespace
}  // namespace echelon::op
