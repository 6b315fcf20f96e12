#include "runtime/sampling/sampling.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <random>
#include <set>

#include "runtime/sampling/philox.h"

namespace echelon::sampling {
namespace {

using step::Sample;
using testing::ElementsAre;
using testing::HasSubstr;

std::vector<float> Random(size_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, 2);
  std::vector<float> logits(count);
  for (float& logit : logits) logit = normal(random);
  return logits;
}

int32_t TokenOf(const std::vector<float>& logits, const Sample& sample) {
  const auto drawn = Draw(logits, sample);
  EXPECT_TRUE(drawn.ok()) << drawn.status();
  return drawn.ok() ? drawn->token : -1;
}

// How often each token is drawn at positions 0, 1, 2...
std::vector<int> Counts(const std::vector<float>& logits, Sample sample, int draws) {
  std::vector<int> counts(logits.size());
  for (sample.position = 0; sample.position < draws; ++sample.position)
    ++counts[TokenOf(logits, sample)];
  return counts;
}

std::set<size_t> Drawable(const std::vector<float>& logits, const Sample& sample,
                          int draws = 2000) {
  const std::vector<int> counts = Counts(logits, sample, draws);
  std::set<size_t> tokens;
  for (size_t i = 0; i < counts.size(); ++i)
    if (counts[i] > 0) tokens.insert(i);
  return tokens;
}

TEST(Philox, GivesThePublishedAnswers) {  // Random123's known-answer vectors, philox4x32-10
  EXPECT_THAT(Philox({0, 0, 0, 0}, {0, 0}),
              ElementsAre(0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8));
  EXPECT_THAT(Philox({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, {0xffffffff, 0xffffffff}),
              ElementsAre(0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd));
  EXPECT_THAT(Philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
              ElementsAre(0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1));
}

TEST(Philox, UniformNumbersDifferBySeedChoiceAndPosition) {
  std::set<double> seen;
  for (const uint64_t seed : {uint64_t{0}, uint64_t{1}, uint64_t{1} << 32})
    for (uint32_t choice = 0; choice < 3; ++choice)
      for (uint32_t position = 0; position < 3; ++position) {
        const double number = Uniform(seed, choice, position);
        EXPECT_GE(number, 0);
        EXPECT_LT(number, 1);
        EXPECT_TRUE(seen.insert(number).second);
      }
}

TEST(Greedy, TakesTheGreatestAndTheLowestOfEquals) {
  EXPECT_EQ(TokenOf({1, 3, 2, 3}, {}), 1);
  EXPECT_EQ(TokenOf({-INFINITY, -5, -INFINITY}, {}), 1);
  EXPECT_EQ(TokenOf({0, -0.0F}, {}), 0);
}

TEST(Greedy, HeedsNoSeed) {
  const std::vector<float> logits = Random(100, 1);
  for (uint64_t seed = 0; seed < 20; ++seed)
    EXPECT_EQ(TokenOf(logits, {.seed = seed}), TokenOf(logits, {}));
}

TEST(Bias, IsAddedAndBans) {
  EXPECT_EQ(TokenOf({1, 3, 2}, {.bias = {{0, 2.5F}}}), 0);
  EXPECT_EQ(TokenOf({1, 3, 2}, {.bias = {{1, -INFINITY}}}), 2);
  const auto drawable = Drawable({1, 1, 1}, {.temperature = 1, .bias = {{1, -INFINITY}}});
  EXPECT_THAT(drawable, ElementsAre(0, 2));
}

// The formulas as HF transformers and OpenAI write them, one token after the other.
TEST(Penalties, FollowTheirFormulas) {
  std::mt19937 random(3);
  for (int round = 0; round < 200; ++round) {
    const std::vector<float> logits = Random(20, 100 + round);
    Sample sample{.repetition_penalty = 1.3F, .presence_penalty = 0.4F, .frequency_penalty = 0.7F};
    std::vector<float> expected = logits;
    for (int32_t token = 0; token < 20; ++token) {
      if (random() % 2 == 0) continue;
      const auto times = static_cast<int32_t>(random() % 3);
      sample.seen.emplace_back(token, times);
      float& score = expected[token];
      score = score < 0 ? score * 1.3F : score / 1.3F;
      score -= 0.4F * (times > 0 ? 1.0F : 0.0F);
      score -= 0.7F * static_cast<float>(times);
    }
    const auto best = std::max_element(expected.begin(), expected.end()) - expected.begin();
    EXPECT_EQ(TokenOf(logits, sample), best);
  }
}

TEST(Penalties, OfTokensInThePromptAloneAreOnlyOfRepetition) {
  EXPECT_EQ(TokenOf({2, 1.9F}, {.presence_penalty = 1, .seen = {{0, 0}}}), 0);
  EXPECT_EQ(TokenOf({2, 1.9F}, {.presence_penalty = 1, .seen = {{0, 1}}}), 1);
  EXPECT_EQ(TokenOf({2, 1.9F}, {.repetition_penalty = 1.1F, .seen = {{0, 0}}}), 1);
  EXPECT_EQ(TokenOf({-2, -2.1F}, {.repetition_penalty = 1.1F, .seen = {{0, 0}}}), 1);
}

// Pearson's statistic against softmax(logits / temperature); 19 degrees of freedom: above 43.8
// with probability 0.001. The generator is fixed, so the answer is too.
TEST(Drawing, FollowsTheDistribution) {
  for (const float temperature : {0.5F, 1.0F, 2.0F}) {
    const std::vector<float> logits = Random(20, 5);
    std::vector<double> weights(logits.begin(), logits.end());
    for (double& weight : weights) weight = std::exp(weight / temperature);
    const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
    const int draws = 40000;
    const std::vector<int> counts = Counts(logits, {.seed = 11, .temperature = temperature}, draws);
    double statistic = 0;
    for (size_t i = 0; i < counts.size(); ++i) {
      const double expected = draws * weights[i] / sum;
      statistic += (counts[i] - expected) * (counts[i] - expected) / expected;
    }
    EXPECT_LT(statistic, 43.8) << "temperature " << temperature;
  }
}

TEST(Drawing, IsFixedBySeedChoiceAndPosition) {
  const std::vector<float> logits = Random(1000, 2);
  const Sample sample{.seed = 9, .position = 17, .temperature = 1};
  const int32_t token = TokenOf(logits, sample);
  Sample same = sample;  // another row of another batch
  same.row = 5;
  EXPECT_EQ(TokenOf(logits, same), token);
  std::set<int32_t> tokens;
  for (uint32_t choice = 0; choice < 20; ++choice) {
    Sample other = sample;
    other.choice = choice;
    tokens.insert(TokenOf(logits, other));
  }
  EXPECT_GT(tokens.size(), 10U);
}

TEST(TopK, KeepsTheGreatestAndOfEqualsTheLowest) {
  EXPECT_THAT(Drawable({1, 2, 2, 2, 0}, {.temperature = 1, .top_k = 2}), ElementsAre(1, 2));
  EXPECT_THAT(Drawable({1, 2, 3}, {.temperature = 5, .top_k = 7}), ElementsAre(0, 1, 2));
  for (int position = 0; position < 50; ++position)
    EXPECT_EQ(TokenOf({1, 2, 2}, {.position = position, .temperature = 9, .top_k = 1}), 1);
}

std::vector<float> Logs(const std::vector<double>& probabilities) {
  std::vector<float> logits(probabilities.begin(), probabilities.end());
  for (float& logit : logits) logit = std::log(logit);
  return logits;
}

TEST(TopP, KeepsTheFewestThatReachIt) {
  const std::vector<float> logits = Logs({0.1, 0.5, 0.15, 0.25});
  EXPECT_THAT(Drawable(logits, {.temperature = 1, .top_p = 0.01F}), ElementsAre(1));
  EXPECT_THAT(Drawable(logits, {.temperature = 1, .top_p = 0.49F}), ElementsAre(1));
  EXPECT_THAT(Drawable(logits, {.temperature = 1, .top_p = 0.6F}), ElementsAre(1, 3));
  EXPECT_THAT(Drawable(logits, {.temperature = 1, .top_p = 0.8F}), ElementsAre(1, 2, 3));
  EXPECT_THAT(Drawable(logits, {.temperature = 1, .top_p = 0.95F}), ElementsAre(0, 1, 2, 3));
}

TEST(TopP, IsOfWhatTopKLeaves) {  // 0.5 of 0.75 is 2/3
  const std::vector<float> logits = Logs({0.1, 0.5, 0.15, 0.25});
  EXPECT_THAT(Drawable(logits, {.temperature = 1, .top_k = 2, .top_p = 0.6F}), ElementsAre(1));
}

TEST(TopP, SortsNoMoreThanItMustAndAsMuchAsItNeeds) {
  std::vector<float> logits(5000, 0);  // all equal: half of the mass is the first half of the ids
  const auto drawable = Drawable(logits, {.temperature = 1, .top_p = 0.5F}, 300);
  EXPECT_LT(*drawable.rbegin(), 2500U);
  EXPECT_GT(*drawable.rbegin(), 2400U);
}

TEST(MinP, KeepsWhatComesNearTheGreatest) {
  const std::vector<float> logits = Logs({0.1, 0.5, 0.15, 0.25});
  EXPECT_THAT(Drawable(logits, {.temperature = 1, .min_p = 0.29F}), ElementsAre(1, 2, 3));
  EXPECT_THAT(Drawable(logits, {.temperature = 1, .min_p = 0.4F}), ElementsAre(1, 3));
  EXPECT_THAT(Drawable(logits, {.temperature = 1, .min_p = 1}), ElementsAre(1));
}

TEST(Temperature, NearZeroIsAsGoodAsGreedy) {
  const std::vector<float> logits = Random(500, 8);
  for (int position = 0; position < 50; ++position)
    EXPECT_EQ(TokenOf(logits, {.position = position, .temperature = 1e-30F}), TokenOf(logits, {}));
}

TEST(LogProbs, AreTheModelsOwn) {
  const std::vector<float> logits = Logs({0.1, 0.5, 0.15, 0.25});
  const auto drawn = Draw(logits, {.temperature = 0.1F,
                                   .top_k = 1,
                                   .bias = {{1, -INFINITY}, {3, -100}, {0, 100}},
                                   .logprobs = 2});
  ASSERT_TRUE(drawn.ok());
  EXPECT_EQ(drawn->token, 0);
  EXPECT_NEAR(drawn->logprob, std::log(0.1), 1e-6);
  ASSERT_EQ(drawn->top.size(), 2U);
  EXPECT_EQ(drawn->top[0].first, 1);
  EXPECT_NEAR(drawn->top[0].second, std::log(0.5), 1e-6);
  EXPECT_EQ(drawn->top[1].first, 3);
  EXPECT_NEAR(Draw(logits, {.logprobs = 0})->logprob, std::log(0.5), 1e-6);
  EXPECT_TRUE(Draw(logits, {.logprobs = 0})->top.empty());
  EXPECT_EQ(Draw(logits, {.logprobs = 100})->top.size(), 4U);
}

TEST(Draw, NamesWhatIsNoLogit) {
  const auto says = [](const std::vector<float>& logits, const Sample& sample) {
    return std::string(Draw(logits, sample).status().message());
  };
  EXPECT_THAT(says({1, std::nanf(""), 2}, {}), HasSubstr("a logit of nan for token 1"));
  EXPECT_THAT(says({1, 2, INFINITY}, {}), HasSubstr("a logit of inf for token 2"));
  EXPECT_THAT(says({-INFINITY, -INFINITY}, {.temperature = 1}), HasSubstr("no token is left"));
  EXPECT_THAT(says({1}, {.bias = {{0, -INFINITY}}}), HasSubstr("no token is left"));
  EXPECT_THAT(says({1, 2}, {.bias = {{2, 1}}}), HasSubstr("token 2 is none of the vocabulary's 2"));
  EXPECT_THAT(says({1, 2}, {.seen = {{7, 1}}}), HasSubstr("token 7"));
  EXPECT_THAT(says({}, {}), HasSubstr("no token is left"));
}

TEST(Sampling, NoPenaltyTakesALogitBeyondTheNumbers) {
  const auto draws = [](std::vector<float> logits, const step::Sample& sample) {
    const auto drawn = Draw(logits, sample);
    EXPECT_TRUE(drawn.ok()) << drawn.status();
    return drawn.ok() ? drawn->token : -1;
  };
  EXPECT_EQ(draws({1, 3e38F}, {.temperature = 1, .bias = {{1, 3e38F}}}), 1);
  EXPECT_EQ(draws({4, 5}, {.repetition_penalty = 1e-38F, .seen = {{0, 0}}}), 0);
  EXPECT_EQ(draws({-4}, {.repetition_penalty = 3e38F, .seen = {{0, 0}}}), 0);
  const step::Sample huge{
      .presence_penalty = -3e38F, .frequency_penalty = -3e38F, .seen = {{0, 2}, {1, 1}}};
  EXPECT_EQ(draws({-INFINITY, 3, 4}, huge), 1) << "what is banned stays so";
}

}  // namespace
}  // namespace echelon::sampling
