#include "runtime/serve/http_listener.h"

#include <gmock/gmock.h>

#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "runtime/sync/mutex.h"
#include "tests/serve/raw_client.h"

namespace echelon::serve {
namespace {

using testing::HasSubstr;

HttpListenerOptions Loopback() { return {.host = "127.0.0.1", .port = 0}; }

// Answers with the method, the path and the body.
void Mirror(HttpCall call, HttpDone done) {
  done({.body = absl::StrCat(call.method, " ", call.path, " ", call.body)});
}

std::unique_ptr<HttpListener> Serve(HttpListenerOptions options, HttpHandler handler = Mirror) {
  auto listener = HttpListener::Start(std::move(options), std::move(handler));
  EXPECT_TRUE(listener.ok()) << listener.status();
  return *std::move(listener);
}

TEST(HttpListener, AnswersSeveralRequestsOnOneConnection) {
  const auto listener = Serve(Loopback());
  RawClient client(listener->port());
  EXPECT_EQ(client.Get("/a?b=c").body, "GET /a ");
  EXPECT_EQ(client.Post("/b", "text").body, "POST /b text");
  client.Send("GET /1 HTTP/1.1\r\n\r\nGET /2 HTTP/1.1\r\n\r\nGET /3 HTTP/1.1\r\n\r\n");
  EXPECT_EQ(client.Read().body, "GET /1 ");
  EXPECT_EQ(client.Read().body, "GET /2 ");
  EXPECT_EQ(client.Read().body, "GET /3 ");
}

TEST(HttpListener, TakesChunkedBodies) {
  const auto listener = Serve(Loopback());
  RawClient client(listener->port());
  client.Send(
      "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n");
  EXPECT_EQ(client.Read().body, "POST / abcde");
}

TEST(HttpListener, TakesABodyOfMegabytes) {
  const auto listener = Serve(Loopback());
  RawClient client(listener->port());
  const std::string body(8 << 20, 'x');
  EXPECT_EQ(client.Post("/", body).body.size(), body.size() + 7);
}

TEST(HttpListener, SaysContinueToThoseWhoAsk) {
  const auto listener = Serve(Loopback());
  RawClient client(listener->port());
  client.Send("POST / HTTP/1.1\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n");
  EXPECT_EQ(client.Read().code, 100);
  client.Send("abc");
  EXPECT_EQ(client.Read().body, "POST / abc");
}

TEST(HttpListener, ClosesAfterHttp10AndOnRequest) {
  const auto listener = Serve(Loopback());
  RawClient old(listener->port()), polite(listener->port());
  old.Send("GET / HTTP/1.0\r\n\r\n");
  EXPECT_EQ(old.Read().code, 200);
  EXPECT_TRUE(old.WaitForClose());
  polite.Send("GET / HTTP/1.1\r\nConnection: close\r\n\r\n");
  EXPECT_EQ(polite.Read().code, 200);
  EXPECT_TRUE(polite.WaitForClose());
}

TEST(HttpListener, AnswersHeadWithoutABody) {
  const auto listener = Serve(Loopback());
  RawClient client(listener->port());
  client.Send("HEAD /a HTTP/1.1\r\n\r\n");
  EXPECT_THAT(client.Read(/*head=*/true).header, HasSubstr("content-length: 8"));
  EXPECT_EQ(client.Get("/b").body, "GET /b ");
}

TEST(HttpListener, RefusesAHugeContentLengthBeforeTheBody) {
  auto options = Loopback();
  options.max_body_bytes = 1000;
  const auto listener = Serve(options);
  for (const char* length : {"1001", "18446744073709551615"}) {
    RawClient client(listener->port());
    client.Send(absl::StrCat("POST / HTTP/1.1\r\nContent-Length: ", length, "\r\n\r\n"));
    const RawReply reply = client.Read();
    EXPECT_EQ(reply.code, 413);
    EXPECT_EQ(reply.body, "{\"error\":\"the request's body is larger than 1000 bytes\"}\n");
  }
}

TEST(HttpListener, RefusesAChunkedBodyThatGrowsTooLarge) {
  auto options = Loopback();
  options.max_body_bytes = 1000;
  const auto listener = Serve(options);
  RawClient client(listener->port());
  client.Send("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n7d0\r\n" +
              std::string(2000, 'x'));
  EXPECT_EQ(client.Read().code, 413);
}

TEST(HttpListener, RefusesALongHeader) {
  const auto listener = Serve(Loopback());
  RawClient client(listener->port());
  client.Send("GET / HTTP/1.1\r\nX: " + std::string(20000, 'x') + "\r\n\r\n");
  EXPECT_EQ(client.Read().code, 431);
}

TEST(HttpListener, AnswersGarbageWithOneLine) {
  const auto listener = Serve(Loopback());
  for (const std::string& garbage :
       {std::string("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 15),
        std::string("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), std::string("GET / HTTP/9.9\r\n\r\n"),
        std::string("\r\n\r\n\r\n\0\0\0\0", 10), std::string(30000, '\xff'),
        std::string("POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n"),
        std::string("POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"),
        std::string("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")}) {
    RawClient client(listener->port());
    client.Send(garbage);
    const RawReply reply = client.Read();
    EXPECT_TRUE(reply.code == 400 || reply.code == 431) << reply.code;
    EXPECT_THAT(reply.body, HasSubstr("{\"error\":"));
  }
  EXPECT_EQ(RawClient(listener->port()).Get("/").code, 200);
}

TEST(HttpListener, DropsClientsThatDawdle) {
  auto options = Loopback();
  options.header_time = options.idle_time = options.transfer_time = absl::Milliseconds(50);
  const auto listener = Serve(options);
  RawClient silent(listener->port()), in_header(listener->port()), in_body(listener->port());
  in_header.Send("GET / HTTP/1.1\r\nX:");
  in_body.Send("POST / HTTP/1.1\r\nContent-Length: 10\r\n\r\nabc");
  EXPECT_TRUE(silent.WaitForClose());
  EXPECT_TRUE(in_header.WaitForClose());
  EXPECT_TRUE(in_body.WaitForClose());
}

TEST(HttpListener, DropsAClientThatDripsAHeaderForEver) {
  auto options = Loopback();
  options.header_time = absl::Milliseconds(100);
  const auto listener = Serve(options);
  RawClient client(listener->port());
  std::thread drip([&client] {
    const absl::Time end = absl::Now() + absl::Seconds(10);
    client.Send("GET / HTTP/1.1\r\n");
    while (client.Send("X: y\r\n") && absl::Now() < end) {
    }
  });
  // Either the limit on its size or the one on its time ends it.
  EXPECT_TRUE(client.WaitForClose());
  drip.join();
}

TEST(HttpListener, DropsAClientThatDoesNotRead) {
  auto options = Loopback();
  options.transfer_time = absl::Milliseconds(50);
  const auto listener = Serve(options, [](HttpCall call, HttpDone done) {
    done({.body = std::string(call.path == "/large" ? 16 << 20 : 10, 'x')});
  });
  RawClient client(listener->port());
  client.Send("GET /large HTTP/1.1\r\n\r\n");
  RawClient other(listener->port());
  EXPECT_EQ(other.Get("/small").code, 200);
  listener->Stop(absl::InfiniteFuture());  // returns only once the stuck one has been dropped
}

TEST(HttpListener, RefusesConnectionsPastTheLimit) {
  auto options = Loopback();
  options.max_connections = 2;
  const auto listener = Serve(options);
  RawClient first(listener->port()), second(listener->port());
  EXPECT_EQ(first.Get("/").code, 200);
  EXPECT_EQ(second.Get("/").code, 200);
  RawClient third(listener->port());
  const RawReply reply = third.Read();
  EXPECT_EQ(reply.code, 503);
  EXPECT_THAT(reply.body, HasSubstr("more than 2 connections"));
  EXPECT_EQ(first.Get("/").code, 200);
}

TEST(HttpListener, BoundsTheBodiesOfAllRequestsTogether) {
  auto options = Loopback();
  options.max_body_bytes = options.max_total_body_bytes = 1000;
  const auto listener = Serve(options);
  RawClient large(listener->port());
  large.Send("POST / HTTP/1.1\r\nContent-Length: 900\r\nExpect: 100-continue\r\n\r\n");
  EXPECT_EQ(large.Read().code, 100);
  EXPECT_EQ(RawClient(listener->port()).Post("/", std::string(200, 'x')).code, 503);
  EXPECT_EQ(RawClient(listener->port()).Post("/", std::string(100, 'x')).code, 200);
  large.Send(std::string(900, 'x'));
  EXPECT_EQ(large.Read().code, 200);
  EXPECT_EQ(RawClient(listener->port()).Post("/", std::string(1000, 'x')).code, 200);
}

// Keeps what it is asked, to be answered by the test.
class Holder {
 public:
  HttpHandler handler() {
    return [this](HttpCall call, HttpDone done) {
      MutexLock lock(&mutex_);
      held_.emplace_back(std::move(call), std::move(done));
    };
  }
  std::pair<HttpCall, HttpDone> Take() {
    const auto any = [this]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return !held_.empty(); };
    MutexLock lock(&mutex_);
    if (!mutex_.AwaitUntil(any, SteadyNow() + absl::Seconds(10))) return {};
    auto first = std::move(held_.front());
    held_.erase(held_.begin());
    return first;
  }

 private:
  Mutex mutex_;
  std::vector<std::pair<HttpCall, HttpDone>> held_ ABSL_GUARDED_BY(mutex_);
};

bool WaitFor(const std::atomic<bool>& flag) {
  const absl::Time deadline = absl::Now() + absl::Seconds(10);
  while (!flag && absl::Now() < deadline) std::this_thread::yield();
  return flag;
}

TEST(HttpListener, TellsTheHandlerWhenItsClientHasGone) {
  Holder holder;
  const auto listener = Serve(Loopback(), holder.handler());
  RawClient client(listener->port());
  client.Send("GET / HTTP/1.1\r\n\r\n");
  auto [call, done] = holder.Take();
  EXPECT_FALSE(*call.cancelled);
  client.Close();
  EXPECT_TRUE(WaitFor(*call.cancelled));
  done({});
}

TEST(HttpListener, IgnoresASecondAnswer) {
  Holder holder;
  const auto listener = Serve(Loopback(), holder.handler());
  RawClient client(listener->port());
  client.Send("GET /1 HTTP/1.1\r\n\r\n");
  auto [call, done] = holder.Take();
  done({.body = "first"});
  EXPECT_EQ(client.Read().body, "first");
  client.Send("GET /2 HTTP/1.1\r\n\r\n");
  auto [next_call, next_done] = holder.Take();
  done({.body = "late"});
  next_done({.body = "second"});
  EXPECT_EQ(client.Read().body, "second");
}

TEST(HttpListener, EveryAnswerIsItsConnectionsLastOnceItDrains) {
  const auto listener = Serve(Loopback());
  RawClient client(listener->port());
  EXPECT_THAT(client.Get("/a").header, testing::Not(HasSubstr("connection: close")));
  listener->Drain();
  const RawReply last = client.Get("/b");
  EXPECT_EQ(last.body, "GET /b ");
  EXPECT_THAT(last.header, HasSubstr("connection: close"));
  EXPECT_TRUE(client.WaitForClose());
  EXPECT_EQ(RawClient(listener->port()).Get("/c").code, 200) << "it still answers";
}

TEST(HttpListener, AnswersWhatIsInFlightBeforeItStops) {
  Holder holder;
  const auto listener = Serve(Loopback(), holder.handler());
  RawClient idle(listener->port()), busy(listener->port());
  busy.Send("GET / HTTP/1.1\r\n\r\n");
  auto [call, done] = holder.Take();
  std::thread stop([&listener] { listener->Stop(absl::Now() + absl::Seconds(10)); });
  EXPECT_TRUE(idle.WaitForClose());
  done({.body = "still"});
  EXPECT_EQ(busy.Read().body, "still");
  stop.join();
  EXPECT_FALSE(RawClient(listener->port()).connected());
}

TEST(HttpListener, CutsWhatIsInFlightAtItsDeadline) {
  Holder holder;
  auto listener = Serve(Loopback(), holder.handler());
  RawClient busy(listener->port());
  busy.Send("GET / HTTP/1.1\r\n\r\n");
  auto [call, done] = holder.Take();
  listener->Stop(absl::Now());
  EXPECT_TRUE(*call.cancelled);
  EXPECT_TRUE(busy.WaitForClose());
  listener.reset();
  done({});  // the listener is gone: nothing happens
}

TEST(HttpListener, SaysThatThePortIsTaken) {
  const auto listener = Serve(Loopback());
  auto options = Loopback();
  options.port = listener->port();
  const auto second = HttpListener::Start(options, Mirror);
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(
      second.status().message(),
      absl::StrCat("port ", options.port, " is taken; choose another with --http-port (0: any)"));
}

}  // namespace
}  // namespace echelon::serve
