#include "runtime/stage/rank.h"

#include <gtest/gtest.h>

#include "absl/synchronization/notification.h"
#include "absl/time/time.h"
#include "runtime/exec/schema.h"
#include "tests/graph/testing.h"

namespace echelon::stage {
namespace {

using graph::ValueId;
using graph::testing::D;
using graph::testing::GraphMaker;
using graph::testing::V;

std::string ComputeCount(const serve::Metrics& metrics) {
  const std::string text = metrics.Text(), name = "echelon_compute_seconds_count";
  const size_t at = text.find(name);
  return at == text.npos ? "none" : text.substr(at, text.find('\n', at) - at);
}

TEST(Rank, TakesAnotherPlanOnlyWhenTheLastStepOfTheOldOneHasEnded) {
  GraphMaker make;
  const ValueId x = make.Input("x", {D(1000), D(1000)});
  ValueId y = x;
  for (int i = 0; i < 4; ++i) y = make.Node("matmul", {V(y), V(x)}, {D(1000), D(1000)});
  make.Output("output", V(y));
  const auto plan = [&](const char* policy) {
    const auto made = plan::MakePlan(make.graph(), exec::DispatcherSchemas(), {.policy = policy});
    EXPECT_TRUE(made.ok()) << made.status();
    return plan::ToJson(*made, make.graph());
  };
  serve::Metrics metrics({.model = "test"});
  absl::Notification first_ended;
  std::string count;
  {
    Rank rank({.threads = 1}, &make.graph(), nullptr, &metrics, {.result = [&](link::Frame) {
                if (!first_ended.HasBeenNotified()) first_ended.Notify();
              }});
    ASSERT_TRUE(rank.Load(plan("balanced"), nullptr).ok());
    ASSERT_TRUE(rank.OpenEpoch({.number = 1}, absl::Seconds(60)).ok());
    for (uint64_t step = 0; step < 2; ++step) {
      link::Frame frame{.epoch = 1, .step = step};
      Tensor input = Tensor::Empty(DType::kF32, {1000, 1000});
      std::fill_n(reinterpret_cast<float*>(input.data), input.elements(), 1e-3F);
      frame.tensors.push_back({static_cast<uint32_t>(x), std::move(input)});
      rank.Submit(std::move(frame));
    }
    ASSERT_TRUE(first_ended.WaitForNotificationWithTimeout(absl::Seconds(60)));
    rank.CloseEpoch(1, absl::UnavailableError("rank 1 is lost"));
    ASSERT_TRUE(rank.Load(plan("equal-size"), nullptr).ok());
    count = ComputeCount(metrics);
  }
  EXPECT_NE(count, "none");
  EXPECT_EQ(count, ComputeCount(metrics)) << "a step ended after the plan that it was of";
}

}  // namespace
}  // namespace echelon::stage
