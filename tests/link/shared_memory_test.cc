// Memory that both ends of a link see: who gets it, what goes through it, and that everything else
// still arrives.
#include "runtime/link/shared_memory.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "runtime/link/socket.h"
#include "runtime/link/tcp_link.h"

namespace echelon::link {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kBig = 300'000;

int Mapped() {  // how often memory of links is mapped here
  int count = 0;
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);)
    count += absl::StrContains(line, "memfd:echelon-link") ? 1 : 0;
  return count;
}

Tensor Filled(int64_t bytes, uint8_t seed) {
  Tensor tensor = Tensor::Empty(DType::kU8, {bytes});
  for (size_t i = 0; i < tensor.nbytes; ++i)
    tensor.data[i] = static_cast<std::byte>(seed + i * 7 + i / 251);
  return tensor;
}

bool SameBytes(const Tensor& a, const Tensor& b) {
  return a.nbytes == b.nbytes && std::memcmp(a.data, b.data, a.nbytes) == 0;
}

class Shared : public testing::Test {
 protected:
  void Connect(const LinkOptions& options = {}, const FrameLimits& limits = {}) {
    const Hello hello{.epoch = 1, .token = "secret"};
    listener_ = *TcpListener::Listen("127.0.0.1", 0, limits, options);
    sender_ = *Dial(absl::StrCat("127.0.0.1:", listener_->port()), hello, limits, absl::Seconds(20),
                    options);
    receiver_ = *listener_->Accept(hello, absl::Seconds(20));
  }

  // What came of it, bytes compared.
  Frame Carry(const Frame& frame) {
    std::thread sending([&] { EXPECT_TRUE(sender_->Send(frame).ok()); });
    absl::StatusOr<Frame> came = receiver_->Receive();
    sending.join();
    EXPECT_TRUE(came.ok()) << came.status();
    EXPECT_EQ(came->place, 0u) << "a place is the link's own";
    EXPECT_EQ(came->tensors.size(), frame.tensors.size());
    for (size_t i = 0; i < came->tensors.size(); ++i)
      EXPECT_TRUE(SameBytes(came->tensors[i].tensor, frame.tensors[i].tensor)) << "tensor " << i;
    return *std::move(came);
  }
  Frame CarryBig(uint8_t seed) { return Carry({.tensors = {{1, Filled(kBig, seed)}}}); }

  std::unique_ptr<TcpListener> listener_;
  std::unique_ptr<Link> sender_, receiver_;
};

TEST_F(Shared, TheSecondBigFrameLiesInMemoryOfBothEnds) {
  Connect();
  CarryBig(1);
  EXPECT_EQ(Mapped(), 1) << "the receiver has answered";
  const Frame second = CarryBig(2);
  EXPECT_EQ(Mapped(), 2);
  const std::byte* at = second.tensors[0].tensor.data;
  const Frame third = CarryBig(3);
  EXPECT_NE(third.tensors[0].tensor.data, at) << "its place is taken";
  EXPECT_EQ(sender_->bytes_sent(),
            receiver_->bytes_received() +
                Prologue(Frame{.kind = FrameKind::kHello, .rows = "secret"}).size());
}

TEST_F(Shared, AFreedPlaceIsUsedAgain) {
  Connect();
  CarryBig(1);
  const std::byte* at = CarryBig(2).tensors[0].tensor.data;
  for (uint8_t seed = 3; seed < 100; ++seed) EXPECT_EQ(CarryBig(seed).tensors[0].tensor.data, at);
}

TEST_F(Shared, SeveralTensorsOfAFrameKeepTheirPlaceUntilTheLastIsGone) {
  Connect();
  CarryBig(1);
  Frame frame{.tensors = {{1, Filled(kBig + 1, 4)}, {2, Filled(0, 0)}, {3, Filled(77'777, 5)}},
              .rows = "r"};
  Tensor last = Carry(frame).tensors[2].tensor;
  for (uint8_t seed = 0; seed < 20; ++seed) CarryBig(seed);
  EXPECT_TRUE(SameBytes(last, frame.tensors[2].tensor));
}

TEST_F(Shared, WhenEveryPlaceIsTakenFramesArriveAllTheSame) {
  Connect();
  std::vector<Frame> kept;
  for (uint8_t seed = 0; seed < 3 * SharedMemory::kSlots; ++seed) kept.push_back(CarryBig(seed));
  for (uint8_t seed = 0; seed < kept.size(); ++seed)
    EXPECT_TRUE(SameBytes(kept[seed].tensors[0].tensor, Filled(kBig, seed))) << int{seed};
}

TEST_F(Shared, SmallFramesAndThoseLargerThanAPlaceGoOverTcp) {
  const FrameLimits limits{.max_frame_bytes = 1 << 20};
  Connect({}, limits);
  CarryBig(1);
  CarryBig(2);
  Carry({.tensors = {{1, Filled(100, 3)}}});
  Carry({.tensors = {{1, Filled((1 << 20) - 200, 4)}}});
  Carry({.rows = "none"});
}

TEST_F(Shared, TensorsOutliveTheirLink) {
  Connect();
  CarryBig(1);
  Frame kept = CarryBig(2);
  sender_.reset();
  receiver_.reset();
  EXPECT_TRUE(SameBytes(kept.tensors[0].tensor, Filled(kBig, 2)));
  kept = {};
  EXPECT_EQ(Mapped(), 0);
}

TEST_F(Shared, NothingIsSharedWhereThatIsNotWanted) {
  Connect({.share_memory = false});
  CarryBig(1);
  CarryBig(2);
  EXPECT_EQ(Mapped(), 0);
}

TEST_F(Shared, AnOfferThatLeadsNowhereIsPassedOver) {
  Connect();
  for (const std::string& name : {std::string(), std::string(300, 'x'),
                                  absl::StrCat("echelon-link-", std::string(32, '0'))}) {
    EXPECT_TRUE(sender_->Send(Frame{.kind = FrameKind::kOffer, .rows = name}).ok());
  }
  CarryBig(1);
}

TEST_F(Shared, APlaceThatWasNeverSharedIsAMalformedFrame) {
  for (const uint32_t place : {1u, 17u, 0xffffffffu}) {
    Connect();
    const Hello hello{.epoch = 2, .token = "stranger"};
    const auto fd = ConnectTo({"127.0.0.1", listener_->port()}, absl::Now() + absl::Seconds(20));
    ASSERT_TRUE(fd.ok()) << fd.status();
    const std::string says =
        Prologue(Frame{.kind = FrameKind::kHello, .epoch = 2, .rows = "stranger"}) +
        Prologue(Frame{.place = place});
    ASSERT_EQ(write(fd->get(), says.data(), says.size()), static_cast<ssize_t>(says.size()));
    auto link = listener_->Accept(hello, absl::Seconds(20));
    ASSERT_TRUE(link.ok()) << link.status();
    EXPECT_THAT((*link)->Receive().status().ToString(), HasSubstr("is no shared memory for it"));
  }
}

TEST(SharedMemoryOffer, GivesWhatItsAnswerMade) {
  auto offer = SharedMemoryOffer::Make();
  ASSERT_TRUE(offer.has_value());
  EXPECT_EQ(offer->Poll(), nullptr) << "nobody has answered";
  const auto theirs = AnswerOffer(offer->name(), 100'000);
  ASSERT_NE(theirs, nullptr);
  const auto ours = offer->Poll();
  ASSERT_NE(ours, nullptr);
  EXPECT_EQ(ours->Take(200'000), std::nullopt);
  for (uint32_t slot = 0; slot < SharedMemory::kSlots; ++slot) {
    EXPECT_EQ(ours->Take(100'000), slot);
    std::memset(ours->At(slot), static_cast<int>(slot) + 1, 100'000);
  }
  EXPECT_EQ(ours->Take(1), std::nullopt);
  EXPECT_EQ(theirs->At(3)[99'999], std::byte{4});
  theirs->GiveBack(5);
  EXPECT_EQ(ours->Take(1), 5u);
  EXPECT_FALSE(theirs->Has(SharedMemory::kSlots, 1));
}

TEST(SharedMemory, OnlySealedMemoryOfItsShapeIsAdopted) {
  const auto with_size = [](off_t size, int seals) {
    Fd fd(memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    EXPECT_EQ(ftruncate(fd.get(), size), 0);
    EXPECT_EQ(fcntl(fd.get(), F_ADD_SEALS, seals), 0);
    return fd;
  };
  const off_t good = 4096 + 16 * 4096;
  EXPECT_NE(SharedMemory::Adopt(with_size(good, F_SEAL_SHRINK)), nullptr);
  EXPECT_EQ(SharedMemory::Adopt(with_size(good, 0)), nullptr) << "it could be cut short under us";
  EXPECT_EQ(SharedMemory::Adopt(with_size(4096, F_SEAL_SHRINK)), nullptr);
  EXPECT_EQ(SharedMemory::Adopt(with_size(good + 1, F_SEAL_SHRINK)), nullptr);
  EXPECT_EQ(SharedMemory::Adopt(Fd(open("/dev/zero", O_RDWR | O_CLOEXEC))), nullptr);
}

}  // namespace
}  // namespace echelon::link
