// One rank as a process, for tests that kill and stop it: group-test-rank RANK WORLD PORT. Prints
// "port P" (the head), "formed E", "closed: WHY" and "ended: WHY", a line each.
#include <cstdio>
#include <cstdlib>

#include "tests/group/ring_member.h"
#include "tests/patience.h"

namespace echelon::group {
namespace {

class PrintingMember : public RingMember {
 public:
  using RingMember::RingMember;
  void EpochFormed(uint64_t epoch) override {
    RingMember::EpochFormed(epoch);
    Print(absl::StrCat("formed ", epoch));
  }
  void CloseEpoch(uint64_t epoch, const absl::Status& why) override {
    RingMember::CloseEpoch(epoch, why);
    Print(absl::StrCat("closed: ", std::string(why.message())));
  }
  static void Print(const std::string& line) {
    std::printf("%s\n", line.c_str());
    std::fflush(stdout);
  }
};

int Run(int rank, int world, int port) {
  PrintingMember member(rank, world);
  const Identity identity{.rank = rank,
                          .world = world,
                          .graph_digest = "d",
                          .incarnation = absl::StrCat(getpid(), absl::ToUnixNanos(absl::Now()))};
  Timing timing;
  timing.liveness *= kPatience;
  std::unique_ptr<Node> node;
  if (rank == 0) {
    auto head = StartHead(identity, "127.0.0.1", port, "{}", member.link_port(), "", &member,
                          timing, nullptr);
    if (!head.ok()) {
      PrintingMember::Print(absl::StrCat("ended: ", std::string(head.status().message())));
      return 1;
    }
    node = *std::move(head);
    PrintingMember::Print(absl::StrCat("port ", node->port()));
  } else {
    node = StartWorker(identity, absl::StrCat("127.0.0.1:", port), member.link_port(), "", &member,
                       timing, nullptr);
  }
  const absl::Status status = node->Wait();
  PrintingMember::Print(absl::StrCat("ended: ", std::string(status.message())));
  return status.ok() ? 0 : 1;
}

}  // namespace
}  // namespace echelon::group

int main(int argc, char** argv) {
  if (argc != 4) return 2;
  return echelon::group::Run(std::atoi(argv[1]), std::atoi(argv[2]), std::atoi(argv[3]));
}
