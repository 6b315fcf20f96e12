#include "runtime/serve/text_service.h"

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <atomic>
#include <optional>
#include <string>
#include <utility>

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

// One Generate call. Tokens come on the backend's thread, gRPC's reactions on its own: what is to
// be written gathers in waiting_ while a write is under way. Both sides own the call: gRPC until
// OnDone, the backend until its last token.
class GenerateCall : public grpc::ServerWriteReactor<v1::GenerateResponse>,
                     public std::enable_shared_from_this<GenerateCall> {
 public:
  GenerateCall(const TextServiceOptions& options, absl::Time deadline)
      : log_(options.log),
        max_waiting_bytes_(options.max_waiting_bytes),
        rpc_deadline_(deadline),
        deadline_(std::min(deadline, start_ + options.max_request_time)) {}

  void Run(TextBackend* backend, const TextFiles& files, const v1::GenerateRequest& message) {
    self_ = shared_from_this();
    absl::StatusOr<TokenRequest> request = ReadTextRequest(message, backend->model(), files);
    if (!request.ok()) return End(request.status());
    request->deadline = deadline_;
    request->cancelled = cancelled_;
    {
      const MutexLock lock(&mutex_);
      session_.emplace(files.tokenizer, message, *request);
    }
    backend->Generate(*std::move(request), [call = self_](absl::StatusOr<TokenEvent> event) {
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

  void OnDone() override { self_.reset(); }

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

  // Writes what waits, or finishes once nothing does. gRPC is called without the lock, which its
  // reactions take.
  void Proceed() {
    std::optional<absl::Status> end;
    {
      const MutexLock lock(&mutex_);
      if (is_writing_ || is_finished_) return;
      if (has_waiting_) {
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

  const RequestLog log_;
  const size_t max_waiting_bytes_;
  const absl::Time start_ = absl::Now();
  const absl::Time rpc_deadline_, deadline_;
  const std::shared_ptr<std::atomic<bool>> cancelled_ = std::make_shared<std::atomic<bool>>(false);
  std::shared_ptr<GenerateCall>
      self_;                      // gRPC's share; the reactor's first and last reaction use it
  v1::GenerateResponse written_;  // gRPC's while is_writing_

  Mutex mutex_;
  std::optional<TextSession> session_ ABSL_GUARDED_BY(mutex_);
  v1::GenerateResponse waiting_ ABSL_GUARDED_BY(mutex_);
  size_t waiting_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  std::optional<absl::Status> end_ ABSL_GUARDED_BY(mutex_);
  bool has_waiting_ ABSL_GUARDED_BY(mutex_) = false;
  bool is_writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool is_finished_ ABSL_GUARDED_BY(mutex_) = false;
};

class TextService : public v1::Text::CallbackService {
 public:
  TextService(TextBackend* backend, TextFiles files, TextServiceOptions options)
      : backend_(backend), files_(std::move(files)), options_(std::move(options)) {}

  grpc::ServerWriteReactor<v1::GenerateResponse>* Generate(
      grpc::CallbackServerContext* context, const v1::GenerateRequest* request) override {
    const auto call =
        std::make_shared<GenerateCall>(options_, absl::FromChrono(context->deadline()));
    call->Run(backend_, files_, *request);
    return call.get();
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
};

}  // namespace

std::unique_ptr<grpc::Service> MakeTextService(TextBackend* backend, TextFiles files,
                                               TextServiceOptions options) {
  return std::make_unique<TextService>(backend, std::move(files), std::move(options));
}

}  // namespace echelon::serve
