#include "runtime/serve/grpc_service.h"

#include <grpcpp/grpcpp.h>
#include <grpcpp/support/message_allocator.h>

#include <algorithm>
#include <atomic>
#include <mutex>
#include <string>
#include <utility>

#include "absl/time/clock.h"
#include "proto/inference.grpc.pb.h"
#include "runtime/serve/grpc_codec.h"
#include "runtime/serve/v2_types.h"
#include "runtime/version.h"

namespace echelon::serve {
namespace {

using inference::ModelInferRequest;
using inference::ModelInferResponse;

grpc::Status ToGrpc(const absl::Status& status) {
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()), OneLine(status.message()));
}

// Input tensors alias the request's message, and a backend may hold them after the call has ended:
// so the message is shared, not the call's own.
class InferMessages : public grpc::MessageHolder<ModelInferRequest, ModelInferResponse> {
 public:
  InferMessages() : message_(std::make_shared<ModelInferRequest>()) {
    set_request(message_.get());
    set_response(&response_);
  }
  void Release() override { delete this; }
  void FreeRequest() override { message_.reset(); }
  std::shared_ptr<ModelInferRequest> TakeRequest() { return std::move(message_); }

 private:
  std::shared_ptr<ModelInferRequest> message_;
  ModelInferResponse response_;
};

class InferAllocator : public grpc::MessageAllocator<ModelInferRequest, ModelInferResponse> {
 public:
  grpc::MessageHolder<ModelInferRequest, ModelInferResponse>* AllocateMessages() override {
    return new InferMessages;
  }
};

// One ModelInfer call. gRPC deletes it (OnDone) after Finish, which is called exactly once, so
// `this` is valid in the backend's callback.
class InferCall : public grpc::ServerUnaryReactor {
 public:
  InferCall(Backend* backend, ModelInferResponse* response, RequestLog log)
      : backend_(backend), response_(response), log_(std::move(log)) {}

  void Run(std::shared_ptr<ModelInferRequest> message, absl::Time deadline,
           absl::Duration max_request_time) {
    const ModelInfo& model = backend_->model();
    auto status = CheckModel(model, message->model_name(), message->model_version());
    if (!status.ok()) return End(status);
    auto timeout = DecodeTimeout(*message);
    if (!timeout.ok()) return End(timeout.status());
    auto request = DecodeRequest(std::move(message));
    if (!request.ok()) return End(request.status());
    status = CheckOutputs(model, request->outputs);
    if (!status.ok()) return End(status);
    request->deadline = std::min({deadline, start_ + *timeout, start_ + max_request_time});
    request->cancelled = cancelled_;
    id_ = request->id;
    backend_->Infer(*std::move(request), [this](absl::StatusOr<InferResult> result) {
      if (!result.ok()) return End(result.status());
      End(EncodeResponse(backend_->model(), id_, result->outputs, response_));
    });
  }

  void OnCancel() override { cancelled_->store(true); }
  void OnDone() override { delete this; }

 private:
  void End(const absl::Status& status) {
    if (log_) log_(status, absl::ToDoubleSeconds(absl::Now() - start_));
    Finish(ToGrpc(status));
  }

  Backend* const backend_;
  ModelInferResponse* const response_;
  const RequestLog log_;
  const absl::Time start_ = absl::Now();
  const std::shared_ptr<std::atomic<bool>> cancelled_ = std::make_shared<std::atomic<bool>>(false);
  std::string id_;
};

class InferenceService : public inference::GRPCInferenceService::CallbackService {
 public:
  InferenceService(Backend* backend, absl::Duration max_request_time, RequestLog log)
      : backend_(backend), max_request_time_(max_request_time), log_(std::move(log)) {
    SetMessageAllocatorFor_ModelInfer(&allocator_);
  }

  grpc::ServerUnaryReactor* ServerLive(grpc::CallbackServerContext* context,
                                       const inference::ServerLiveRequest*,
                                       inference::ServerLiveResponse* response) override {
    response->set_live(true);
    return Answer(context, absl::OkStatus());
  }

  grpc::ServerUnaryReactor* ServerReady(grpc::CallbackServerContext* context,
                                        const inference::ServerReadyRequest*,
                                        inference::ServerReadyResponse* response) override {
    response->set_ready(backend_->Ready().ok());
    return Answer(context, absl::OkStatus());
  }

  grpc::ServerUnaryReactor* ModelReady(grpc::CallbackServerContext* context,
                                       const inference::ModelReadyRequest* request,
                                       inference::ModelReadyResponse* response) override {
    const absl::Status status = Check(request->name(), request->version());
    if (status.ok()) response->set_ready(backend_->Ready().ok());
    return Answer(context, status);
  }

  grpc::ServerUnaryReactor* ServerMetadata(grpc::CallbackServerContext* context,
                                           const inference::ServerMetadataRequest*,
                                           inference::ServerMetadataResponse* response) override {
    response->set_name(std::string(kServerName));
    response->set_version(kVersion);
    response->add_extensions("binary_tensor_data");
    response->add_extensions("model_configuration");
    return Answer(context, absl::OkStatus());
  }

  grpc::ServerUnaryReactor* ModelMetadata(grpc::CallbackServerContext* context,
                                          const inference::ModelMetadataRequest* request,
                                          inference::ModelMetadataResponse* response) override {
    const absl::Status status = Check(request->name(), request->version());
    if (status.ok()) EncodeMetadata(backend_->model(), response);
    return Answer(context, status);
  }

  grpc::ServerUnaryReactor* ModelConfig(grpc::CallbackServerContext* context,
                                        const inference::ModelConfigRequest* request,
                                        inference::ModelConfigResponse* response) override {
    const absl::Status status = Check(request->name(), request->version());
    if (status.ok()) EncodeConfig(backend_->model(), response->mutable_config());
    return Answer(context, status);
  }

  grpc::ServerUnaryReactor* RepositoryIndex(grpc::CallbackServerContext* context,
                                            const inference::RepositoryIndexRequest* request,
                                            inference::RepositoryIndexResponse* response) override {
    const absl::Status ready = backend_->Ready();
    if (ready.ok() || !request->ready()) {
      auto* model = response->add_models();
      model->set_name(backend_->model().name);
      model->set_version(backend_->model().version);
      model->set_state(ready.ok() ? "READY" : "UNAVAILABLE");
      model->set_reason(OneLine(ready.message()));
    }
    return Answer(context, absl::OkStatus());
  }

  grpc::ServerUnaryReactor* ModelInfer(grpc::CallbackServerContext* context,
                                       const ModelInferRequest*,
                                       ModelInferResponse* response) override {
    auto* messages = static_cast<InferMessages*>(context->GetRpcAllocatorState());
    auto* call = new InferCall(backend_, response, log_);
    call->Run(messages->TakeRequest(), absl::FromChrono(context->deadline()), max_request_time_);
    return call;
  }

 private:
  absl::Status Check(const std::string& name, const std::string& version) const {
    return CheckModel(backend_->model(), name.empty() ? backend_->model().name : name, version);
  }

  static grpc::ServerUnaryReactor* Answer(grpc::CallbackServerContext* context,
                                          const absl::Status& status) {
    grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
    reactor->Finish(ToGrpc(status));
    return reactor;
  }

  Backend* const backend_;
  const absl::Duration max_request_time_;
  const RequestLog log_;
  InferAllocator allocator_;
};

class AbsentService : public grpc::CallbackGenericService {
 public:
  explicit AbsentService(const std::string& why) : why_(why) {}

  grpc::ServerGenericBidiReactor* CreateReactor(
      grpc::GenericCallbackServerContext* context) override {
    class Refusal : public grpc::ServerGenericBidiReactor {
     public:
      explicit Refusal(const grpc::Status& status) { Finish(status); }
      void OnDone() override { delete this; }
    };
    const bool is_v2 = context->method().starts_with("/inference.GRPCInferenceService/");
    return new Refusal(is_v2
                           ? grpc::Status(grpc::StatusCode::FAILED_PRECONDITION, why_)
                           : grpc::Status(grpc::StatusCode::UNIMPLEMENTED, "no such method here"));
  }

 private:
  const std::string why_;
};

}  // namespace

std::unique_ptr<grpc::CallbackGenericService> MakeAbsentService(const std::string& why) {
  return std::make_unique<AbsentService>(why);
}

std::unique_ptr<grpc::Service> MakeInferenceService(Backend* backend,
                                                    absl::Duration max_request_time,
                                                    RequestLog log) {
  return std::make_unique<InferenceService>(backend, max_request_time, std::move(log));
}

}  // namespace echelon::serve
