// Ranks as processes that are killed and stopped: every epoch ends within a second and the next one
// forms.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "tests/patience.h"

namespace {

const absl::Duration kSoon = absl::Seconds(20);

class Process {
 public:
  Process(int rank, int world, int port) {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) std::abort();
    out_ = ends[0];
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
    std::vector<std::string> words = {RANK_PROGRAM, absl::StrCat(rank), absl::StrCat(world),
                                      absl::StrCat(port)};
    std::vector<char*> argv;
    argv.reserve(words.size() + 1);
    for (std::string& word : words) argv.push_back(word.data());
    argv.push_back(nullptr);
    if (posix_spawn(&pid_, RANK_PROGRAM, &actions, nullptr, argv.data(), environ) != 0)
      std::abort();
    posix_spawn_file_actions_destroy(&actions);
    close(ends[1]);
  }
  ~Process() {
    Kill();
    close(out_);
  }

  // The rest of the next line that begins so; "" when none comes in time or the process ends.
  std::string LineAfter(const std::string& beginning, absl::Duration within = kSoon) {
    const absl::Time deadline = absl::Now() + within;
    for (;;) {
      const size_t end = text_.find('\n');
      if (end != std::string::npos) {
        const std::string line = text_.substr(0, end);
        text_.erase(0, end + 1);
        if (absl::StartsWith(line, beginning)) return line.substr(beginning.size());
        continue;
      }
      pollfd readable{.fd = out_, .events = POLLIN};
      const auto left_ms = absl::ToInt64Milliseconds(deadline - absl::Now());
      char some[4096];
      if (left_ms <= 0 || poll(&readable, 1, static_cast<int>(left_ms)) <= 0) return "";
      const ssize_t came = read(out_, some, sizeof(some));
      if (came <= 0) return "";
      text_.append(some, static_cast<size_t>(came));
    }
  }
  uint64_t Formed() { return std::strtoull(LineAfter("formed ").c_str(), nullptr, 10); }
  void Signal(int signal) { kill(pid_, signal); }
  void Kill() {
    if (pid_ <= 0) return;
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
    pid_ = -1;
  }

 private:
  pid_t pid_ = -1;
  int out_ = -1;
  std::string text_;
};

class Ranks : public ::testing::TestWithParam<int> {
 protected:
  void SetUp() override {
    ranks_.push_back(std::make_unique<Process>(0, 3, 0));
    port_ = std::atoi(ranks_[0]->LineAfter("port ").c_str());
    ASSERT_GT(port_, 0);
    for (int rank = 1; rank < 3; ++rank)
      ranks_.push_back(std::make_unique<Process>(rank, 3, port_));
    Forms(0);
  }
  void Forms(uint64_t after) {
    for (const auto& rank : ranks_) {
      epoch_ = rank->Formed();
      ASSERT_GT(epoch_, after);
    }
  }
  // Every rank but this one says that its epoch is closed.
  void SurvivorsCloseWithinASecond() {
    const absl::Time deadline = absl::Now() + absl::Seconds(echelon::kPatience);
    for (int rank = 0; rank < 3; ++rank) {
      if (rank == GetParam()) continue;
      EXPECT_NE(ranks_[static_cast<size_t>(rank)]->LineAfter("closed: ", deadline - absl::Now()),
                "")
          << "rank " << rank;
    }
  }
  Process& Victim() { return *ranks_[static_cast<size_t>(GetParam())]; }
  std::vector<std::unique_ptr<Process>> ranks_;
  int port_ = 0;
  uint64_t epoch_ = 0;
};

TEST_P(Ranks, SurviveTheKillOfOne) {
  for (int round = 0; round < 3; ++round) {
    Victim().Kill();
    SurvivorsCloseWithinASecond();
    ranks_[static_cast<size_t>(GetParam())] = std::make_unique<Process>(GetParam(), 3, port_);
    Forms(epoch_);
  }
}

TEST_P(Ranks, SurviveTheStopOfOneAndTakeItBackWhenItGoesOn) {
  Victim().Signal(SIGSTOP);
  SurvivorsCloseWithinASecond();
  Victim().Signal(SIGCONT);
  Forms(epoch_);
}

// As when a virtual machine is paused. Whoever runs again first has heard nobody for long.
TEST_P(Ranks, NoneThatWereStoppedTogetherIsLostWhenTheyGoOn) {
  for (const auto& rank : ranks_) rank->Signal(SIGSTOP);
  EXPECT_EQ(Victim().LineAfter("closed: ", absl::Seconds(2)), "");
  Victim().Signal(SIGCONT);
  for (const auto& rank : ranks_) rank->Signal(SIGCONT);
  for (const auto& rank : ranks_)
    EXPECT_EQ(rank->LineAfter("closed: ", absl::Milliseconds(400)), "");
}

TEST_P(Ranks, ANewProcessTakesThePlaceOfAStoppedOneWhichThenIsRefused) {
  if (GetParam() == 0) GTEST_SKIP() << "the head's port is the stopped process's";
  Victim().Signal(SIGSTOP);
  auto successor = std::make_unique<Process>(GetParam(), 3, port_);
  SurvivorsCloseWithinASecond();
  ranks_[static_cast<size_t>(GetParam())].swap(successor);
  Forms(epoch_);
  successor->Signal(SIGCONT);
  EXPECT_TRUE(absl::StrContains(successor->LineAfter("ended: "), "a newer incarnation of rank"));
}

INSTANTIATE_TEST_SUITE_P(Each, Ranks, ::testing::Values(0, 1, 2));

}  // namespace
