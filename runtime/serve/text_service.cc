#include "runtime/serve/text_service.h"

#include <grpcpp/alarm.h>
#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <atomic>
#include <deque>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "proto/generate.grpc.pb.h"
#include "runtime/serve/text_session.h"
#include "runtime/serve/v2_types.h"
#include "runtime/sync/mutex.h"

namespace echelon::serve {
namespace {

grpc::Status ToGrpc(const absl::Status& status) {
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()), OneLine(status.message()));
}

// One Generate call. It is read on a reader's thread, tokens come on the backend's, gRPC's
// reactions on its own: what is to be written gathers in waiting_ while a write is under way. Each
// side owns the call: gRPC until OnDone, the reader until it is read, the backend until its last
// token.
class GenerateCall : public grpc::ServerWriteReactor<v1::GenerateResponse>,
                     public std::enable_shared_from_this<GenerateCall> {
 public:
  GenerateCall(const TextServiceOptions& options, grpc::CallbackServerContext* context)
      : context_(context),
        log_(options.log),
        read_grace_(options.read_grace),
        max_waiting_bytes_(options.max_waiting_bytes),
        rpc_deadline_(absl::FromChrono(context->deadline())),
        deadline_(std::min(rpc_deadline_, start_ + options.max_request_time)) {}

  // gRPC's share.
  grpc::ServerWriteReactor<v1::GenerateResponse>* Begin() {
    self_ = shared_from_this();
    return this;
  }

  // Begin, then one of Refuse and Read: until then the call is held, so that `message` stays.
  void Refuse(const absl::Status& why) {
    {
      const MutexLock lock(&mutex_);
      is_held_ = false;
    }
    End(why);
  }

  void Read(TextBackend* backend, const TextFiles& files, const v1::GenerateRequest& message) {
    if (*cancelled_) return Refuse(absl::CancelledError("the client has gone"));
    absl::StatusOr<TokenRequest> request = ReadTextRequest(message, backend->model(), files);
    if (!request.ok()) return Refuse(request.status());
    request->deadline = deadline_;
    request->cancelled = cancelled_;
    {
      const MutexLock lock(&mutex_);
      session_.emplace(files.tokenizer, message, *request);
      is_held_ = false;
    }
    Proceed();  // it may have ended meanwhile
    backend->Generate(*std::move(request),
                      [call = shared_from_this()](absl::StatusOr<TokenEvent> event) {
                        return call->OnToken(std::move(event));
                      });
  }

  void OnWriteDone(bool ok) override {
    {
      const MutexLock lock(&mutex_);
      is_writing_ = false;
    }
    if (!ok) return End(absl::CancelledError("the client has gone"));
    Proceed();
  }

  // The answer ends here, not when the backend hears of it.
  void OnCancel() override {
    cancelled_->store(true);
    End(absl::Now() >= rpc_deadline_
            ? absl::DeadlineExceededError("the answer was not complete by the call's deadline")
            : absl::CancelledError("the client has cancelled"));
  }

  void OnDone() override {
    {
      const MutexLock lock(&mutex_);
      unread_.Cancel();
    }
    self_.reset();
  }

 private:
  bool OnToken(absl::StatusOr<TokenEvent> event) {
    if (!event.ok()) {
      EndAfterWaiting(event.status());
      return false;
    }
    absl::Status failed;
    bool is_done = false;
    {
      const MutexLock lock(&mutex_);
      if (end_) return false;
      absl::StatusOr<v1::GenerateResponse> response = session_->Append(*event);
      failed = response.status();
      if (response.ok()) {
        waiting_bytes_ += response->ByteSizeLong();  // of the joined one: no more than that
        Join(*std::move(response), &waiting_);
        has_waiting_ = true;
        is_done = session_->done();
        if (is_done) end_ = absl::OkStatus();
        if (waiting_bytes_ > max_waiting_bytes_)
          failed = absl::ResourceExhaustedError(
              absl::StrCat("the answer is not being read: ", waiting_bytes_,
                           " bytes of it wait, at most ", max_waiting_bytes_, " may"));
      }
    }
    if (!failed.ok()) {
      End(failed);
      return false;
    }
    Proceed();
    return !is_done;
  }

  // The first end is the one that counts.
  void EndAfterWaiting(const absl::Status& status) {
    {
      const MutexLock lock(&mutex_);
      if (!end_) end_ = status;
    }
    Proceed();
  }

  void End(const absl::Status& status) {
    {
      const MutexLock lock(&mutex_);
      if (!end_ || !status.ok()) {
        has_waiting_ = false;
        waiting_.Clear();
      }
      // An answer that is complete but not yet taken has failed all the same.
      if (!end_ || (end_->ok() && !is_finished_)) end_ = status;
    }
    Proceed();
  }

  // Writes what waits, or finishes once nothing does; both without the lock, which gRPC's reactions
  // take.
  void Proceed() {
    std::optional<absl::Status> end;
    {
      const MutexLock lock(&mutex_);
      if (is_held_ || is_finished_) return;
      if (is_writing_) {
        if (end_ && !std::exchange(is_watched_, true)) WatchReader();
        return;
      } else if (has_waiting_) {
        written_.Swap(&waiting_);
        waiting_.Clear();
        waiting_bytes_ = 0;
        has_waiting_ = false;
        is_writing_ = true;
      } else if (end_) {
        is_finished_ = true;
        end = end_;
      } else {
        return;
      }
    }
    if (!end) return StartWrite(&written_);
    if (log_) log_(*end, absl::ToDoubleSeconds(absl::Now() - start_));
    Finish(ToGrpc(*end));
  }

  // The last write waits for a client that may never read. Alarms call from threads of their own.
  void WatchReader() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    const absl::Time until = std::max(deadline_, absl::Now()) + read_grace_;
    // The alarm is the call's and keeps its callback: the callback's share of the call ends with
    // it.
    unread_.Set(absl::ToChronoTime(until), [call = shared_from_this()](bool ok) mutable {
      const auto last_share = std::move(call);
      if (ok) last_share->GiveUp();
    });
  }

  void GiveUp() {
    {
      const MutexLock lock(&mutex_);
      if (is_finished_) return;
      is_held_ = true;
    }
    context_->TryCancel();
    {
      const MutexLock lock(&mutex_);
      is_held_ = false;
    }
    Proceed();
  }

  grpc::CallbackServerContext* const context_;
  const RequestLog log_;
  const absl::Duration read_grace_;
  const size_t max_waiting_bytes_;
  const absl::Time start_ = absl::Now();
  const absl::Time rpc_deadline_, deadline_;
  const std::shared_ptr<std::atomic<bool>> cancelled_ = std::make_shared<std::atomic<bool>>(false);
  std::shared_ptr<GenerateCall>
      self_;                      // gRPC's share; the reactor's first and last reaction use it
  v1::GenerateResponse written_;  // gRPC's while is_writing_

  Mutex mutex_;
  grpc::Alarm unread_ ABSL_GUARDED_BY(mutex_);  // set and cancelled by any thread
  std::optional<TextSession> session_ ABSL_GUARDED_BY(mutex_);
  v1::GenerateResponse waiting_ ABSL_GUARDED_BY(mutex_);
  size_t waiting_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  std::optional<absl::Status> end_ ABSL_GUARDED_BY(mutex_);
  bool has_waiting_ ABSL_GUARDED_BY(mutex_) = false;
  // Not to be finished: what is gRPC's, the message and the context, is in use.
  bool is_held_ ABSL_GUARDED_BY(mutex_) = true;
  bool is_writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool is_watched_ ABSL_GUARDED_BY(mutex_) = false;
  bool is_finished_ ABSL_GUARDED_BY(mutex_) = false;
};

// Splits prompts into tokens, away from gRPC's few threads: the group's heartbeats run on these.
class Readers {
 public:
  Readers(TextBackend* backend, const TextFiles& files, size_t max_unread)
      : backend_(backend), files_(files), max_unread_(max_unread) {
    for (int i = 0; i < kReaders; ++i) threads_.emplace_back([this] { Work(); });
  }
  // After every call has ended.
  ~Readers() {
    {
      const MutexLock lock(&mutex_);
      is_stopping_ = true;
    }
    for (std::thread& thread : threads_) thread.join();
  }

  // Whether there is room for it.
  bool Push(std::shared_ptr<GenerateCall> call, const v1::GenerateRequest* message) {
    const bool is_long =
        message->ByteSizeLong() > static_cast<size_t>(kLongBytes * backend_->model().max_model_len);
    const MutexLock lock(&mutex_);
    if (unread_.size() >= max_unread_) return false;
    unread_.push_back({std::move(call), message, is_long});
    return true;
  }

 private:
  static constexpr int kReaders = 2;
  static constexpr int64_t kLongBytes = 16;  // a token; more than text has that fits the model
  struct Unread {
    std::shared_ptr<GenerateCall> call;
    const v1::GenerateRequest* message;
    bool is_long = false;
  };

  // The oldest, but of long ones only one at a time: a reader is left for the others.
  std::deque<Unread>::iterator Next() ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
    return std::find_if(unread_.begin(), unread_.end(),
                        [&](const Unread& unread) { return !unread.is_long || !reads_long_; });
  }

  void Work() {
    const auto has_work = [&]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
      return Next() != unread_.end() || (is_stopping_ && unread_.empty());
    };
    for (;;) {
      Unread next;
      {
        const MutexLock lock(&mutex_);
        mutex_.Await(has_work);
        const auto found = Next();
        if (found == unread_.end()) return;
        next = std::move(*found);
        unread_.erase(found);
        reads_long_ = reads_long_ || next.is_long;
      }
      next.call->Read(backend_, files_, *next.message);
      const MutexLock lock(&mutex_);
      if (next.is_long) reads_long_ = false;
    }
  }

  TextBackend* const backend_;
  const TextFiles& files_;
  const size_t max_unread_;
  Mutex mutex_;
  std::deque<Unread> unread_ ABSL_GUARDED_BY(mutex_);
  bool reads_long_ ABSL_GUARDED_BY(mutex_) = false;
  bool is_stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<std::thread> threads_;
};

class TextService : public v1::Text::CallbackService {
 public:
  TextService(TextBackend* backend, TextFiles files, TextServiceOptions options)
      : backend_(backend), files_(std::move(files)), options_(std::move(options)) {}

  grpc::ServerWriteReactor<v1::GenerateResponse>* Generate(
      grpc::CallbackServerContext* context, const v1::GenerateRequest* request) override {
    const auto call = std::make_shared<GenerateCall>(options_, context);
    grpc::ServerWriteReactor<v1::GenerateResponse>* const reactor = call->Begin();
    const absl::Status size = CheckPromptSize(*request, backend_->model());
    if (!size.ok())
      call->Refuse(size);
    else if (!readers_.Push(call, request))
      call->Refuse(absl::ResourceExhaustedError(
          absl::StrCat("the queue is full: ", options_.max_unread,
                       " prompts wait to be split into tokens; try again later")));
    return reactor;
  }

  grpc::ServerUnaryReactor* Describe(grpc::CallbackServerContext* context,
                                     const v1::DescribeRequest*,
                                     v1::DescribeResponse* response) override {
    const TextModelInfo& model = backend_->model();
    const absl::Status ready = backend_->Ready();
    response->set_model(model.name);
    response->set_ready(ready.ok());
    response->set_why_not_ready(OneLine(ready.message()));
    response->set_max_model_len(model.max_model_len);
    response->set_vocab_size(model.vocab_size);
    response->set_has_chat_template(files_.chat_template != nullptr);
    response->mutable_eos_token_ids()->Add(model.eos_token_ids.begin(), model.eos_token_ids.end());
    grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
    reactor->Finish(grpc::Status::OK);
    return reactor;
  }

 private:
  TextBackend* const backend_;
  const TextFiles files_;
  const TextServiceOptions options_;
  Readers readers_{backend_, files_, options_.max_unread};
};

}  // namespace

std::unique_ptr<grpc::Service> MakeTextService(TextBackend* backend, TextFiles files,
                                               TextServiceOptions options) {
  return std::make_unique<TextService>(backend, std::move(files), std::move(options));
}

}  // namespace echelon::serve
