// A backend that answers each input NAME as output out_NAME: at once, when released, or with an
// error.
#ifndef ECHELON_TESTS_SERVE_FAKE_BACKEND_H_
#define ECHELON_TESTS_SERVE_FAKE_BACKEND_H_

#include <algorithm>
#include <atomic>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "runtime/serve/backend.h"
#include "runtime/sync/mutex.h"

namespace echelon::serve {

class FakeBackend : public Backend {
 public:
  explicit FakeBackend(std::vector<TensorSpec> inputs = {{"x", DType::kF32, {-1, 4}}}) {
    model_.name = "echo";
    for (const TensorSpec& input : inputs)
      model_.outputs.push_back({absl::StrCat("out_", input.name), input.dtype, input.shape});
    model_.inputs = std::move(inputs);
  }

  const ModelInfo& model() const override { return model_; }

  absl::Status Ready() const override {
    MutexLock lock(&mutex_);
    return ready_;
  }

  void Infer(InferRequest request, InferDone done) override {
    absl::Status failure;
    {
      MutexLock lock(&mutex_);
      ++requests_;
      deadline_ = request.deadline;
      cancelled_ = request.cancelled;
      if (hold_) {
        held_.emplace_back(std::move(request), std::move(done));
        return;
      }
      failure = failure_;
    }
    if (!failure.ok()) return done(failure);
    done(Echo(request));
  }

  void SetReady(absl::Status ready) {
    MutexLock lock(&mutex_);
    ready_ = std::move(ready);
  }
  void FailWith(absl::Status status) {
    MutexLock lock(&mutex_);
    failure_ = std::move(status);
  }
  void Hold() {
    MutexLock lock(&mutex_);
    hold_ = true;
  }
  // Answers what is held, and holds no more.
  void Release() {
    std::vector<std::pair<InferRequest, InferDone>> held;
    {
      MutexLock lock(&mutex_);
      hold_ = false;
      held.swap(held_);
    }
    for (auto& [request, done] : held) done(Echo(request));
  }

  bool WaitForHeld(size_t count) {
    const auto reached = [&]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return held_.size() >= count; };
    MutexLock lock(&mutex_);
    return mutex_.AwaitUntil(reached, SteadyNow() + absl::Seconds(10));
  }
  // Whether the last request's client has gone, waiting up to 10 s for it.
  bool WaitForCancelled() {
    const absl::Time deadline = absl::Now() + absl::Seconds(10);
    const auto never = [] { return false; };
    while (absl::Now() < deadline) {
      MutexLock lock(&mutex_);
      if (cancelled_ && cancelled_->load()) return true;
      mutex_.AwaitUntil(never, SteadyNow() + absl::Milliseconds(2));
    }
    return false;
  }
  absl::Time deadline() const {
    MutexLock lock(&mutex_);
    return deadline_;
  }
  int requests() const {
    MutexLock lock(&mutex_);
    return requests_;
  }

 private:
  static InferResult Echo(const InferRequest& request) {
    InferResult result;
    for (const auto& [name, tensor] : request.inputs) {
      const std::string output = absl::StrCat("out_", name);
      const auto& wanted = request.outputs;
      if (wanted.empty() || std::find(wanted.begin(), wanted.end(), output) != wanted.end())
        result.outputs.push_back({output, tensor});
    }
    return result;
  }

  ModelInfo model_;
  mutable Mutex mutex_;
  absl::Status ready_ ABSL_GUARDED_BY(mutex_);
  absl::Status failure_ ABSL_GUARDED_BY(mutex_);
  bool hold_ ABSL_GUARDED_BY(mutex_) = false;
  int requests_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::Time deadline_ ABSL_GUARDED_BY(mutex_);
  std::shared_ptr<std::atomic<bool>> cancelled_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::pair<InferRequest, InferDone>> held_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace echelon::serve

#endif  // ECHELON_TESTS_SERVE_FAKE_BACKEND_H_
