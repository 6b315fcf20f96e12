#include "runtime/link/tcp_link.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstring>
#include <thread>

#include "absl/strings/str_cat.h"
#include "runtime/link/socket.h"
#include "runtime/sync/steady_clock.h"
#include "tests/patience.h"

namespace echelon::link {
namespace {

using ::testing::HasSubstr;

const absl::Duration kSoon = absl::Seconds(20);
const Hello kHello{.epoch = 5, .rank = 0, .token = "secret"};

std::unique_ptr<TcpListener> NewListener(const LinkOptions& options = {},
                                         const FrameLimits& limits = {}) {
  auto listener = TcpListener::Listen("127.0.0.1", 0, limits, options);
  EXPECT_TRUE(listener.ok()) << listener.status();
  return *std::move(listener);
}

std::string AddressOf(const TcpListener& listener) {
  return absl::StrCat("127.0.0.1:", listener.port());
}

std::unique_ptr<Link> MustDial(const TcpListener& listener, const Hello& hello = kHello) {
  auto link = Dial(AddressOf(listener), hello, {}, kSoon);
  EXPECT_TRUE(link.ok()) << link.status();
  return *std::move(link);
}

std::unique_ptr<Link> MustAccept(TcpListener* listener, const Hello& hello = kHello) {
  auto link = listener->Accept(hello, kSoon);
  EXPECT_TRUE(link.ok()) << link.status();
  return *std::move(link);
}

// A stranger's bare connection.
Fd Stranger(const TcpListener& listener, const std::string& says) {
  auto fd = ConnectTo({"127.0.0.1", listener.port()}, SteadyNow() + kSoon);
  EXPECT_TRUE(fd.ok()) << fd.status();
  EXPECT_EQ(send(fd->get(), says.data(), says.size(), MSG_NOSIGNAL),
            static_cast<ssize_t>(says.size()));
  return *std::move(fd);
}

std::string HelloBytes(const Hello& hello) {
  return Prologue(Frame{.kind = FrameKind::kHello,
                        .epoch = hello.epoch,
                        .step = static_cast<uint64_t>(hello.rank),
                        .rows = hello.token});
}

Tensor Filled(std::vector<int64_t> shape, uint8_t seed) {
  Tensor tensor = Tensor::Empty(DType::kU8, std::move(shape));
  for (size_t i = 0; i < tensor.nbytes; ++i)
    tensor.data[i] = static_cast<std::byte>(seed + i * 7 + i / 251);
  return tensor;
}

bool SameBytes(const Tensor& a, const Tensor& b) {
  return a.nbytes == b.nbytes && std::memcmp(a.data, b.data, a.nbytes) == 0;
}

struct Pair {
  explicit Pair(const LinkOptions& options = {}, const FrameLimits& limits = {})
      : listener(NewListener(options, limits)) {
    sender = MustDial(*listener);
    receiver = MustAccept(listener.get());
  }
  std::unique_ptr<TcpListener> listener;
  std::unique_ptr<Link> sender, receiver;
};

TEST(TcpLink, CarriesTensorsOfEverySizeInOrder) {
  for (const absl::Duration spin : {absl::ZeroDuration(), absl::Microseconds(50)}) {
    Pair pair({.spin = spin});
    const std::vector<int64_t> sizes = {
        0,     1,      100,     4096,    32767, 32768,  65536, 65536 + 4096 - 64,
        69633, 200000, 1 << 20, 9 << 20, 3,     500000, 7};
    std::thread sending([&] {
      for (size_t i = 0; i < sizes.size(); ++i) {
        Frame frame{.step = i, .rows = std::string(i * 13, 'r')};
        for (uint32_t t = 0; t < 3; ++t) {
          frame.tensors.push_back(
              {t, Filled({sizes[(i + t) % sizes.size()]}, static_cast<uint8_t>(i + t))});
        }
        ASSERT_TRUE(pair.sender->Send(frame).ok());
      }
    });
    for (size_t i = 0; i < sizes.size(); ++i) {
      auto frame = pair.receiver->Receive();
      ASSERT_TRUE(frame.ok()) << frame.status();
      EXPECT_EQ(frame->step, i);
      EXPECT_EQ(frame->rows, std::string(i * 13, 'r'));
      ASSERT_EQ(frame->tensors.size(), 3u);
      for (uint32_t t = 0; t < 3; ++t) {
        EXPECT_TRUE(SameBytes(frame->tensors[t].tensor,
                              Filled({sizes[(i + t) % sizes.size()]}, static_cast<uint8_t>(i + t))))
            << "step " << i << " tensor " << t;
      }
    }
    sending.join();
    EXPECT_EQ(pair.receiver->bytes_received() + HelloBytes(kHello).size(),
              pair.sender->bytes_sent());
  }
}

// Frames like their predecessor come straight into their tensor; those that look alike for a while
// must not be mixed up.
TEST(TcpLink, FramesThatResembleTheirPredecessorAreNotMistakenForIt) {
  Pair pair;
  const std::vector<std::vector<int64_t>> shapes = {
      {20000}, {20000},    {9000},  {20000}, {20000, 1}, {20000, 1}, {},
      {65536}, {65536},    {8192},  {65537}, {65536},    {10},       {10000},
      {10000}, {10, 1000}, {10001}, {10001}, {5000},     {10001}};
  std::vector<Frame> frames;
  for (size_t i = 0; i < 20 * shapes.size(); ++i) {
    Frame frame{.step = i, .rows = std::string(i % 7 == 0 ? 40 : 0, 'r')};
    const size_t tensors = i % 5 == 4 ? 0 : 1 + i % 11 / 10;
    for (uint32_t t = 0; t < tensors; ++t) {
      frame.tensors.push_back({t, Filled(shapes[(i * (1 + i / shapes.size()) + t) % shapes.size()],
                                         static_cast<uint8_t>(i))});
    }
    frames.push_back(std::move(frame));
  }
  std::thread sending([&] {
    for (const Frame& frame : frames) ASSERT_TRUE(pair.sender->Send(frame).ok());
  });
  for (const Frame& sent : frames) {
    auto frame = pair.receiver->Receive();
    ASSERT_TRUE(frame.ok()) << frame.status();
    ASSERT_EQ(Prologue(*frame), Prologue(sent));
    for (size_t t = 0; t < sent.tensors.size(); ++t) {
      ASSERT_TRUE(SameBytes(frame->tensors[t].tensor, sent.tensors[t].tensor))
          << "step " << sent.step;
    }
  }
  sending.join();
}

TEST(TcpLink, CarriesMoreTensorsThanOneWritevTakes) {
  Pair pair;
  Frame frame;
  for (uint32_t i = 0; i < 5000; ++i)
    frame.tensors.push_back({i, Filled({17}, static_cast<uint8_t>(i))});
  std::thread sending([&] { EXPECT_TRUE(pair.sender->Send(frame).ok()); });
  auto came = pair.receiver->Receive();
  sending.join();
  ASSERT_TRUE(came.ok()) << came.status();
  ASSERT_EQ(came->tensors.size(), 5000u);
  for (uint32_t i = 0; i < 5000; ++i)
    EXPECT_TRUE(SameBytes(came->tensors[i].tensor, frame.tensors[i].tensor));
}

TEST(TcpLink, CarriesRowsThatFitNoReadAhead) {
  Pair pair;
  const Frame frame{.rows = std::string(3 << 20, 'z')};
  std::thread sending([&] { EXPECT_TRUE(pair.sender->Send(frame).ok()); });
  auto came = pair.receiver->Receive();
  sending.join();
  ASSERT_TRUE(came.ok()) << came.status();
  EXPECT_EQ(came->rows, frame.rows);
}

TEST(TcpLink, TensorsOutliveTheirLink) {
  auto pair = std::make_unique<Pair>();
  const Tensor sent = Filled({60000}, 3);
  ASSERT_TRUE(pair->sender->Send(Frame{.tensors = {{1, sent}}}).ok());
  auto frame = pair->receiver->Receive();
  ASSERT_TRUE(frame.ok());
  pair.reset();
  EXPECT_TRUE(SameBytes(frame->tensors[0].tensor, sent));
}

TEST(TcpLink, CloseWakesAReceiverAndASender) {
  Pair pair;
  std::thread closing([&] { pair.receiver->Close(); });
  EXPECT_TRUE(absl::IsUnavailable(pair.receiver->Receive().status()));
  closing.join();
  absl::Status status;
  while (status.ok()) status = pair.sender->Send(Frame{.rows = std::string(1 << 20, 'x')});
  EXPECT_TRUE(absl::IsUnavailable(status)) << status;
  EXPECT_EQ(pair.sender->Send(Frame{}), status) << "a link stays broken";
}

TEST(TcpLink, CloseWakesASenderWhoseReceiverDoesNotRead) {
  Pair pair;
  std::thread closing([&] {
    while (pair.sender->bytes_sent() < 1 << 16) std::this_thread::yield();
    pair.sender->Close();
  });
  absl::Status status;
  const Frame frame{.tensors = {{1, Filled({4000}, 1)}}};
  while (status.ok()) status = pair.sender->Send(frame);
  closing.join();
  EXPECT_THAT(std::string(status.message()), HasSubstr("is closed"));
}

TEST(TcpLink, AnEndedPeerIsUnavailableAndHalfAFrameSaysSo) {
  auto listener = NewListener();
  {
    const Fd peer = Stranger(*listener, HelloBytes(kHello));
    auto link = MustAccept(listener.get());
    shutdown(peer.get(), SHUT_RDWR);
    EXPECT_THAT(link->Receive().status().ToString(),
                HasSubstr("UNAVAILABLE: lost the link with rank 0 at 127.0.0.1"));
  }
  const std::string half = Prologue(Frame{.rows = "0123456789"}).substr(0, 70);
  const Fd peer = Stranger(*listener, HelloBytes(kHello) + half);
  auto link = MustAccept(listener.get());
  shutdown(peer.get(), SHUT_RDWR);
  EXPECT_THAT(link->Receive().status().ToString(), HasSubstr("in the middle of a frame"));
}

TEST(TcpLink, AStalledFrameEndsAtItsDeadlineButAnIdleLinkDoesNot) {
  const LinkOptions options{.frame_deadline = absl::Milliseconds(40)};
  auto listener = NewListener(options);
  const std::string frame = Prologue(Frame{.rows = "0123456789"});
  for (const size_t cut : {size_t{5}, size_t{70}}) {
    const Fd peer = Stranger(*listener, HelloBytes(kHello) + frame.substr(0, cut));
    auto link = MustAccept(listener.get());
    EXPECT_THAT(link->Receive().status().ToString(),
                HasSubstr("a frame was not whole within 40ms"));
  }
  const Fd peer = Stranger(*listener, HelloBytes(kHello));
  auto link = MustAccept(listener.get());
  std::thread later([&] {
    // Far past the frame deadline: the wait is this test's subject, so it is a bounded wait on
    // nothing else.
    absl::StatusOr<std::unique_ptr<Link>> none = listener->Accept(kHello, absl::Milliseconds(150));
    EXPECT_TRUE(absl::IsDeadlineExceeded(none.status()));
    EXPECT_EQ(send(peer.get(), frame.data(), frame.size(), 0), static_cast<ssize_t>(frame.size()));
  });
  EXPECT_TRUE(link->Receive().ok());
  later.join();
}

TEST(TcpLink, GarbageAndHugeClaimsAreRefusedBeforeMemoryIsTaken) {
  auto listener = NewListener({}, FrameLimits{.max_frame_bytes = 1 << 20});
  {
    const Fd peer = Stranger(*listener, HelloBytes(kHello) + std::string(100, 'G'));
    EXPECT_THAT(MustAccept(listener.get())->Receive().status().ToString(),
                HasSubstr("INVALID_ARGUMENT: rank 0 at 127.0.0.1"));
  }
  Tensor huge{.dtype = DType::kF32, .shape = {int64_t{1} << 38}, .nbytes = size_t{1} << 40};
  const Fd peer = Stranger(*listener, HelloBytes(kHello) + Prologue(Frame{.tensors = {{1, huge}}}));
  EXPECT_THAT(MustAccept(listener.get())->Receive().status().ToString(),
              HasSubstr("at most 1048576"));
}

TEST(TcpListener, DropsStrangersCountsThemAndLivesOn) {
  auto listener = NewListener();
  std::vector<Fd> strangers;
  strangers.push_back(Stranger(*listener, std::string(500, 'G')));
  strangers.push_back(Stranger(
      *listener, "GET / HTTP/1.1\r\nHost: here\r\nUser-Agent: a browser that went astray\r\n\r\n"));
  strangers.push_back(Stranger(*listener, HelloBytes({5, 0, "wrong"})));
  strangers.push_back(Stranger(*listener, HelloBytes({5, 1, "secret"})));  // wrong rank
  strangers.push_back(Stranger(*listener, HelloBytes({4, 0, "secret"})));  // an epoch that is over
  strangers.push_back(Stranger(*listener, HelloBytes({5, 0, std::string(400, 's')})));
  strangers.push_back(Stranger(*listener, Prologue(Frame{.epoch = 5})));  // no hello
  const Fd silent = Stranger(*listener, "");
  auto sender = MustDial(*listener);
  auto receiver = MustAccept(listener.get());
  EXPECT_EQ(listener->refused_connections(), strangers.size());
  ASSERT_TRUE(sender->Send(Frame{.step = 9}).ok());
  EXPECT_EQ(receiver->Receive()->step, 9u);
}

TEST(TcpListener, DropsWhoSaysNothing) {
  auto listener = NewListener({.hello_timeout = absl::Milliseconds(20)});
  const Fd silent = Stranger(*listener, ""),
           slow = Stranger(*listener, HelloBytes(kHello).substr(0, 30));
  const absl::Duration longer = kPatience * absl::Milliseconds(60);
  EXPECT_TRUE(absl::IsDeadlineExceeded(listener->Accept(kHello, longer).status()));
  EXPECT_EQ(listener->refused_connections(), 2u);
}

TEST(TcpListener, AFloodOfSilentConnectionsDoesNotKeepTheNeighbourOut) {
  auto listener = NewListener();
  std::vector<Fd> flood;
  for (int i = 0; i < 100; ++i) flood.push_back(Stranger(*listener, ""));
  auto sender = MustDial(*listener);
  MustAccept(listener.get());
  EXPECT_GE(listener->refused_connections(), 37u);
}

TEST(TcpListener, KeepsAHelloOfTheNextEpochForItsAccept) {
  auto listener = NewListener();
  const Hello next{.epoch = 6, .rank = 0, .token = "newer"};
  auto early = MustDial(*listener, next);
  auto sender = MustDial(*listener);
  MustAccept(listener.get());
  MustAccept(listener.get(), next);
  EXPECT_EQ(listener->refused_connections(), 0u);
}

TEST(TcpListener, AcceptEndsWhenCancelledBeforeOrWithin) {
  auto listener = NewListener();
  std::thread cancelling([&] { listener->CancelThrough(5); });
  EXPECT_TRUE(absl::IsCancelled(listener->Accept(kHello, kSoon).status()));
  cancelling.join();
  EXPECT_TRUE(absl::IsCancelled(listener->Accept(kHello, kSoon).status())) << "already over";
  const Hello next{.epoch = 6, .rank = 0, .token = "newer"};
  auto sender = MustDial(*listener, next);
  MustAccept(listener.get(), next);
  listener->Close();
  EXPECT_TRUE(absl::IsCancelled(listener->Accept({.epoch = 7}, kSoon).status()));
}

TEST(TcpListener, ErrorsNamePortRankAndEpoch) {
  auto listener = NewListener();
  EXPECT_EQ(
      TcpListener::Listen("127.0.0.1", listener->port(), {}).status(),
      absl::AlreadyExistsError(absl::StrCat(
          "port ", listener->port(), " of 127.0.0.1 is taken: choose another, or 0 for any")));
  EXPECT_EQ(listener->Accept({.epoch = 9, .rank = 3}, absl::Milliseconds(5)).status(),
            absl::DeadlineExceededError(absl::StrCat("rank 3 did not connect to port ",
                                                     listener->port(), " for epoch 9 within 5ms")));
}

TEST(Dial, SaysWhichAddressItCannotReach) {
  int port = 0;
  { port = NewListener()->port(); }
  const std::string address = absl::StrCat("127.0.0.1:", port);
  EXPECT_EQ(Dial(address, kHello, {}, absl::Milliseconds(30)).status(),
            absl::UnavailableError(
                absl::StrCat("cannot reach ", address, " within 30ms: Connection refused")));
  EXPECT_TRUE(absl::IsInvalidArgument(Dial("nowhere", kHello, {}, kSoon).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(Dial("host:99999", kHello, {}, kSoon).status()));
}

TEST(Dial, WaitsForAListenerThatComesLateAndCanBeCancelled) {
  int port = 0;
  { port = NewListener()->port(); }
  const std::string address = absl::StrCat("127.0.0.1:", port);
  std::atomic<bool> cancelled = false;
  std::thread cancelling([&] { cancelled = true; });
  EXPECT_TRUE(
      absl::IsCancelled(Dial(address, kHello, {}, kSoon, {.cancelled = &cancelled}).status()));
  cancelling.join();
  absl::StatusOr<std::unique_ptr<Link>> link;
  std::thread dialling([&] { link = Dial(address, kHello, {}, kSoon); });
  auto listener = TcpListener::Listen("127.0.0.1", port, {});
  ASSERT_TRUE(listener.ok()) << listener.status();
  MustAccept(listener->get());
  dialling.join();
  EXPECT_TRUE(link.ok()) << link.status();
}

}  // namespace
}  // namespace echelon::link
