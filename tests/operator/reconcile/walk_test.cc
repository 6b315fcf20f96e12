// Seeded walks through a cluster where anything may happen in any order. World itself checks each
// plan: nothing is made twice, no two revisions in a group, no group removed that is needed, never
// more groups than the surge allows. Here: once the faults stop, all is as wanted, and nothing that
// depends on time is missed.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "tests/operator/reconcile/world.h"

namespace echelon::op::testing {
namespace {

constexpr int kSteps = 400;

class Walk {
 public:
  explicit Walk(unsigned seed)
      : random_(seed),
        world_(absl::StrFormat(
            "{replicas: 2, parallelism: {stages: 3}, scheduling: {timeoutSeconds: 60},"
            " failurePolicy: {maxRestarts: 3, windowSeconds: 300},"
            " rollout: {maxSurge: %d, maxUnavailable: %d},"
            " overrides: [{name: last, firstRank: 2, nodeSelector: {gpu: a}}]}",
            seed % 3, seed % 3 == 0 ? 1 : 0)) {}

  void Run() {
    for (int step = 0; step < kSteps && !::testing::Test::HasFailure(); ++step) {
      Something();
      if (Below(3) == 0) {
        world_.Settle();
        CheckRequeue();
      }
    }
    Calm();
  }

 private:
  int Below(int end) { return static_cast<int>(random_() % static_cast<unsigned>(end)); }

  template <typename View>
  View* Any(std::vector<View>* views) {
    return views->empty() ? nullptr : &(*views)[Below(static_cast<int>(views->size()))];
  }

  void Something() {
    if (Below(4) != 0) return Kubernetes();
    if (Below(4) == 0) return User();
    Fault();
  }

  void Kubernetes() {
    switch (Below(7)) {
      case 0:
        world_.FinishPod();
        break;
      case 1:
        world_.FormGroup();
        break;
      case 2:
        world_.FinishExport();
        break;
      case 3:
        world_.StartPod();
        break;
      case 4:
        world_.PlacePod();
        break;
      default:
        world_.MakePod();
    }
  }

  void User() {
    switch (Below(5)) {
      case 0:
        return world_.Change(absl::StrCat("replicas: ", Below(4)));
      case 1:
        return world_.Change(Below(3) == 0 ? "suspend: true" : "suspend: false");
      case 2:
        if (SetView* set = Any(&world_.observed.sets)) world_.DeleteSet(set->name);
        return;
      case 3:
        return world_.Change(absl::StrCat("model: {path: dir", Below(2), "}"));
      default:
        return world_.Change(absl::StrCat("model: {path: net", Below(3), ".pt2}"));
    }
  }

  void Fault() {
    PodView* pod = Any(&world_.observed.pods);
    switch (Below(7)) {
      case 0:
        if (pod != nullptr) world_.DeletePod(pod->name);
        return;
      case 1:
        if (pod != nullptr && pod->phase == "Running") world_.Crash(pod->name);
        return;
      case 2:
        return world_.LoseNode(world_.nodes[Below(3)]);
      case 3:
        return world_.FindNode(world_.nodes[Below(3)]);
      case 4:
        world_.room = Below(12);
        return;
      case 5:
        world_.object.status = {};  // a write was lost
        return;
      default:
        return world_.Wait(absl::Seconds(Below(40)));
    }
  }

  // Until the moment that a plan names, time changes nothing.
  void CheckRequeue() {
    const Plan plan = world_.Look();
    const absl::Time now = world_.now;
    const absl::Time next = plan.requeue.value_or(now + absl::Hours(48));
    ASSERT_GT(next, now);
    for (const absl::Time moment : {now + (next - now) / 2, next - absl::Milliseconds(1)}) {
      world_.now = moment;
      const Plan later = world_.Look();
      EXPECT_EQ(Print(later), Print(plan)) << "missed between " << now << " and " << next;
      EXPECT_EQ(later.status, plan.status);
    }
    world_.now = now;
  }

  // Faults stop; all that was asked for comes about.
  void Calm() {
    for (const std::string& node : world_.nodes) world_.FindNode(node);
    world_.room = 1000;
    world_.Change("{suspend: false, replicas: 2, model: {path: last.pt2}}");
    for (int i = 0; i < 40; ++i) {
      world_.Rest();
      const std::optional<absl::Time> next = world_.Look().requeue;
      if (!next) break;
      world_.now = *next;
    }
    EXPECT_EQ(world_.Column(), "6/6 Available") << world_.Named(Print(world_.Look()));
    EXPECT_EQ(world_.object.status.groups.size(), 2u) << world_.Groups();
    EXPECT_EQ(world_.observed.pods.size(), 6u);
    EXPECT_EQ(world_.Actions(world_.Look()), "nothing to do\n");
  }

  std::mt19937 random_;
  World world_;
};

class AnyOrderOfEvents : public ::testing::TestWithParam<unsigned> {};

TEST_P(AnyOrderOfEvents, EndsInWhatIsWanted) { Walk(GetParam()).Run(); }

INSTANTIATE_TEST_SUITE_P(Seeds, AnyOrderOfEvents, ::testing::Range(0u, 12u));

}  // namespace
}  // namespace echelon::op::testing
