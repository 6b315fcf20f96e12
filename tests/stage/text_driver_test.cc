// Text requests through the driver, against a pipeline that is a function: the next token depends
// on all tokens that the step's blocks hold, so an answer is right only if every one of them was
// fed once, in its place.
#include "runtime/stage/text_driver.h"

#include <gmock/gmock.h>

#include <cmath>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "runtime/sync/mutex.h"

namespace echelon::stage {
namespace {

using serve::FinishReason;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr int kVocabulary = 97, kEos = 3, kLength = 64, kBlockTokens = 4;
constexpr uint64_t kNoLuck = 1 << 20;  // a seed with which nothing can be drawn
constexpr absl::Duration kDeadline = absl::Seconds(30);

graph::Graph TextGraph(int64_t min_rows = 0) {
  graph::Graph graph{.name = "tiny"};
  const auto add = [&](const char* name, std::vector<graph::Dim> shape) {
    graph.inputs.push_back({name, static_cast<graph::ValueId>(graph.values.size())});
    graph.values.push_back({.name = name, .dtype = DType::kI64, .shape = std::move(shape)});
  };
  add(graph::kTokens, {{1, ""}, {8, "s0"}});
  add(graph::kPositions, {{1, ""}, {8, "s0"}});
  add(graph::kRows, {{4, "s1"}});
  graph.symbols = {{"s0", {1, 65536}}, {"s1", {min_rows, 4096}}};
  graph.text = graph::TextModel{
      .max_model_len = kLength, .vocab_size = kVocabulary, .eos_token_ids = {kEos}};
  return graph;
}

int32_t NextToken(const std::vector<int32_t>& tokens, const step::Sample& sample) {
  uint32_t hash = static_cast<uint32_t>(sample.seed);
  for (const int32_t token : tokens) hash = (hash ^ static_cast<uint32_t>(token)) * 16777619u;
  auto next = static_cast<int32_t>((hash >> 8) % kVocabulary);
  const auto is_banned = [&](const auto& bias) { return bias.first == next && bias.second < 0; };
  while (std::any_of(sample.bias.begin(), sample.bias.end(), is_banned))
    next = (next + 1) % kVocabulary;
  return next;
}

std::vector<int64_t> NumbersOf(const Tensor& tensor) {
  std::vector<int64_t> numbers(tensor.elements());
  if (!numbers.empty()) std::memcpy(numbers.data(), tensor.data, tensor.nbytes);
  return numbers;
}

struct Answer {
  std::vector<int32_t> tokens;
  FinishReason finish = FinishReason::kNone;
  absl::Status status;
  bool is_over = false;
};

// The driver, the stages and the clients. Steps run when a test waits for something.
class Bench {
 public:
  explicit Bench(schedule::Continuous::Options options = {}, int64_t min_rows = 0)
      : graph_(TextGraph(min_rows)) {
    if (options.blocks == 0) options.blocks = 64;
    options.block_tokens = kBlockTokens;
    slots_.resize(options.blocks * kBlockTokens, -1);
    auto driver = TextDriver::Create({.name = "tiny", .schedule = options}, &graph_, &metrics_,
                                     [this](link::Frame frame) {
                                       const MutexLock lock(&mutex_);
                                       frames_.push_back(std::move(frame));
                                     });
    EXPECT_TRUE(driver.ok()) << driver.status();
    driver_ = *std::move(driver);
    driver_->EpochFormed(1);
  }

  TextDriver& driver() { return *driver_; }
  std::string metrics() const { return metrics_.Text(); }
  void EndDriver() { driver_.reset(); }

  // stop_after: tokens after which the client wants no more.
  size_t Ask(serve::TokenRequest request, size_t stop_after = SIZE_MAX) {
    size_t index = 0;
    {
      const MutexLock lock(&mutex_);
      index = answers_.size();
      answers_.emplace_back();
    }
    driver_->Generate(std::move(request),
                      [this, index, stop_after](absl::StatusOr<serve::TokenEvent> event) {
                        return Hear(index, stop_after, std::move(event));
                      });
    return index;
  }

  // Runs steps until the answer is complete.
  Answer Await(size_t index) {
    while (true) {
      link::Frame frame;
      {
        const MutexLock lock(&mutex_);
        const bool is_awake = mutex_.AwaitUntil(
            [&] { return answers_[index].is_over || (runs_ && !frames_.empty()); },
            SteadyNow() + kDeadline);
        if (!is_awake) ADD_FAILURE() << "no answer to request " << index;
        if (!is_awake || answers_[index].is_over) return answers_[index];
        frame = std::move(frames_.front());
        frames_.pop_front();
      }
      driver_->OnResult(Run(frame));
    }
  }

  // Steps stay where they are: nothing comes back from the stages.
  void Stall() { runs_ = false; }
  void Resume() { runs_ = true; }

  // The oldest step in flight, taken out; its result must be given to the driver by hand.
  link::Frame TakeFrame() {
    const MutexLock lock(&mutex_);
    EXPECT_FALSE(frames_.empty());
    link::Frame frame = std::move(frames_.front());
    frames_.pop_front();
    return frame;
  }

  link::Frame Run(const link::Frame& frame) {
    const auto step = step::ParseStep(frame.rows, driver_->limits());
    EXPECT_TRUE(step.ok()) << step.status();
    steps_.push_back(*step);
    EXPECT_EQ(frame.tensors.size(), 3u);
    const std::vector<int64_t> tokens = NumbersOf(frame.tensors[0].tensor);
    const std::vector<int64_t> positions = NumbersOf(frame.tensors[1].tensor);
    rows_.push_back(NumbersOf(frame.tensors[2].tensor));
    std::map<int64_t, const step::Sequence*> last;  // row -> whose last token it is
    size_t at = 0;
    for (const step::Sequence& sequence : step->sequences) {
      for (int32_t i = 0; i < sequence.count; ++i, ++at) {
        EXPECT_EQ(positions.at(at), sequence.start + i);
        Slot(sequence, sequence.start + i) = static_cast<int32_t>(tokens.at(at));
      }
      last[static_cast<int64_t>(at) - 1] = &sequence;
    }
    EXPECT_EQ(at, tokens.size());
    step::Result result;
    for (const step::Sample& sample : step->samples) {
      const step::Sequence& sequence = *last.at(rows_.back().at(sample.row));
      std::vector<int32_t> seen(sample.position);
      EXPECT_EQ(sample.position, sequence.start + sequence.count);
      for (int32_t i = 0; i < sample.position; ++i) seen[i] = Slot(sequence, i);
      result.drawn.push_back({.token = NextToken(seen, sample), .logprob = -0.5});
      if (sample.seed == kNoLuck) result.drawn.back() = {.status = absl::InternalError("NaN")};
    }
    return {.epoch = frame.epoch, .step = frame.step, .rows = step::Serialize(result)};
  }

  const std::vector<step::Step>& steps() const { return steps_; }
  const std::vector<std::vector<int64_t>>& rows() const { return rows_; }

 private:
  bool Hear(size_t index, size_t stop_after, absl::StatusOr<serve::TokenEvent> event) {
    const MutexLock lock(&mutex_);
    Answer& answer = answers_[index];
    EXPECT_FALSE(answer.is_over) << "a call after the last one";
    answer.status = event.status();
    if (event.ok()) {
      answer.tokens.push_back(event->drawn.token);
      answer.finish = event->finish;
    }
    answer.is_over =
        !event.ok() || event->finish != FinishReason::kNone || answer.tokens.size() == stop_after;
    return answer.tokens.size() != stop_after;
  }

  int32_t& Slot(const step::Sequence& sequence, int32_t position) {
    return slots_[sequence.blocks[position / kBlockTokens] * kBlockTokens +
                  position % kBlockTokens];
  }

  graph::Graph graph_;
  serve::Metrics metrics_{{.model = "tiny"}};
  std::vector<int32_t> slots_;
  std::vector<step::Step> steps_;
  std::vector<std::vector<int64_t>> rows_;
  Mutex mutex_;
  std::deque<link::Frame> frames_;
  std::deque<Answer> answers_;
  bool runs_ = true;
  std::unique_ptr<TextDriver> driver_;  // last: it calls back
};

serve::TokenRequest Request(std::vector<int32_t> prompt, int32_t max_tokens, uint64_t seed = 1) {
  serve::TokenRequest request{.prompt = std::move(prompt), .max_tokens = max_tokens};
  request.sampling.seed = seed;
  return request;
}

// What a pipeline that did one request at a time, without a cache, would answer.
Answer Expected(const serve::TokenRequest& request) {
  Answer answer;
  std::vector<int32_t> tokens = request.prompt;
  while (answer.finish == FinishReason::kNone) {
    tokens.push_back(NextToken(tokens, request.sampling));
    answer.tokens.push_back(tokens.back());
    if (tokens.back() == kEos)
      answer.finish = FinishReason::kStop;
    else if (static_cast<int>(answer.tokens.size()) == request.max_tokens)
      answer.finish = FinishReason::kLength;
  }
  return answer;
}

TEST(TextDriver, AnswersManyAtOnceAsItWouldOneByOneEvenWhenTheCacheIsTooSmallForAll) {
  Bench bench({.stages = 3, .chunk_tokens = 5, .step_tokens = 11, .blocks = 20});
  std::vector<serve::TokenRequest> requests;
  for (int i = 0; i < 40; ++i) {
    std::vector<int32_t> prompt(1 + i * 7 % 23);
    for (size_t k = 0; k < prompt.size(); ++k)
      prompt[k] = static_cast<int32_t>((i * 31 + k * 17) % kVocabulary);
    requests.push_back(Request(std::move(prompt), 1 + i * 5 % 37, i));
  }
  for (const serve::TokenRequest& request : requests) bench.Ask(request);
  for (size_t i = 0; i < requests.size(); ++i) {
    const Answer answer = bench.Await(i), expected = Expected(requests[i]);
    EXPECT_EQ(answer.tokens, expected.tokens) << i;
    EXPECT_EQ(answer.finish, expected.finish) << i;
  }
  EXPECT_THAT(bench.metrics(),
              AllOf(HasSubstr(R"(echelon_running_requests{model="tiny",rank="0"} 0)"),
                    HasSubstr(R"(echelon_kv_blocks_used{model="tiny",rank="0"} 0)"),
                    HasSubstr(R"(echelon_kv_blocks{model="tiny",rank="0"} 20)"),
                    Not(HasSubstr(R"(echelon_preemptions_total{model="tiny",rank="0"} 0)"))));
}

TEST(TextDriver, CountsTokensAndTimesThem) {
  Bench bench;
  serve::TokenRequest request = Request({1, 2, 5}, 4);
  request.ignore_eos = true;
  bench.Await(bench.Ask(request));
  for (const char* line :
       {R"(echelon_prompt_tokens_total{model="tiny",rank="0"} 3)",
        R"(echelon_generated_tokens_total{model="tiny",rank="0"} 4)",
        R"(echelon_time_to_first_token_seconds_count{model="tiny",rank="0"} 1)",
        R"(echelon_time_per_output_token_seconds_count{model="tiny",rank="0"} 3)"})
    EXPECT_THAT(bench.metrics(), HasSubstr(line));
}

TEST(TextDriver, AStepThatDrawsNothingSendsNoRowUnlessTheGraphNeedsOne) {
  for (const int64_t min_rows : {0, 1}) {
    Bench bench({.chunk_tokens = 2}, min_rows);
    bench.Await(bench.Ask(Request({1, 2, 4, 5, 6}, 1)));
    ASSERT_EQ(bench.steps().size(), 3u);
    EXPECT_THAT(bench.steps()[0].samples, IsEmpty());
    EXPECT_EQ(bench.rows()[0], std::vector<int64_t>(min_rows, 0));
    EXPECT_THAT(bench.rows()[2], ElementsAre(0));
    EXPECT_EQ(bench.steps()[2].samples.size(), 1u);
  }
}

TEST(TextDriver, ARequestEndsWhereItsClientWantsNoMore) {
  Bench bench;
  serve::TokenRequest request = Request({1, 2}, 30);
  request.ignore_eos = true;
  EXPECT_EQ(bench.Await(bench.Ask(request, 3)).tokens.size(), 3u);
  // What follows gets the whole cache, at once.
  request.prompt.assign(60, 7);
  request.max_tokens = 2;
  EXPECT_EQ(bench.Await(bench.Ask(request)).finish, FinishReason::kLength);
}

TEST(TextDriver, NoticesClientsThatHaveGoneAndDeadlines) {
  Bench bench;
  bench.Stall();
  const auto gone = std::make_shared<std::atomic<bool>>(false);
  serve::TokenRequest cancelled = Request({1}, 5), late = Request({2}, 5);
  cancelled.cancelled = gone;
  late.deadline = absl::Now() + absl::Milliseconds(30);
  const size_t first = bench.Ask(cancelled), second = bench.Ask(late);
  *gone = true;
  EXPECT_EQ(bench.Await(first).status, absl::CancelledError("the client has gone"));
  EXPECT_EQ(
      bench.Await(second).status,
      absl::DeadlineExceededError("the request's deadline passed after 0 tokens of its answer"));
}

TEST(TextDriver, WithoutAnEpochItRefusesAndAnEndedOneFailsWhatIsUnderWay) {
  Bench bench;
  EXPECT_TRUE(bench.driver().Ready().ok());
  bench.Stall();
  const size_t index = bench.Ask(Request({1}, 5));
  const link::Frame late = bench.TakeFrame();
  bench.driver().EpochClosed(absl::UnavailableError("rank 1 is lost"));
  EXPECT_EQ(bench.Await(index).status, absl::UnavailableError("rank 1 is lost"));
  EXPECT_EQ(bench.Await(bench.Ask(Request({1}, 5))).status,
            absl::UnavailableError("rank 1 is lost"));
  bench.driver().SetWaiting("waiting for rank 1 (loading)");
  EXPECT_EQ(bench.driver().Ready(), absl::UnavailableError("waiting for rank 1 (loading)"));
  bench.driver().EpochFormed(2);
  const size_t next = bench.Ask(Request({1}, 1));
  bench.driver().OnResult(bench.Run(late));  // of the old epoch: nobody's
  const link::Frame frame = bench.TakeFrame();
  EXPECT_EQ(frame.epoch, 2u);
  bench.driver().OnResult(bench.Run(frame));
  EXPECT_EQ(bench.Await(next).tokens, Expected(Request({1}, 1)).tokens);
}

TEST(TextDriver, AFailedStepAndOneThatCannotBeReadFailTheirRequests) {
  Bench bench;
  bench.Stall();
  const size_t first = bench.Ask(Request({1}, 5));
  const link::Frame frame = bench.TakeFrame();
  bench.driver().OnResult(
      link::ErrorFrame(frame.epoch, frame.step, 0, absl::InternalError("node add: boom")));
  EXPECT_EQ(bench.Await(first).status, absl::InternalError("node add: boom"));
  const size_t second = bench.Ask(Request({1}, 5));
  const link::Frame other = bench.TakeFrame();
  bench.driver().OnResult({.epoch = other.epoch, .step = other.step, .rows = ""});
  const absl::Status status = bench.Await(second).status;
  EXPECT_TRUE(absl::IsInternal(status));
  EXPECT_THAT(status.message(), HasSubstr("what the last stage sent for step 1 cannot be read: "));
}

TEST(TextDriver, ASampleThatCannotBeDrawnFailsItsRequestAlone) {
  Bench bench({.blocks = 16});
  const serve::TokenRequest lucky = Request({1, 2}, 8);
  const size_t unlucky = bench.Ask(Request({1, 2}, 8, kNoLuck)), other = bench.Ask(lucky);
  EXPECT_EQ(bench.Await(unlucky).status, absl::InternalError("NaN"));
  EXPECT_EQ(bench.Await(other).tokens, Expected(lucky).tokens);
  // Its blocks are free again: what follows needs nearly all.
  EXPECT_TRUE(bench.Await(bench.Ask(Request(std::vector<int32_t>(62, 7), 1))).status.ok());
}

TEST(TextDriver, RefusesWhatCannotBeServed) {
  Bench bench({.blocks = 4, .max_running = 1, .max_waiting = 0});
  EXPECT_EQ(bench.Await(bench.Ask(Request({}, 1))).status,
            absl::InvalidArgumentError("prompt has no tokens; it needs at least one"));
  EXPECT_EQ(bench.Await(bench.Ask(Request({1, 2}, 20))).status,
            absl::InvalidArgumentError(
                "prompt and answer may take 21 tokens of KV cache, but it holds 16; ask for fewer "
                "tokens, or start with a larger --kv-memory"));
  bench.Stall();
  bench.Ask(Request({1, 2}, 0));
  EXPECT_TRUE(absl::IsResourceExhausted(bench.Await(bench.Ask(Request({1}, 1))).status));
}

TEST(TextDriver, ItsEndAnswersWhoeverIsUnderWay) {
  Bench bench;
  bench.Stall();
  const size_t running = bench.Ask(Request({1}, 5));
  bench.driver().Hold([] {});
  const size_t held = bench.Ask(Request({1}, 5));
  bench.EndDriver();
  for (const size_t index : {running, held})
    EXPECT_EQ(bench.Await(index).status, absl::UnavailableError("the server is shutting down"));
}

class Once {  // a callback that must come exactly once
 public:
  std::function<void()> callback() {
    return [this] {
      const MutexLock lock(&mutex_);
      ++calls_;
    };
  }
  bool Came() {
    const MutexLock lock(&mutex_);
    return mutex_.AwaitUntil([this] { return calls_ > 0; }, SteadyNow() + kDeadline) && calls_ == 1;
  }
  bool is_called() {
    const MutexLock lock(&mutex_);
    return calls_ > 0;
  }

 private:
  Mutex mutex_;
  int calls_ = 0;
};

serve::TokenRequest Long(int32_t first) {
  serve::TokenRequest request = Request({first}, 8);
  request.ignore_eos = true;
  return request;
}

TEST(TextDriver, WhileARankLeavesWhatRunsIsAnsweredAndTheRestWaitsForTheNextEpoch) {
  Once idle;
  Bench bench;
  const size_t running = bench.Ask(Long(1));
  bench.driver().Hold(idle.callback());
  const size_t waiting = bench.Ask(Long(2));
  EXPECT_FALSE(idle.is_called());
  EXPECT_EQ(bench.Await(running).tokens.size(), 8u);
  EXPECT_TRUE(idle.Came());
  bench.driver().EpochClosed(absl::UnavailableError("rank 1 leaves"));
  const size_t late = bench.Ask(Long(3));
  bench.driver().EpochFormed(2);
  EXPECT_EQ(bench.Await(waiting).tokens.size(), 8u);
  EXPECT_EQ(bench.Await(late).tokens.size(), 8u);
}

TEST(TextDriver, ALossWhileARankLeavesFailsWhatRunsAlone) {
  Once idle;
  Bench bench;
  bench.Stall();
  const size_t running = bench.Ask(Long(1));
  bench.driver().Hold(idle.callback());
  bench.driver().EpochClosed(absl::UnavailableError("rank 1 is gone"));
  EXPECT_EQ(bench.Await(running).status, absl::UnavailableError("rank 1 is gone"));
  EXPECT_TRUE(idle.Came());
  bench.driver().EpochFormed(2);
  const size_t next = bench.Ask(Long(2));
  bench.Resume();
  EXPECT_EQ(bench.Await(next).tokens.size(), 8u);
}

TEST(TextDriver, AHeadThatStopsAnswersWhatItHasAcceptedAndRefusesTheRest) {
  Once idle;
  Bench bench({.max_running = 1});
  const size_t running = bench.Ask(Long(1)), accepted = bench.Ask(Long(2));
  bench.driver().Shut("the server is shutting down", idle.callback());
  const absl::Status refusal = absl::UnavailableError("the server is shutting down");
  EXPECT_EQ(bench.Await(bench.Ask(Long(3))).status, refusal);
  EXPECT_EQ(bench.Await(running).tokens.size(), 8u);
  EXPECT_EQ(bench.Await(accepted).tokens.size(), 8u);
  EXPECT_TRUE(idle.Came());
}

TEST(TextDriver, AHeadThatStopsWhileARankLeavesAnswersThoseThatWaitToo) {
  Once held, idle;
  Bench bench;
  const size_t running = bench.Ask(Long(1));
  bench.driver().Hold(held.callback());
  const size_t waiting = bench.Ask(Long(2));
  bench.driver().Shut("the server is shutting down", idle.callback());
  EXPECT_EQ(bench.Await(running).tokens.size(), 8u);
  EXPECT_EQ(bench.Await(waiting).tokens.size(), 8u);
  EXPECT_TRUE(held.Came());
  EXPECT_TRUE(idle.Came());
}

TEST(TextDriver, WhoWaitsForAnEpochIsRefusedWhenTheHeadStopsWithoutOne) {
  Once held, idle;
  Bench bench;
  bench.driver().Hold(held.callback());
  EXPECT_TRUE(held.Came()) << "nothing ran";
  bench.driver().EpochClosed(absl::UnavailableError("rank 1 leaves"));
  const size_t waiting = bench.Ask(Long(1));
  bench.driver().Shut("the server is shutting down", idle.callback());
  EXPECT_EQ(bench.Await(waiting).status, absl::UnavailableError("the server is shutting down"));
  EXPECT_TRUE(idle.Came());
}

std::string WhyNot(const graph::Graph& graph, int32_t blocks = 8) {
  serve::Metrics metrics({.model = "tiny"});
  const auto driver = TextDriver::Create({.schedule = {.blocks = blocks}}, &graph, &metrics,
                                         [](const link::Frame&) {});
  EXPECT_TRUE(absl::IsInvalidArgument(driver.status()));
  return std::string(driver.status().message());
}

TEST(TextDriver, StepsHaveRoomForTheChunksThatAreAskedFor) {
  EXPECT_EQ(Bench({.chunk_tokens = 128}).driver().limits().tokens, 512);
  EXPECT_EQ(Bench({.chunk_tokens = 2048}).driver().limits().tokens, 2048 + 384);
  const graph::Graph graph = TextGraph();
  serve::Metrics metrics{{.model = "tiny"}};
  const auto driver = TextDriver::Create({.schedule = {.chunk_tokens = 65'536, .blocks = 4}},
                                         &graph, &metrics, nullptr);
  EXPECT_THAT(std::string(driver.status().message()), HasSubstr("give at most 65535"));
}

TEST(TextDriver, IsNotMadeForAGraphThatTakesNoText) {
  graph::Graph module = TextGraph();
  module.text.reset();
  EXPECT_EQ(WhyNot(module), "model tiny is no language model: it was exported as a module");
  graph::Graph without = TextGraph();
  without.inputs[1].name = "x";
  EXPECT_EQ(WhyNot(without),
            "model tiny has no input position_ids; a language model's graph needs one");
  graph::Graph fixed = TextGraph();
  fixed.values[0].shape[1] = {8, ""};
  EXPECT_EQ(
      WhyNot(fixed),
      "model tiny: input input_ids is not i64 with a dynamic last dimension; export it again");
  graph::Graph pairs = TextGraph();
  pairs.symbols["s0"].min = 2;
  EXPECT_EQ(WhyNot(pairs),
            "model tiny takes 2..65536 tokens at a time; it must take a single one and several; "
            "export it again");
  EXPECT_EQ(WhyNot(TextGraph(), 0),
            "the KV cache holds not one block of tokens; start with a larger --kv-memory");
}

}  // namespace
}  // namespace echelon::stage
