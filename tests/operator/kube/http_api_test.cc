// What the adapter makes of a server's bytes, good and bad.
#include "operator/kube/http_api.h"

#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <future>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/operator/kube/raw_server.h"

namespace echelon::op {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

std::unique_ptr<Api> ApiOf(const std::string& server, FileOrText token = {},
                           HttpOptions options = {}) {
  auto api = MakeHttpApi({.server = server, .token = std::move(token)}, options);
  EXPECT_TRUE(api.ok()) << api.status();
  return *std::move(api);
}
std::string Url(const RawServer& server) {
  return absl::StrCat("http://127.0.0.1:", server.port());
}

// Waits at most 20 s, so that nothing hangs.
template <typename T>
T Await(std::future<T> future) {
  if (future.wait_for(std::chrono::seconds(20)) != std::future_status::ready) {
    ADD_FAILURE() << "no callback came";
    std::abort();
  }
  return future.get();
}

absl::StatusOr<Response> Ask(Api& api, const Request& request) {
  auto promise = std::make_shared<std::promise<absl::StatusOr<Response>>>();
  auto future = promise->get_future();
  api.Call(request, [promise](absl::StatusOr<Response> response) {
    promise->set_value(std::move(response));
  });
  return Await(std::move(future));
}

struct Watched {
  std::vector<std::string> lines;
  absl::Status end;
};
// A watch to its end; once it has seen `cancel_after` lines it is cancelled.
Watched WatchAll(Api& api, size_t cancel_after = SIZE_MAX) {
  auto watched = std::make_shared<Watched>();
  auto promise = std::make_shared<std::promise<void>>();
  auto enough = std::make_shared<std::promise<void>>();
  auto stream = api.Watch(
      "/watch?watch=true",
      [=](std::string_view line) {
        watched->lines.emplace_back(line);
        if (watched->lines.size() == cancel_after) enough->set_value();
      },
      [=](absl::Status why) {
        watched->end = std::move(why);
        promise->set_value();
      });
  if (cancel_after != SIZE_MAX) {
    Await(enough->get_future());
    stream->Cancel();
  }
  Await(promise->get_future());
  return *watched;
}

TEST(HttpApi, CarriesMethodPathTypeTokenAndBody) {
  RawServer server([](const std::string&) { return RawServer::Reply(201, R"({"a":1})"); });
  const auto api = ApiOf(Url(server) + "/prefix", {.text = "secret\n"});
  const auto response = Ask(*api, {.method = "PATCH",
                                   .path = "/api/v1/x?labelSelector=a%3Db&limit=1",
                                   .body = R"({"b":2})",
                                   .content_type = kApplyPatch});
  ASSERT_TRUE(response.ok()) << response.status();
  EXPECT_EQ(response->code, 201);
  EXPECT_EQ(response->body, R"({"a":1})");
  ASSERT_EQ(server.requests().size(), 1u);
  EXPECT_THAT(
      server.requests()[0],
      AllOf(HasSubstr("PATCH /prefix/api/v1/x?labelSelector=a%3Db&limit=1 HTTP/1.1"),
            HasSubstr("Authorization:Bearer secret\r\n"),
            HasSubstr("Content-Type:application/apply-patch+yaml"), HasSubstr(R"({"b":2})")));
}

TEST(HttpApi, ReadsRetryAfterInSecondsAndAsADate) {
  std::string header = "Retry-After: 7\r\n";
  RawServer server([&](const std::string&) { return RawServer::Reply(429, "{}", header); });
  const auto api = ApiOf(Url(server));
  EXPECT_EQ(Ask(*api, {.path = "/"})->retry_after, absl::Seconds(7));
  header = absl::FormatTime("Retry-After: %a, %d %b %Y %H:%M:%S GMT\r\n",
                            absl::Now() + absl::Minutes(2), absl::UTCTimeZone());
  const absl::Duration wait = Ask(*api, {.path = "/"})->retry_after;
  EXPECT_GT(wait, absl::Seconds(100));
  EXPECT_LE(wait, absl::Seconds(120));
  header = "Retry-After: soon\r\n";
  EXPECT_EQ(Ask(*api, {.path = "/"})->retry_after, absl::ZeroDuration());
}

TEST(HttpApi, ATokenFileIsReadAgainAtOnceWhenTheServerRefusesItsToken) {
  std::string pattern = testing::TempDir() + "/token-XXXXXX";
  const std::string file = std::string(mkdtemp(pattern.data())) + "/token";
  std::ofstream(file) << "old\n";
  RawServer server([&](const std::string& request) {
    const bool fresh = request.find("Bearer new\r\n") != std::string::npos;
    return RawServer::Reply(fresh ? 200 : 401, "{}");
  });
  const auto api = ApiOf(Url(server), {.file = file});
  EXPECT_EQ(Ask(*api, {.path = "/"})->code, 401);
  EXPECT_EQ(server.requests().size(), 1u) << "the same token is not tried twice";
  std::ofstream(file) << "new\n";
  EXPECT_EQ(Ask(*api, {.path = "/"})->code, 200);
  std::filesystem::remove(file);
  EXPECT_EQ(Ask(*api, {.path = "/"})->code, 200) << "the last token stays";
}

TEST(HttpApi, ATokenFileIsReadAgainOnceItsTokenIsOld) {
  std::string pattern = testing::TempDir() + "/token-XXXXXX";
  const std::string file = std::string(mkdtemp(pattern.data())) + "/token";
  std::ofstream(file) << "old";
  RawServer server([&](const std::string&) { return RawServer::Reply(200, "{}"); });
  const auto api = ApiOf(Url(server), {.file = file}, {.token_lifetime = absl::ZeroDuration()});
  Ask(*api, {.path = "/"}).IgnoreError();
  std::ofstream(file) << "new";
  Ask(*api, {.path = "/"}).IgnoreError();
  ASSERT_EQ(server.requests().size(), 2u);
  EXPECT_THAT(server.requests()[1], HasSubstr("Bearer new\r\n"));
}

TEST(HttpApi, WhatIsNoAnswerIsOneClearStatus) {
  int step = 0;
  const RawServer::Answer answers[] = {
      {""},
      {"garbage\r\n\r\n"},
      {"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort"},
      {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"}};
  RawServer server([&](const std::string&) { return answers[step]; });
  const auto api = ApiOf(Url(server));
  for (step = 0; step < 4; ++step) {
    const auto response = Ask(*api, {.path = "/x", .timeout = absl::Seconds(5)});
    EXPECT_TRUE(absl::IsUnavailable(response.status())) << step << ": " << response.status();
    EXPECT_THAT(std::string(response.status().message()), HasSubstr("GET /x"));
  }
  const auto nobody = Ask(*ApiOf("http://127.0.0.1:1"), {.path = "/"});
  EXPECT_TRUE(absl::IsUnavailable(nobody.status())) << nobody.status();
  const auto no_path = Ask(*api, {.path = "/a b\\c%%%"});
  EXPECT_FALSE(no_path.ok());
}

TEST(HttpApi, ASilentServerTimesOut) {
  RawServer server([](const std::string&) { return RawServer::Answer{.silent = true}; });
  const auto api = ApiOf(Url(server), {}, {.watch_idle = absl::Milliseconds(300)});
  const auto response = Ask(*api, {.path = "/", .timeout = absl::Milliseconds(300)});
  EXPECT_TRUE(absl::IsDeadlineExceeded(response.status())) << response.status();
  EXPECT_TRUE(absl::IsDeadlineExceeded(WatchAll(*api).end));
}

TEST(HttpApi, AWatchGivesLinesAndEndsCleanlyOrNot) {
  RawServer::Answer answer;
  RawServer server([&](const std::string&) { return answer; });
  const auto api =
      ApiOf(Url(server), {}, {.watch_idle = absl::Milliseconds(500), .longest_line = 100});

  answer = RawServer::Chunk("{\"a\":1}\n{\"b\":2}\n");
  answer.bytes += "0\r\n\r\n";
  Watched watched = WatchAll(*api);
  EXPECT_THAT(watched.lines, ElementsAre("{\"a\":1}", "{\"b\":2}"));
  EXPECT_TRUE(watched.end.ok()) << watched.end;

  answer = RawServer::Chunk("{\"a\":1}\n");
  answer.close = true;  // in the midst of it
  watched = WatchAll(*api);
  EXPECT_TRUE(absl::IsUnavailable(watched.end)) << watched.end;

  answer.close = false;
  EXPECT_TRUE(absl::IsDeadlineExceeded(WatchAll(*api).end));

  answer = RawServer::Chunk("{\"a\":1}\n" + std::string(200, 'x'));
  watched = WatchAll(*api);
  EXPECT_THAT(watched.lines, ElementsAre("{\"a\":1}"));
  EXPECT_TRUE(absl::IsResourceExhausted(watched.end)) << watched.end;

  answer = RawServer::Reply(410, R"({"reason":"Expired","message":"too old"})");
  watched = WatchAll(*api);
  EXPECT_THAT(watched.lines, testing::IsEmpty());
  EXPECT_TRUE(absl::IsOutOfRange(watched.end)) << watched.end;
  EXPECT_THAT(std::string(watched.end.message()), HasSubstr("410 Expired: too old"));

  answer = RawServer::Reply(429, "{}", "Retry-After: 9\r\n");
  EXPECT_EQ(RetryAfter(WatchAll(*api).end), absl::Seconds(9));
}

TEST(HttpApi, CancelledWatchesLeaveNothingBehind) {
  RawServer server([](const std::string&) { return RawServer::Chunk("{\"a\":1}\n"); });
  const auto api = ApiOf(Url(server));
  for (int i = 0; i < 50; ++i) {
    const Watched watched = WatchAll(*api, 1);
    ASSERT_TRUE(absl::IsCancelled(watched.end)) << watched.end;
  }
}

TEST(HttpApi, EndsCleanlyWithCallsAndWatchesUnderWay) {
  for (int round = 0; round < 20; ++round) {
    RawServer server([](const std::string& request) {
      return request.find("watch") == std::string::npos ? RawServer::Answer{.silent = true}
                                                        : RawServer::Chunk("{\"a\":1}\n");
    });
    auto api = ApiOf(Url(server));
    std::atomic<int> calls = 0, watches = 0;
    std::vector<std::unique_ptr<WatchStream>> streams;
    for (int i = 0; i < 10; ++i) {
      api->Call({.path = "/call"}, [&](const absl::StatusOr<Response>& response) {
        EXPECT_TRUE(absl::IsCancelled(response.status())) << response.status();
        ++calls;
      });
      streams.push_back(api->Watch(
          "/watch", [](std::string_view) {}, [&](const absl::Status&) { ++watches; }));
    }
    if (round % 2 == 0) streams.clear();
    api.reset();
    EXPECT_EQ(calls, 10);
    EXPECT_EQ(watches, 10);
  }
}

TEST(HttpApi, ReachesAServerByItsIpv6Address) {
  std::unique_ptr<RawServer> server;
  try {
    server = std::make_unique<RawServer>(
        [](const std::string&) { return RawServer::Reply(200, "{}"); }, "::1");
  } catch (const boost::system::system_error&) {
    GTEST_SKIP() << "this machine has no IPv6";
  }
  const auto response = Ask(*ApiOf(absl::StrCat("http://[::1]:", server->port())), {.path = "/"});
  EXPECT_TRUE(response.ok()) << response.status();
}

TEST(HttpApi, AServerThatIsNoAddressIsRefused) {
  const auto api = MakeHttpApi({.server = "http://[::1:x"});
  EXPECT_THAT(std::string(api.status().message()), HasSubstr("http://[::1:x"));
}

}  // namespace
}  // namespace echelon::op
