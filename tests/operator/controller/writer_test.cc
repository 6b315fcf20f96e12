#include "operator/controller/writer.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "tests/operator/kube/sim.h"

namespace echelon::op {
namespace {

using testing::Contains;
using testing::ElementsAre;

// Answers nothing by itself.
class PatientApi final : public Api {
 public:
  void Call(Request request, Done done) override {
    sent.push_back(request.path);
    done_.push_back(std::move(done));
  }
  std::unique_ptr<WatchStream> Watch(std::string, OnLine, OnEnd) override { return nullptr; }

  void Answer(size_t index) { std::exchange(done_.at(index), nullptr)(Response{.code = 200}); }

  std::vector<std::string> sent;

 private:
  std::vector<Done> done_;
};

class WriterTest : public testing::Test {
 protected:
  Writer Make(int in_flight) {
    return {&api, &sim, in_flight, [] { return absl::Minutes(1); }};
  }
  static void Send(Writer* writer, Lane lane, std::string path) {
    writer->Send({.method = "POST", .path = std::move(path)}, lane,
                 [](auto) -> Writer::Task { return nullptr; });
  }
  void Answer(size_t index) {
    api.Answer(index);
    sim.RunFor(absl::ZeroDuration());
  }

  Sim sim;
  PatientApi api;
};

TEST_F(WriterTest, SendsNoMoreAtOnceThanItMay) {
  Writer writer = Make(2);
  for (const char* path : {"a", "b", "c"}) Send(&writer, Lane::kObjects, path);
  EXPECT_THAT(api.sent, ElementsAre("a", "b"));
  Answer(1);
  EXPECT_THAT(api.sent, ElementsAre("a", "b", "c"));
}

TEST_F(WriterTest, WordsWaitWhileObjectsAreWrittenEvenWhereThereAreFreePlaces) {
  Writer writer = Make(8);
  for (const char* path : {"a", "b", "c"}) Send(&writer, Lane::kObjects, path);
  for (const char* path : {"word", "more", "last"}) Send(&writer, Lane::kWords, path);
  EXPECT_THAT(api.sent, ElementsAre("a", "b", "c", "word")) << "there has been none for long";
  sim.RunFor(kWordsEvery / 2);
  Send(&writer, Lane::kObjects, "d");
  EXPECT_THAT(api.sent, ElementsAre("a", "b", "c", "word", "d"));
  sim.RunFor(kWordsEvery / 2);
  EXPECT_THAT(api.sent, ElementsAre("a", "b", "c", "word", "d", "more"));
  sim.RunFor(kWordsEvery / 2);
  EXPECT_THAT(api.sent, ElementsAre("a", "b", "c", "word", "d", "more", "last"))
      << "d was the last object, though none has been answered";
}

TEST_F(WriterTest, WhereThereAreNoObjectsWordsGoAtOnce) {
  Writer writer = Make(4);
  for (const char* path : {"one", "two", "three"}) Send(&writer, Lane::kWords, path);
  EXPECT_THAT(api.sent, ElementsAre("one", "two", "three"));
}

TEST_F(WriterTest, NowAndThenAWordGoesBeforeObjects) {
  for (const int places : {1, 2}) {
    api = {};
    Writer writer = Make(places);
    for (int i = 0; i < 20; ++i) Send(&writer, Lane::kObjects, "object");
    for (int i = 0; i < 3; ++i) Send(&writer, Lane::kWords, "word");
    for (size_t answered = 0; answered < 20; ++answered) {
      sim.RunFor(kWordsEvery / 4);
      Answer(answered);
    }
    EXPECT_THAT(api.sent, Contains("word").Times(3)) << places;
    EXPECT_NE(api.sent.back(), "word") << places;
    const auto first = std::find(api.sent.begin(), api.sent.end(), "word");
    EXPECT_NE(*(first + 1), "word") << places;
  }
}

TEST_F(WriterTest, WhatIsMadeLateSaysWhatIsSoWhenItsTurnHasCome) {
  Writer writer = Make(1);
  std::string says = "old";
  Send(&writer, Lane::kObjects, "a");
  writer.SendLate([&] { return Request{.path = says}; }, Lane::kWords,
                  [](auto) -> Writer::Task { return nullptr; });
  says = "new";
  Answer(0);
  EXPECT_THAT(api.sent, ElementsAre("a", "new"));
}

TEST_F(WriterTest, AServerThatAskedForPatienceIsLeftAlone) {
  Writer writer = Make(2);
  writer.Pause(absl::Seconds(3));
  Send(&writer, Lane::kObjects, "a");
  sim.RunFor(absl::Seconds(2));
  EXPECT_THAT(api.sent, ElementsAre());
  sim.RunFor(absl::Seconds(1));
  EXPECT_THAT(api.sent, ElementsAre("a"));
}

}  // namespace
}  // namespace echelon::op
