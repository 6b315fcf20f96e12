// Language models against transformers: every family that tests/text/make_families.py wrote, in
// stages chained in one process, prompts in chunks, packed with others. Logits at every step.
#include <ATen/core/Tensor.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "runtime/cli/npy.h"
#include "runtime/exec/convert.h"
#include "runtime/stage/model.h"
#include "runtime/step/step.h"
#include "tests/exec/oracle.h"

namespace echelon::oracle {
namespace {

constexpr int kSteps = 32;
constexpr int64_t kBlocks = 64;
constexpr double kTolerance = 2e-4;  // of the largest logit: other kernels, other sums

std::filesystem::path Folder() {
  const char* folder = std::getenv("ECHELON_FAMILIES");
  return folder ? folder : ECHELON_FAMILIES;
}

std::vector<std::string> Families() {
  std::vector<std::string> families;
  std::error_code error;
  if (const char* chosen = std::getenv("ECHELON_CASES"))
    families = absl::StrSplit(chosen, ',');
  else
    for (const auto& entry : std::filesystem::directory_iterator(Folder(), error))
      if (std::filesystem::exists(entry.path() / "model.pt2"))
        families.push_back(entry.path().filename());
  std::sort(families.begin(), families.end());
  return families;
}

Tensor Ids(const std::vector<int64_t>& ids, std::vector<int64_t> shape) {
  Tensor tensor = Tensor::Empty(DType::kI64, std::move(shape));
  std::memcpy(tensor.data, ids.data(), tensor.nbytes);
  return tensor;
}

struct Oracle {
  std::vector<std::vector<int64_t>> prompts, tokens;
  std::vector<float> logits;  // [prompts, kSteps, vocabulary]
  int64_t vocabulary = 0;
};

Oracle ReadOracle(const std::filesystem::path& folder) {
  std::ifstream file(folder / "oracle.json");
  const auto json = nlohmann::json::parse(file);
  Oracle oracle{.prompts = json["prompts"], .tokens = json["tokens"]};
  const auto array = ReadNpy((folder / "logits.npy").string());
  EXPECT_TRUE(array.ok()) << array.status();
  if (!array.ok()) return oracle;
  oracle.vocabulary = array->shape.at(2);
  oracle.logits.resize(array->elements());
  std::memcpy(oracle.logits.data(), array->data, array->nbytes);
  return oracle;
}

// A group of stages that knows its sequences, as the head does.
class Group {
 public:
  static absl::StatusOr<Group> Load(const stage::Model& model,
                                    const weights::Checkpoint& checkpoint,
                                    const std::vector<plan::Stage>& stages) {
    exec::LoadOptions options{
        .threads = 1, .checkpoint = &checkpoint, .kv_blocks = kBlocks, .draws = false};
    auto pipeline = Pipeline::Load(model.graph, stages, options);
    if (!pipeline.ok()) return pipeline.status();
    return Group(*std::move(pipeline));
  }

  struct Part {
    int sequence;
    std::vector<int64_t> tokens;
  };
  // The logits [vocabulary] of each part's last token.
  absl::StatusOr<std::vector<std::vector<float>>> Run(const std::vector<Part>& parts) {
    step::Step step;
    std::vector<int64_t> ids, positions, rows;
    for (const Part& part : parts) {
      State& state = states_[part.sequence];
      const auto count = static_cast<int64_t>(part.tokens.size());
      while (static_cast<int64_t>(state.blocks.size()) * plan::kKvBlockTokens <
             state.length + count)
        state.blocks.push_back(static_cast<int32_t>((next_block_++ * 37) % kBlocks));
      step.sequences.push_back({.id = static_cast<uint64_t>(part.sequence),
                                .start = static_cast<int32_t>(state.length),
                                .count = static_cast<int32_t>(count),
                                .blocks = state.blocks});
      for (const int64_t token : part.tokens) {
        ids.push_back(token);
        positions.push_back(state.length++);
      }
      rows.push_back(static_cast<int64_t>(ids.size()) - 1);
    }
    const auto count = static_cast<int64_t>(ids.size());
    const auto got = pipeline_.Run({{"input_ids", Ids(ids, {1, count})},
                                    {"position_ids", Ids(positions, {1, count})},
                                    {"rows", Ids(rows, {static_cast<int64_t>(rows.size())})}},
                                   step::Serialize(step));
    if (!got.ok()) return got.status();
    const at::Tensor logits = exec::ToTorch(got->begin()->second).to(at::kFloat).contiguous();
    const int64_t width = logits.size(2);
    std::vector<std::vector<float>> result;
    for (size_t i = 0; i < parts.size(); ++i) {
      const float* row = logits.const_data_ptr<float>() + i * width;
      result.emplace_back(row, row + width);
    }
    return result;
  }

 private:
  explicit Group(Pipeline pipeline) : pipeline_(std::move(pipeline)) {}
  struct State {
    int64_t length = 0;
    std::vector<int32_t> blocks;
  };
  Pipeline pipeline_;
  std::map<int, State> states_;
  int64_t next_block_ = 0;
};

using Texts = std::vector<std::vector<std::vector<float>>>;  // logits by prompt and step

struct Answer {
  std::vector<std::vector<int64_t>> tokens;
  Texts logits;
};

// All prompts at once, each in chunks of `chunk` tokens; those that are through decode meanwhile.
absl::StatusOr<Answer> Generate(Group& group, const Oracle& oracle, size_t chunk) {
  const size_t count = oracle.prompts.size();
  Answer answer{.tokens = std::vector<std::vector<int64_t>>(count),
                .logits = std::vector<std::vector<std::vector<float>>>(count)};
  std::vector<size_t> fed(count);
  for (;;) {
    std::vector<Group::Part> parts;
    for (size_t i = 0; i < count; ++i) {
      if (answer.tokens[i].size() == kSteps) continue;
      const auto& prompt = oracle.prompts[i];
      Group::Part part{.sequence = static_cast<int>(i)};
      if (fed[i] < prompt.size()) {
        const size_t end = std::min(prompt.size(), fed[i] + chunk);
        part.tokens.assign(prompt.begin() + fed[i], prompt.begin() + end);
        fed[i] = end;
      } else {
        part.tokens = {answer.tokens[i].back()};
      }
      parts.push_back(std::move(part));
    }
    if (parts.empty()) return answer;
    auto logits = group.Run(parts);
    if (!logits.ok()) return logits.status();
    for (size_t k = 0; k < parts.size(); ++k) {
      const int i = parts[k].sequence;
      if (fed[i] < oracle.prompts[i].size()) continue;
      auto& row = (*logits)[k];
      answer.tokens[i].push_back(std::max_element(row.begin(), row.end()) - row.begin());
      answer.logits[i].push_back(std::move(row));
    }
  }
}

// Where two runs part, to the bit; "" where they do not.
std::string FirstDifference(const Texts& got, const Texts& want) {
  if (got.size() != want.size()) return "another number of texts";
  for (size_t i = 0; i < got.size(); ++i) {
    if (got[i].size() != want[i].size()) return absl::StrCat("text ", i, " has another length");
    for (size_t step = 0; step < got[i].size(); ++step)
      if (got[i][step] != want[i][step]) return absl::StrCat("text ", i, " at step ", step);
  }
  return "";
}

double WorstDifference(const Oracle& oracle, const Answer& answer) {
  double worst = 0, largest = 0;
  for (const float value : oracle.logits) largest = std::max<double>(largest, std::abs(value));
  for (size_t i = 0; i < answer.logits.size(); ++i)
    for (size_t step = 0; step < answer.logits[i].size(); ++step)
      for (int64_t k = 0; k < oracle.vocabulary; ++k)
        worst = std::max<double>(
            worst, std::abs(answer.logits[i][step][k] -
                            oracle.logits[(i * kSteps + step) * oracle.vocabulary + k]));
  return worst / largest;
}

class TextFamilies : public ::testing::Test {
 protected:
  void SetUp() override {
    exec::SetThreads(1);
    families_ = Families();
    ASSERT_FALSE(families_.empty()) << "no models under " << Folder()
                                    << ": run tests/text/make_families.py, or set ECHELON_FAMILIES";
  }

  void Open(const std::string& family) {
    const std::filesystem::path folder_ = Folder() / family;
    auto model = stage::OpenModel(folder_ / "model.pt2");
    ASSERT_TRUE(model.ok()) << model.status();
    model_ = *std::move(model);
    auto checkpoint = weights::Checkpoint::Open(folder_);
    ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
    checkpoint_ = *std::move(checkpoint);
    oracle_ = ReadOracle(folder_);
  }

  absl::StatusOr<Group> Staged(int stages) {
    const auto plan = plan::MakePlan(model_.graph, model_.schemas,
                                     {.stages = stages, .kv_memory_bytes = 64 << 20});
    if (!plan.ok()) return plan.status();
    return Group::Load(model_, checkpoint_, plan->stages);
  }

  std::vector<std::string> families_;
  stage::Model model_;
  weights::Checkpoint checkpoint_;
  Oracle oracle_;
};

TEST_F(TextFamilies, WriteWhatTransformersWritesInOneTwoAndThreeStages) {
  for (const std::string& family : families_) {
    SCOPED_TRACE(family);
    ASSERT_NO_FATAL_FAILURE(Open(family));
    for (const int stages : {1, 2, 3}) {
      auto group = Staged(stages);
      ASSERT_TRUE(group.ok()) << group.status();
      const auto answer = Generate(*group, oracle_, 64);
      ASSERT_TRUE(answer.ok()) << answer.status();
      EXPECT_EQ(answer->tokens, oracle_.tokens) << stages << " stages";
      const double worst = WorstDifference(oracle_, *answer);
      EXPECT_LT(worst, kTolerance) << stages << " stages";
      std::printf("%s, %d stages: logits within %.1e of the largest\n", family.c_str(), stages,
                  worst);
    }
  }
}

TEST_F(TextFamilies, AreBitwiseTheSameInChunksAndAlone) {
  for (const std::string& family : families_) {
    SCOPED_TRACE(family);
    ASSERT_NO_FATAL_FAILURE(Open(family));
    auto whole = Staged(1), chunked = Staged(2);
    ASSERT_TRUE(whole.ok() && chunked.ok());
    const auto wanted = Generate(*whole, oracle_, 64), got = Generate(*chunked, oracle_, 7);
    ASSERT_TRUE(wanted.ok() && got.ok()) << wanted.status() << got.status();
    EXPECT_EQ(FirstDifference(got->logits, wanted->logits), "");
    for (size_t i = 0; i < oracle_.prompts.size(); ++i) {
      auto alone = Staged(1);
      ASSERT_TRUE(alone.ok());
      const Oracle one{.prompts = {oracle_.prompts[i]}};
      const auto answer = Generate(*alone, one, 5);
      ASSERT_TRUE(answer.ok()) << answer.status();
      EXPECT_EQ(FirstDifference(answer->logits, {wanted->logits[i]}), "") << "prompt " << i;
    }
  }
}

class TextFamily : public TextFamilies, public ::testing::WithParamInterface<std::string> {};

TEST_P(TextFamily, WritesTheSameCutAnywhere) {
  const std::string family = GetParam();
  ASSERT_NO_FATAL_FAILURE(Open(family));
  auto whole = Staged(1);
  ASSERT_TRUE(whole.ok()) << whole.status();
  const Oracle one{.prompts = {oracle_.prompts[1]}};
  const auto wanted = Generate(*whole, one, 4);
  ASSERT_TRUE(wanted.ok()) << wanted.status();
  const int nodes = static_cast<int>(model_.graph.nodes.size());
  const std::vector<int> cuts = plan::LegalCuts(model_.graph, model_.schemas);
  ASSERT_GT(cuts.size(), 50);
  for (const int cut : cuts) {
    auto group = Group::Load(model_, checkpoint_, StagesOf(model_.graph, {0, cut, nodes}));
    ASSERT_TRUE(group.ok()) << group.status();
    const auto got = Generate(*group, one, 4);
    ASSERT_TRUE(got.ok()) << "cut before " << model_.graph.nodes[cut].name << ": " << got.status();
    EXPECT_EQ(FirstDifference(got->logits, wanted->logits), "")
        << "cut before " << model_.graph.nodes[cut].name;
  }
  std::printf("%s: %zu legal cuts\n", family.c_str(), cuts.size());
}

// All would take minutes; these cover rotary and learned positions, complex numbers, ALiBi,
// windows, experts, and keys and values that later layers share.
INSTANTIATE_TEST_SUITE_P(Some, TextFamily,
                         ::testing::Values("bloom", "deepseek_v2", "gemma4_text", "gpt2", "gpt_oss",
                                           "llama"),
                         [](const auto& family) { return family.param; });

}  // namespace
}  // namespace echelon::oracle
