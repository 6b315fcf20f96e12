// The client of heads against a server of ours, on loopback.
#include "operator/controller/head_client.h"

#include <future>
#include <memory>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "operator/controller/pages.h"

namespace echelon::op {
namespace {

using testing::HasSubstr;

std::unique_ptr<Pages> Serve(Page page) {
  auto pages = Pages::Serve(0, "--port", {{"/status", [page] { return page; }}});
  EXPECT_TRUE(pages.ok()) << pages.status();
  return *std::move(pages);
}

absl::StatusOr<std::string> Ask(HeadClientOptions options, const std::string& address) {
  const auto client = MakeHeadClient(options);
  auto answer = std::make_shared<std::promise<absl::StatusOr<std::string>>>();
  client->Get(address, [answer](auto body) { answer->set_value(std::move(body)); });
  auto future = answer->get_future();
  if (future.wait_for(std::chrono::seconds(20)) != std::future_status::ready) {
    return absl::InternalError("no call of done");
  }
  return future.get();
}

TEST(HeadClient, ReturnsTheBodyOfAStatus) {
  const auto server = Serve({200, "{\"epoch\": 3}"});
  const auto body = Ask({.port = server->port()}, "127.0.0.1");
  ASSERT_TRUE(body.ok()) << body.status();
  EXPECT_EQ(*body, "{\"epoch\": 3}");
}

TEST(HeadClient, ARefusalIsNamed) {
  const auto server = Serve({503, "not yet"});
  const auto body = Ask({.port = server->port()}, "127.0.0.1");
  EXPECT_THAT(std::string(body.status().message()), HasSubstr("HTTP 503"));
}

TEST(HeadClient, ALongAnswerIsCutOff) {
  const auto server = Serve({200, std::string(5000, 'x')});
  const auto body = Ask({.port = server->port(), .max_body_bytes = 1000}, "127.0.0.1");
  EXPECT_TRUE(absl::IsResourceExhausted(body.status())) << body.status();
}

TEST(HeadClient, NobodyThereIsUnavailable) {
  int port = 0;
  { port = Serve({200, ""})->port(); }
  EXPECT_TRUE(absl::IsUnavailable(Ask({.port = port}, "127.0.0.1").status()));
}

TEST(HeadClient, SilenceEndsInTime) {
  std::promise<void> release;
  auto held = release.get_future().share();
  auto pages = Pages::Serve(0, "--port", {{"/status", [held] {
                                             held.wait();
                                             return Page{200, "late"};
                                           }}});
  ASSERT_TRUE(pages.ok());
  const auto body =
      Ask({.port = (*pages)->port(), .timeout = absl::Milliseconds(100)}, "127.0.0.1");
  release.set_value();
  EXPECT_TRUE(absl::IsDeadlineExceeded(body.status())) << body.status();
}

TEST(HeadClient, ANameIsNoAddress) {
  EXPECT_TRUE(absl::IsInvalidArgument(Ask({}, "example.invalid").status()));
}

TEST(Pages, AnswerUnknownPathsAndOtherMethodsInOneLine) {
  const auto server = Serve({200, "ok"});
  const auto body = Ask({.port = server->port(), .path = "/other"}, "127.0.0.1");
  EXPECT_THAT(std::string(body.status().message()), HasSubstr("HTTP 404"));
  const auto taken = Pages::Serve(server->port(), "--port", {});
  EXPECT_THAT(std::string(taken.status().message()), HasSubstr("--port"));
}

}  // namespace
}  // namespace echelon::op
