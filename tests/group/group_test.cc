#include "runtime/group/group.h"

#include <dirent.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <chrono>
#include <cstdlib>
#include <future>
#include <thread>

#include "absl/time/clock.h"
#include "runtime/link/socket.h"
#include "runtime/sync/steady_clock.h"
#include "tests/group/dns_server.h"
#include "tests/group/ring_member.h"
#include "tests/patience.h"

namespace echelon::group {
namespace {

using ::testing::HasSubstr;

const absl::Duration kSoon = absl::Seconds(20);

template <typename Condition>
bool Eventually(Condition condition) {
  const absl::Time deadline = absl::Now() + kSoon;
  while (!condition()) {
    if (absl::Now() > deadline) return false;
    std::this_thread::yield();
  }
  return true;
}

int EntriesOf(const char* directory) {
  int count = 0;
  DIR* dir = opendir(directory);
  while (readdir(dir) != nullptr) ++count;
  closedir(dir);
  return count;
}

Timing Patient() {
  Timing timing;
  timing.liveness *= kPatience;
  return timing;
}

struct TestRank {
  TestRank(int rank, int world, const std::string& incarnation = "")
      : identity{.rank = rank,
                 .world = world,
                 .graph_digest = "d1",
                 .incarnation = incarnation.empty() ? absl::StrCat("process ", rank) : incarnation},
        member(rank, world) {}
  void StartAsHead(int port = 0, const Timing& timing = Patient()) {
    auto head = StartHead(identity, "127.0.0.1", port, "{the plan}", member.link_port(), "",
                          &member, timing, nullptr);
    ASSERT_TRUE(head.ok()) << head.status();
    node = *std::move(head);
  }
  void StartAsWorker(int port, const Timing& timing = Patient()) {
    node = StartWorker(identity, absl::StrCat("127.0.0.1:", port), member.link_port(), "", &member,
                       timing, nullptr);
  }
  Identity identity;
  RingMember member;
  std::unique_ptr<Node> node;  // goes before its member
};

struct TestGroup {
  explicit TestGroup(int world, const Timing& timing = Patient()) {
    for (int rank = 0; rank < world; ++rank) {
      ranks.push_back(std::make_unique<TestRank>(rank, world));
      if (rank == 0) {
        ranks[0]->StartAsHead(0, timing);
      } else {
        ranks.back()->StartAsWorker(port(), timing);
      }
    }
  }
  int port() const { return ranks[0]->node->port(); }
  bool Forms(uint64_t after = 0) const {
    return Eventually([&] {
      const uint64_t epoch = ranks[0]->member.formed();
      if (epoch <= after) return false;
      for (const auto& rank : ranks) {
        if (rank->member.formed() != epoch) return false;
      }
      return true;
    });
  }
  bool PassesFrames() const {
    std::vector<std::thread> threads;
    std::atomic<int> good = 0;
    for (const auto& rank : ranks)
      threads.emplace_back([&] { good += rank->member.PassOn(7).ok() ? 1 : 0; });
    for (std::thread& thread : threads) thread.join();
    return good == static_cast<int>(ranks.size());
  }
  std::vector<std::unique_ptr<TestRank>> ranks;
};

TEST(Group, FormsAndItsLinksCarryFrames) {
  for (const int world : {1, 2, 3, 8}) {
    TestGroup group(world);
    ASSERT_TRUE(group.Forms()) << world;
    if (world > 1) {
      EXPECT_TRUE(group.PassesFrames());
    }
    const GroupStatus status = group.ranks[0]->node->status();
    EXPECT_TRUE(Eventually([&] { return group.ranks[0]->node->status().formed; }));
    EXPECT_EQ(status.ranks.size(), static_cast<size_t>(world));
    for (const auto& rank : group.ranks) EXPECT_EQ(rank->member.plan(), "{the plan}");
  }
}

TEST(Group, ShowsProgressPerRank) {
  TestGroup group(2);
  ASSERT_TRUE(group.Forms());
  for (const RankStatus& rank : group.ranks[0]->node->status().ranks) {
    EXPECT_EQ(rank.phase, Phase::kReady);
    EXPECT_EQ(rank.loaded_bytes, 100);
    EXPECT_EQ(rank.total_bytes, 100);
  }
}

TEST(Group, AWorkerMayComeBeforeItsHead) {
  int port = 0;
  {
    TestRank head(0, 2);
    head.StartAsHead();
    port = head.node->port();
  }
  TestRank worker(1, 2), head(0, 2);
  worker.StartAsWorker(port);
  ASSERT_TRUE(Eventually([&] {
    return worker.node->status().ranks[0].last_error.find("refused") != std::string::npos;
  }));
  head.StartAsHead(port);
  EXPECT_TRUE(Eventually([&] { return worker.member.formed() != 0 && head.member.formed() != 0; }));
}

TEST(Group, AWorkerThatLeavesEndsTheEpochAtOnceAndAnotherTakesItsPlace) {
  TestGroup group(3);
  ASSERT_TRUE(group.Forms());
  const uint64_t first = group.ranks[0]->member.formed();
  const absl::Time left = absl::Now();
  group.ranks[1] = nullptr;
  ASSERT_TRUE(Eventually([&] {
    return group.ranks[0]->member.formed() == 0 && group.ranks[2]->member.formed() == 0;
  }));
  EXPECT_LT(absl::Now() - left, absl::Seconds(kPatience));
  EXPECT_THAT(std::string(group.ranks[2]->member.why_closed().message()),
              HasSubstr("rank 1 is gone"));
  EXPECT_EQ(group.ranks[2]->member.loads, 1) << "survivors keep their weights";
  group.ranks[1] = std::make_unique<TestRank>(1, 3, "its successor");
  group.ranks[1]->StartAsWorker(group.port());
  ASSERT_TRUE(group.Forms(first));
  EXPECT_TRUE(group.PassesFrames());
}

TEST(Group, WorkersComeBackToARestartedHeadWithALaterEpoch) {
  TestGroup group(3);
  ASSERT_TRUE(group.Forms());
  const uint64_t first = group.ranks[0]->member.formed();
  const int port = group.port();
  group.ranks[0] = nullptr;
  ASSERT_TRUE(Eventually([&] {
    return group.ranks[1]->member.formed() == 0 && group.ranks[2]->member.formed() == 0;
  }));
  group.ranks[0] = std::make_unique<TestRank>(0, 3);
  const absl::Time back = absl::Now();
  group.ranks[0]->StartAsHead(port);
  ASSERT_TRUE(group.Forms(first));
  EXPECT_LT(absl::Now() - back, absl::Seconds(2 * kPatience));
}

TEST(Group, AWorkerThatLeavesStaysUntilTheHeadHasNothingToDo) {
  TestGroup group(3);
  ASSERT_TRUE(group.Forms());
  const uint64_t first = group.ranks[0]->member.formed();
  group.ranks[0]->member.KeepBusy(true);
  std::atomic<bool> left = false;
  std::thread leaving([&] {
    group.ranks[1]->node->Leave(kSoon);
    left = true;
  });
  ASSERT_TRUE(Eventually([&] { return group.ranks[0]->member.holds == 1; }));
  EXPECT_TRUE(group.PassesFrames()) << "the epoch is whole as long as something runs";
  EXPECT_FALSE(left);
  group.ranks[0]->member.KeepBusy(false);
  leaving.join();
  ASSERT_TRUE(Eventually([&] { return group.ranks[2]->member.formed() == 0; }));
  EXPECT_EQ(group.ranks[2]->member.why_closed(), absl::UnavailableError("rank 1 leaves"));
  group.ranks[1] = std::make_unique<TestRank>(1, 3, "its successor");
  group.ranks[1]->StartAsWorker(group.port());
  ASSERT_TRUE(group.Forms(first));
  EXPECT_TRUE(group.PassesFrames());
}

TEST(Group, AllAreReleasedByAHeadThatStops) {
  TestGroup group(3);
  ASSERT_TRUE(group.Forms());
  group.ranks[0]->node->Leave({});
  std::vector<std::thread> leaving;
  std::atomic<int> left = 0;
  for (const int rank : {1, 2}) {
    leaving.emplace_back([&, node = group.ranks[static_cast<size_t>(rank)]->node.get()] {
      node->Leave(kSoon);
      ++left;
    });
  }
  EXPECT_TRUE(group.PassesFrames());
  EXPECT_EQ(left, 0);
  group.ranks[0]->node->Stop();
  for (std::thread& thread : leaving) thread.join();
  EXPECT_EQ(group.ranks[0]->member.holds, 0);
}

TEST(Group, ARankThatLeavesWithoutAHeadWaitsForNobody) {
  TestGroup group(2);
  ASSERT_TRUE(group.Forms());
  group.ranks[0] = nullptr;
  const absl::Time told = absl::Now();
  group.ranks[1]->node->Leave(kSoon);
  group.ranks[1]->node->Stop();
  EXPECT_LT(absl::Now() - told, absl::Seconds(2 * kPatience));
}

TEST(Group, PatienceWithALeavingRankEnds) {
  TestGroup group(2);
  ASSERT_TRUE(group.Forms());
  group.ranks[0]->member.KeepBusy(true);
  group.ranks[1]->node->Leave(absl::Milliseconds(50));
  group.ranks[1]->node->Stop();
  EXPECT_TRUE(Eventually([&] { return group.ranks[0]->member.formed() == 0; }));
  group.ranks[0]->member.KeepBusy(false);
}

TEST(Group, AStopEndsALeave) {
  TestGroup group(2);
  ASSERT_TRUE(group.Forms());
  group.ranks[0]->member.KeepBusy(true);
  std::thread leaving([&] { group.ranks[1]->node->Leave(kSoon); });
  ASSERT_TRUE(Eventually([&] { return group.ranks[0]->member.holds == 1; }));
  group.ranks[1]->node->Stop();
  leaving.join();
  group.ranks[0]->member.KeepBusy(false);
}

TEST(Group, ANewerIncarnationOfAPodTakesOverAndTheOlderEndsForGood) {
  TestGroup group(2);
  group.ranks[1] = nullptr;
  TestRank old(1, 2, "uid a"), fresh(1, 2, "uid b");
  for (TestRank* rank : {&old, &fresh}) rank->identity.pod_name = "net-1";
  old.identity.started_ms = 1000;
  fresh.identity.started_ms = 2000;
  old.StartAsWorker(group.port());
  ASSERT_TRUE(Eventually([&] { return old.member.formed() != 0; }));
  fresh.StartAsWorker(group.port());
  const absl::Status refused =
      absl::FailedPreconditionError("rank 1 is refused: a newer incarnation of rank 1 has joined");
  EXPECT_EQ(old.node->Wait(), refused);
  EXPECT_TRUE(Eventually([&] { return fresh.member.formed() != 0; }));
  TestRank again(1, 2, "uid a");
  again.identity.pod_name = "net-1";
  again.identity.started_ms = 3000;
  again.StartAsWorker(group.port());
  EXPECT_EQ(again.node->Wait(), refused);
}

TEST(Group, AnOlderIncarnationWaitsForTheNewerToGo) {
  TestGroup group(2);
  group.ranks[1] = nullptr;
  auto fresh = std::make_unique<TestRank>(1, 2, "uid b");
  TestRank old(1, 2, "uid a");
  for (TestRank* rank : {&old, fresh.get()}) rank->identity.pod_name = "net-1";
  old.identity.started_ms = 1000;
  fresh->identity.started_ms = 2000;
  fresh->StartAsWorker(group.port());
  ASSERT_TRUE(Eventually([&] { return fresh->member.formed() != 0; }));
  old.StartAsWorker(group.port());
  EXPECT_TRUE(Eventually([&] {
    return old.node->status().ranks[0].last_error.find("began later") != std::string::npos;
  }));
  EXPECT_NE(fresh->member.formed(), 0u);
  fresh = nullptr;
  EXPECT_TRUE(Eventually([&] { return old.member.formed() != 0; }));
}

// As when the head's pod is replaced: its name is the same, its address is not.
TEST(Group, WorkersFindAHeadThatHasMovedByItsName) {
  DnsServer names("127.0.0.1");
  const auto start_head = [](TestRank* head, const std::string& host, int port) {
    auto node = StartHead(head->identity, host, port, "{the plan}", head->member.link_port(),
                          "127.0.0.1", &head->member, {}, nullptr);
    ASSERT_TRUE(node.ok()) << node.status();
    head->node = *std::move(node);
  };
  auto head = std::make_unique<TestRank>(0, 2);
  start_head(head.get(), "127.0.0.1", 0);
  const int port = head->node->port();
  TestRank worker(1, 2), moved(0, 2);
  worker.node = StartWorker(
      worker.identity, absl::StrCat("dns://127.0.0.1:", names.port(), "/head.ranks.svc:", port),
      worker.member.link_port(), "127.0.0.1", &worker.member, {}, nullptr);
  ASSERT_TRUE(Eventually([&] { return worker.member.formed() != 0; }));
  head = nullptr;
  ASSERT_TRUE(Eventually([&] { return worker.member.formed() == 0; }));
  start_head(&moved, "127.0.0.2", port);
  names.Point("127.0.0.2");
  const absl::Time back = absl::Now();
  ASSERT_TRUE(Eventually([&] { return worker.member.formed() != 0; }));
  EXPECT_LT(absl::Now() - back, absl::Seconds(2 * kPatience));
  EXPECT_EQ(worker.member.plan(), "{the plan}");
}

TEST(Group, AReportedFailureMakesANewEpoch) {
  TestGroup group(2);
  ASSERT_TRUE(group.Forms());
  for (const int reporter : {0, 1}) {
    const uint64_t epoch = group.ranks[0]->member.formed();
    group.ranks[static_cast<size_t>(reporter)]->node->ReportFailure(
        epoch, absl::UnavailableError("its link broke"));
    ASSERT_TRUE(group.Forms(epoch));
    EXPECT_TRUE(group.PassesFrames());
  }
}

TEST(Group, RefusedRanksEndWithTheReason) {
  TestGroup group(2);
  ASSERT_TRUE(group.Forms());
  TestRank second(1, 2, "another process"), wrong_world(1, 3), wrong_rank(2, 2),
      wrong_model(1, 2, "x");
  wrong_model.identity.graph_digest = "d2";
  const std::vector<std::pair<TestRank*, std::string>> cases = {
      {&second, "rank 1 is already taken by a process at 127.0.0.1"},
      {&wrong_world, "rank 1 says WORLD=3, the head has WORLD=2"},
      {&wrong_rank, "ranks of WORLD=2 that join are 1 to 1"},
      {&wrong_model, "its model file differs from the head's (digest d2, the head has d1)"},
  };
  for (const auto& [rank, why] : cases) {
    rank->StartAsWorker(group.port());
    const absl::Status status = rank->node->Wait();
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_THAT(std::string(status.message()), HasSubstr(why));
  }
  EXPECT_NE(group.ranks[0]->member.formed(), 0u) << "and the group never noticed";
}

TEST(Group, DeadlinesNameWhoIsMissingOrUnreachable) {
  const Timing timing{.join = absl::Seconds(kPatience)};
  const std::string why = absl::StrCat("rank 2 of 3 did not join within ", kPatience, " s");
  TestRank head(0, 3), there(1, 3), lonely(1, 2);
  head.StartAsHead(0, timing);
  there.StartAsWorker(head.node->port(), timing);
  EXPECT_EQ(head.node->Wait(), absl::DeadlineExceededError(why));
  EXPECT_EQ(there.node->Wait(), absl::FailedPreconditionError(why));
  int port = 0;
  {
    TestRank gone(0, 2);
    gone.StartAsHead();
    port = gone.node->port();
  }
  lonely.StartAsWorker(port, timing);
  const absl::Status status = lonely.node->Wait();
  EXPECT_THAT(std::string(status.message()),
              HasSubstr(absl::StrCat("cannot reach the head at 127.0.0.1:", port, " within ",
                                     kPatience, " s (last error: ")));
  EXPECT_THAT(std::string(status.message()), HasSubstr("Connection refused"));
}

TEST(Group, ATakenPortIsAnErrorThatNamesIt) {
  TestRank head(0, 2), second(0, 2);
  head.StartAsHead();
  const int port = head.node->port();
  EXPECT_EQ(StartHead(second.identity, "127.0.0.1", port, "", 1, "", &second.member, {}, nullptr)
                .status(),
            absl::AlreadyExistsError(
                absl::StrCat("port ", port, " is taken; choose another with --port or PORT")));
}

TEST(Group, ALoadThatFailsEndsItsProcessAndIsNamedAtTheHead) {
  TestRank head(0, 2), worker(1, 2);
  head.StartAsHead();
  worker.member.load_status = absl::DataLossError("net.pt2 is truncated");
  worker.StartAsWorker(head.node->port());
  EXPECT_EQ(worker.node->Wait(), absl::DataLossError("net.pt2 is truncated"));
  worker.node->Stop();
  EXPECT_TRUE(Eventually([&] {
    return head.node->status().ranks[1].last_error ==
           "rank 1 cannot load its stage: net.pt2 is truncated";
  }));
}

TEST(Group, LoadingHoldsUpNoHeartbeat) {
  const Timing timing{.heartbeat = absl::Milliseconds(20),
                      .liveness = kPatience * absl::Milliseconds(300)};
  TestRank head(0, 2), worker(1, 2);
  worker.member.HoldLoading(true);
  head.StartAsHead(0, timing);
  worker.StartAsWorker(head.node->port(), timing);
  ASSERT_TRUE(Eventually([&] { return worker.member.loads == 1; }));
  // Long past its liveness: the wait is this test's subject, and takes no core from the ranks.
  std::promise<void> never;
  never.get_future().wait_for(std::chrono::seconds(kPatience));
  EXPECT_EQ(head.node->status().ranks[1].joins, 1) << "it was never thought dead";
  worker.member.HoldLoading(false);
  EXPECT_TRUE(Eventually([&] { return worker.member.formed() != 0; }));
}

TEST(Group, GarbageOnThePortHarmsNoOne) {
  TestGroup group(2);
  ASSERT_TRUE(group.Forms());
  std::vector<link::Fd> strangers;
  for (const std::string& says :
       {std::string(5000, 'G'), std::string("GET / HTTP/1.1\r\n\r\n"), std::string(),
        std::string("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n") + std::string(500, '\xff')}) {
    for (int i = 0; i < 10; ++i) {
      auto fd = link::ConnectTo({"127.0.0.1", group.port()}, SteadyNow() + kSoon);
      ASSERT_TRUE(fd.ok()) << fd.status();
      send(fd->get(), says.data(), says.size(), MSG_NOSIGNAL);
      strangers.push_back(*std::move(fd));
    }
  }
  const uint64_t epoch = group.ranks[0]->member.formed();
  EXPECT_TRUE(group.PassesFrames());
  group.ranks[0]->node->ReportFailure(epoch, absl::UnavailableError("a new epoch is wanted"));
  EXPECT_TRUE(group.Forms(epoch));
}

// ECHELON_FORMATIONS=1000 for the long run.
TEST(Group, FormsOverAndOverWithoutFailureOrLeak) {
  const char* wanted = std::getenv("ECHELON_FORMATIONS");
  const int formations = wanted == nullptr ? 200 : std::atoi(wanted);
  int files = 0, threads = 0;
  const absl::Time began = absl::Now();
  for (int i = 0; i < formations; ++i) {
    {
      TestGroup group(2 + i % 3);
      ASSERT_TRUE(group.Forms()) << "formation " << i;
      ASSERT_TRUE(group.PassesFrames()) << "formation " << i;
    }
    if (i == 20) {  // gRPC's own threads have been made by then
      files = EntriesOf("/proc/self/fd");
      threads = EntriesOf("/proc/self/task");
    }
  }
  RecordProperty("mean_ms",
                 static_cast<int>(absl::ToInt64Milliseconds((absl::Now() - began) / formations)));
  // gRPC starts and ends some of its own as it is busy; a leak would be one a formation.
  const int slack = formations / 4;
  EXPECT_LE(EntriesOf("/proc/self/fd"), files + slack);
  EXPECT_LE(EntriesOf("/proc/self/task"), threads + slack);
}

}  // namespace
}  // namespace echelon::group
