// A text backend that draws what it is told to: a list of tokens, from a thread of its own.
#ifndef ECHELON_TESTS_SERVE_FAKE_TEXT_BACKEND_H_
#define ECHELON_TESTS_SERVE_FAKE_TEXT_BACKEND_H_

#include <algorithm>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/time/clock.h"
#include "runtime/serve/text_backend.h"
#include "runtime/sync/mutex.h"

namespace echelon::serve {

class FakeTextBackend : public TextBackend {
 public:
  explicit FakeTextBackend(TextModelInfo model) : model_(std::move(model)) {}
  ~FakeTextBackend() override { Stop(); }

  const TextModelInfo& model() const override { return model_; }
  absl::Status Ready() const override {
    MutexLock lock(&mutex_);
    return ready_;
  }

  void Generate(TokenRequest request, OnToken on_token) override {
    MutexLock lock(&mutex_);
    requests_.push_back(request);
    mutex_.Await([&]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return !is_blocked_; });
    threads_.emplace_back([this, script = script_, failure = failure_, forever = forever_,
                           request = std::move(request), on_token = std::move(on_token)] {
      Play(script, failure, forever, request, on_token);
    });
  }

  // What every request from now on draws; then it fails with `failure`, or has reached its length.
  void Draw(std::vector<int32_t> tokens, absl::Status failure = absl::OkStatus()) {
    MutexLock lock(&mutex_);
    script_ = std::move(tokens);
    failure_ = std::move(failure);
  }
  // Requests from now on draw their tokens over and over, until someone ends them.
  void DrawForever(std::vector<int32_t> tokens) {
    MutexLock lock(&mutex_);
    script_ = std::move(tokens);
    forever_ = true;
  }
  // Calls of Generate do not return until they are let go.
  void Block(bool is_blocked) {
    MutexLock lock(&mutex_);
    is_blocked_ = is_blocked;
  }
  void SetReady(absl::Status ready) {
    MutexLock lock(&mutex_);
    ready_ = std::move(ready);
  }

  std::vector<TokenRequest> requests() const {
    MutexLock lock(&mutex_);
    return requests_;
  }
  // Whether so many requests have come, waiting up to 10 s for it.
  bool WaitForRequests(size_t count) {
    const auto reached = [&]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
      return requests_.size() >= count;
    };
    MutexLock lock(&mutex_);
    return mutex_.AwaitUntil(reached, SteadyNow() + absl::Seconds(10));
  }
  // Whether so many requests have ended, waiting up to 10 s for it.
  bool WaitForEnded(int count) {
    const auto reached = [&]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return ended_ >= count; };
    MutexLock lock(&mutex_);
    return mutex_.AwaitUntil(reached, SteadyNow() + absl::Seconds(10));
  }
  // How the last request ended: true when on_token said so, false by cancellation or its own end.
  bool was_told_to_stop() const {
    MutexLock lock(&mutex_);
    return told_;
  }

  void Stop() {
    std::vector<std::thread> threads;
    {
      MutexLock lock(&mutex_);
      stopping_ = true;
      threads.swap(threads_);
    }
    for (std::thread& thread : threads) thread.join();
  }

 private:
  bool Stopping() const {
    MutexLock lock(&mutex_);
    return stopping_;
  }

  void Play(const std::vector<int32_t>& script, const absl::Status& failure, bool forever,
            const TokenRequest& request, const OnToken& on_token) {
    const bool told = !Tell(script, failure, forever, request, on_token);
    MutexLock lock(&mutex_);
    ++ended_;
    told_ = told;
  }

  // Whether it was on_token that ended it.
  bool Tell(const std::vector<int32_t>& script, const absl::Status& failure, bool forever,
            const TokenRequest& request, const OnToken& on_token) {
    const auto is_one_of = [](const std::vector<int32_t>& ids, int32_t token) {
      return std::find(ids.begin(), ids.end(), token) != ids.end();
    };
    int32_t drawn = 0;
    do {
      for (size_t i = 0; i < script.size(); ++i) {
        if (request.cancelled->load() || Stopping())
          return on_token(absl::CancelledError("cancelled")), true;
        if (absl::Now() > request.deadline)
          return on_token(absl::DeadlineExceededError("the request's time is over")), true;
        const bool is_last = !forever && failure.ok() && i + 1 == script.size();
        TokenEvent event{{.token = script[i], .logprob = -0.5F}};
        if (request.sampling.logprobs > 0) event.drawn.top = {{script[i], -0.5F}, {66, -1.5F}};
        if ((!request.ignore_eos && is_one_of(model_.eos_token_ids, script[i])) ||
            is_one_of(request.stop_token_ids, script[i]))
          event.finish = FinishReason::kStop;
        else if (++drawn == request.max_tokens || is_last)
          event.finish = FinishReason::kLength;
        const bool ends = event.finish != FinishReason::kNone;
        if (!on_token(event)) return ends;
        if (ends) return true;
      }
    } while (forever);
    if (!failure.ok()) on_token(failure);
    return true;
  }

  const TextModelInfo model_;
  mutable Mutex mutex_;
  std::vector<int32_t> script_ ABSL_GUARDED_BY(mutex_);
  absl::Status failure_ ABSL_GUARDED_BY(mutex_);
  absl::Status ready_ ABSL_GUARDED_BY(mutex_);
  bool forever_ ABSL_GUARDED_BY(mutex_) = false;
  bool is_blocked_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  bool told_ ABSL_GUARDED_BY(mutex_) = false;
  int ended_ ABSL_GUARDED_BY(mutex_) = 0;
  std::vector<TokenRequest> requests_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::thread> threads_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace echelon::serve

#endif  // ECHELON_TESTS_SERVE_FAKE_TEXT_BACKEND_H_
