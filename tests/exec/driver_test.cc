// Requests through the driver and a rank in a group of one: micro-batches, order, what cannot be
// split.
#include "runtime/stage/driver.h"

#include <gtest/gtest.h>

#include <cstdio>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "runtime/stage/model.h"
#include "runtime/stage/rank.h"
#include "tests/exec/oracle.h"

namespace echelon::oracle {
namespace {

constexpr absl::Duration kDeadline = absl::Seconds(60);

class Server {
 public:
  Server(const stage::Model& model, int chunks)
      : metrics_({.model = "test"}),
        rank_({.threads = 1, .exact = true}, &model.graph, nullptr, &metrics_,
              {.result = [this](link::Frame frame) { driver_.OnResult(std::move(frame)); }}),
        driver_({.name = "test", .chunks = chunks}, &model.graph, model.batch, &metrics_,
                [this](link::Frame frame) { rank_.Submit(std::move(frame)); }),
        model_(model) {}

  ~Server() { rank_.CloseEpoch(1, absl::CancelledError("the test ends")); }

  absl::Status Start() {
    const auto plan = plan::MakePlan(model_.graph, model_.schemas, {});
    if (!plan.ok()) return plan.status();
    absl::Status status = rank_.Load(plan::ToJson(*plan, model_.graph), nullptr);
    if (status.ok()) status = rank_.OpenEpoch({.number = 1}, kDeadline);
    if (!status.ok()) return status;
    rank_.EpochFormed(1);
    driver_.EpochFormed(1);
    return absl::OkStatus();
  }

  stage::Driver& driver() { return driver_; }

 private:
  serve::Metrics metrics_;
  stage::Rank rank_;
  stage::Driver driver_;
  const stage::Model& model_;
};

serve::InferRequest Request(const graph::Graph& graph, const Tensors& inputs) {
  serve::InferRequest request;
  for (const graph::Input& input : graph.inputs)
    for (const auto& value : Feed(graph, inputs).tensors)  // copies
      if (value.value == static_cast<uint32_t>(input.value))
        request.inputs.push_back({input.name, value.tensor});
  for (const graph::Input& input : graph.inputs)
    if (graph.values[input.value].type != graph::ValueType::kTensor)
      request.inputs.push_back({input.name, inputs.at(input.name)});
  return request;
}

// All runs of a case at once; answers must come in the order of the requests. "" or what went
// wrong.
std::string CheckRequests(const Case& item, const stage::Model& model, int chunks, bool exact) {
  Server server(model, chunks);
  const absl::Status started = server.Start();
  if (!started.ok()) return started.ToString();
  absl::Mutex mutex;
  std::vector<size_t> order;
  std::vector<std::string> wrong(item.runs.size());
  for (size_t k = 0; k < item.runs.size(); ++k)
    server.driver().Infer(Request(model.graph, item.runs[k].inputs),
                          [&, k](absl::StatusOr<serve::InferResult> result) {
                            Tensors got;
                            if (result.ok())
                              for (const NamedTensor& output : result->outputs)
                                got[output.name] = output.tensor;
                            const absl::MutexLock lock(&mutex);
                            wrong[k] = result.ok() ? Difference(item.runs[k].outputs, got, exact,
                                                                item.tolerance)
                                                   : result.status().ToString();
                            order.push_back(k);
                          });
  const absl::MutexLock lock(&mutex);
  const auto all = [&] { return order.size() == item.runs.size(); };
  if (!mutex.AwaitWithTimeout(absl::Condition(&all), kDeadline))
    return "not all requests were answered";
  for (size_t k = 0; k < wrong.size(); ++k) {
    if (!wrong[k].empty()) return absl::StrCat("run ", k, ": ", wrong[k]);
    if (order[k] != k) return absl::StrCat("answer ", k, " was to request ", order[k]);
  }
  return "";
}

TEST(Driver, SplitsBatchesWithoutChangingAnswers) {
  int split = 0, known = 0;
  for (const Case& item : Cases()) {
    SCOPED_TRACE(item.name);
    const auto model = stage::OpenModel(item.model);
    EXPECT_TRUE(model.ok()) << model.status();
    if (!model.ok()) continue;
    known += item.chunkable;
    split += item.chunkable && model->batch.chunkable;
    if (item.chunkable) {
      EXPECT_TRUE(model->batch.chunkable) << model->batch.why;
    }
    if (item.stateful) {
      EXPECT_FALSE(model->batch.chunkable);
    }
    EXPECT_EQ(CheckRequests(item, *model, 1, item.exact), "") << "whole";
    for (const int chunks : {2, 3, 7}) {
      if (!model->batch.chunkable && chunks != 3)
        continue;  // goes as a whole whatever is asked for
      EXPECT_EQ(CheckRequests(item, *model, chunks, item.exact && !model->batch.chunkable), "")
          << chunks << " chunks";
    }
  }
  std::printf("%d of %d models whose rows are independent were split\n", split, known);
}

}  // namespace
}  // namespace echelon::oracle
