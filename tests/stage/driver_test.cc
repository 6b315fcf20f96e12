#include "runtime/stage/driver.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>
#include <vector>

#include "tests/graph/testing.h"

namespace echelon::stage {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr int64_t kRowBytes = 128 * sizeof(float);  // of Net's input

// Net's head alone: steps are kept, and nobody computes them.
class DriverTest : public ::testing::Test {
 protected:
  DriverTest() { driver_.EpochFormed(1); }

  // Its answer's place in answers_.
  size_t Ask(int64_t rows) {
    Tensor x = Tensor::Empty(DType::kF32, {rows, 128});
    std::fill_n(x.data, x.nbytes, std::byte{0});
    serve::InferRequest request;
    request.inputs.push_back({graph_.inputs[0].name, std::move(x)});
    const size_t at = answers_.size();
    answers_.emplace_back();
    driver_.Infer(std::move(request), [this, at](const absl::StatusOr<serve::InferResult>& result) {
      answers_[at] = result.status();
    });
    return at;
  }

  const graph::Graph graph_ = graph::testing::Net();
  serve::Metrics metrics_{{}};
  std::vector<link::Frame> steps_;
  std::vector<std::optional<absl::Status>> answers_;
  Driver driver_{{.name = "net", .max_input_bytes = 8 * kRowBytes},
                 &graph_,
                 graph::BatchSymbol(graph_, graph::testing::Schemas()),
                 &metrics_,
                 [this](link::Frame frame) { steps_.push_back(std::move(frame)); }};
};

TEST_F(DriverTest, InputsOfAllRequestsTakeNoMoreMemoryThanTheirBound) {
  const size_t first = Ask(6), second = Ask(3), third = Ask(2);
  EXPECT_FALSE(answers_[first]);
  ASSERT_TRUE(answers_[second]);
  EXPECT_EQ(answers_[second]->code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(answers_[second]->message(), HasSubstr("more than 4.0 KiB; try again"));
  EXPECT_FALSE(answers_[third]) << *answers_[third];
  EXPECT_THAT(steps_, SizeIs(2));
}

TEST_F(DriverTest, AnAnswerGivesItsInputsMemoryBack) {
  Ask(8);
  driver_.EpochClosed(absl::UnavailableError("stage 1 was lost"));
  EXPECT_EQ(answers_[0]->message(), "stage 1 was lost");
  driver_.EpochFormed(2);
  EXPECT_FALSE(answers_[Ask(8)]);
}

TEST_F(DriverTest, OneRequestAloneAlwaysHasRoom) {
  EXPECT_FALSE(answers_[Ask(16)]);
  EXPECT_THAT(steps_, Not(IsEmpty()));
}

}  // namespace
}  // namespace echelon::stage
