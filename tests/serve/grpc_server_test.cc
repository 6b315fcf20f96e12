#include "runtime/serve/grpc_server.h"

#include <gmock/gmock.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>

#include <cstring>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "proto/inference.grpc.pb.h"
#include "runtime/serve/grpc_codec.h"
#include "runtime/serve/text_only.h"
#include "tests/serve/fake_backend.h"
#include "tests/serve/fake_text_backend.h"
#include "tests/serve/raw_client.h"

namespace echelon::serve {
namespace {

using inference::GRPCInferenceService;
using testing::ElementsAre;
using testing::HasSubstr;

class GrpcServerTest : public testing::Test {
 protected:
  GrpcServerTest() { Start({.backend = &backend_, .model = "echo"}); }
  ~GrpcServerTest() override { backend_.Release(); }

  void Start(GrpcServerOptions options) {
    options.host = "127.0.0.1";
    options.port = 0;
    auto server = GrpcServer::Start(std::move(options));
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    channel_ = grpc::CreateChannel(absl::StrCat("127.0.0.1:", server_->port()),
                                   grpc::InsecureChannelCredentials());
    stub_ = GRPCInferenceService::NewStub(channel_);
  }

  static inference::ModelInferRequest FourFloats() {
    inference::ModelInferRequest request;
    request.set_model_name("echo");
    request.set_id("7");
    auto* input = request.add_inputs();
    input->set_name("x");
    input->set_datatype("FP32");
    input->add_shape(1);
    input->add_shape(4);
    for (const float value : {1.f, 2.f, 3.f, 4.5f})
      input->mutable_contents()->add_fp32_contents(value);
    return request;
  }

  grpc::Status Infer(const inference::ModelInferRequest& request,
                     inference::ModelInferResponse* response = nullptr) {
    inference::ModelInferResponse ignored;
    grpc::ClientContext context;
    return stub_->ModelInfer(&context, request, response ? response : &ignored);
  }

  FakeBackend backend_;
  std::unique_ptr<GrpcServer> server_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<GRPCInferenceService::Stub> stub_;
};

TEST_F(GrpcServerTest, AnswersTypedContentsWithRawOnes) {
  inference::ModelInferResponse response;
  const grpc::Status status = Infer(FourFloats(), &response);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(response.id(), "7");
  EXPECT_EQ(response.outputs(0).name(), "out_x");
  float values[4];
  ASSERT_EQ(response.raw_output_contents(0).size(), sizeof(values));
  std::memcpy(values, response.raw_output_contents(0).data(), sizeof(values));
  EXPECT_THAT(values, ElementsAre(1, 2, 3, 4.5));
}

TEST_F(GrpcServerTest, TakesRawContentsOfEveryType) {
  for (const DType dtype : {DType::kBool, DType::kI8, DType::kI64, DType::kF16, DType::kBF16,
                            DType::kF64, DType::kU32, DType::kF8E4M3}) {
    Tensor tensor = Tensor::Empty(dtype, {2, 3});
    std::memset(tensor.data, 1, tensor.nbytes);
    inference::ModelInferRequest request;
    request.set_model_name("echo");
    EncodeInput({"x", tensor}, &request);
    inference::ModelInferResponse response;
    ASSERT_TRUE(Infer(request, &response).ok());
    const auto outputs = DecodeResponse(response);
    ASSERT_TRUE(outputs.ok()) << outputs.status();
    EXPECT_EQ((*outputs)[0].tensor.dtype, dtype);
    EXPECT_EQ(std::memcmp((*outputs)[0].tensor.data, tensor.data, tensor.nbytes), 0);
  }
}

TEST_F(GrpcServerTest, NamesTheInputThatDoesNotFit) {
  const auto error = [&](const std::function<void(inference::ModelInferRequest&)>& change) {
    inference::ModelInferRequest request = FourFloats();
    change(request);
    const grpc::Status status = Infer(request);
    EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
    return status.error_message();
  };
  EXPECT_EQ(error([](auto& r) { r.mutable_inputs(0)->set_shape(1, 5); }),
            "tensor 'x' of shape 1x5 needs 5 elements, got 4");
  EXPECT_EQ(error([](auto& r) { r.mutable_inputs(0)->set_shape(0, -1); }),
            "input 'x' has an impossible shape -1x4");
  EXPECT_THAT(error([](auto& r) { r.mutable_inputs(0)->set_datatype("FP31"); }),
              HasSubstr("input 'x' has unknown datatype 'FP31'"));
  EXPECT_THAT(error([](auto& r) { r.mutable_inputs(0)->set_datatype("BYTES"); }),
              HasSubstr("input 'x' has datatype BYTES"));
  EXPECT_THAT(error([](auto& r) { r.mutable_inputs(0)->set_datatype("FP16"); }),
              HasSubstr("must come as raw contents"));
  EXPECT_EQ(error([](auto& r) {
              r.mutable_inputs(0)->clear_contents();
              r.add_raw_input_contents("123");
            }),
            "tensor 'x' of shape 1x4 needs 16 bytes, got 3");
  EXPECT_THAT(error([](auto& r) { r.add_raw_input_contents("0123456789abcdef"); }),
              HasSubstr("typed contents though"));
  EXPECT_THAT(error([](auto& r) { r.add_outputs()->set_name("y"); }),
              HasSubstr("no output 'y'; its outputs are 'out_x'"));
  EXPECT_EQ(error([](auto& r) {
              auto* output = r.add_outputs();
              output->set_name("out_x");
              (*output->mutable_parameters())["classification"].set_int64_param(3);
            }),
            "tensor 'out_x' asks for classification, which this server does not offer");
  EXPECT_THAT(error([](auto& r) {
                auto* x = r.mutable_inputs(0);
                x->set_datatype("INT8");
                x->clear_contents();
                for (int i = 0; i < 4; ++i) x->mutable_contents()->add_int_contents(200);
              }),
              HasSubstr("tensor 'x' holds 200, which does not fit INT8"));
}

// gRPC ends the process where a message is larger than protobuf can count.
TEST(EncodeResponse, RefusesAnswersThatNoMessageHolds) {
  std::vector<NamedTensor> outputs(2, {"y", Tensor{.shape = {1 << 28}, .nbytes = 1u << 30}});
  inference::ModelInferResponse response;
  const absl::Status status = EncodeResponse({.name = "net"}, "", outputs, &response);
  EXPECT_EQ(status.code(), absl::StatusCode::kOutOfRange);
  EXPECT_THAT(status.message(), HasSubstr("the answer has 2147483648 bytes"));
  EXPECT_EQ(response.outputs_size(), 0);
}

TEST_F(GrpcServerTest, NamesTheModelServedWhenAnotherIsAskedFor) {
  inference::ModelInferRequest request = FourFloats();
  request.set_model_name("other");
  const grpc::Status status = Infer(request);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(status.error_message(), "model 'other' is not here; this server serves 'echo'");
}

TEST_F(GrpcServerTest, KeepsTheCodeAndTheLineOfEachFailure) {
  for (const absl::Status& failure :
       {absl::ResourceExhaustedError("full"), absl::UnavailableError("stage 1 was lost"),
        absl::InternalError("node 3"), absl::DeadlineExceededError("late")}) {
    backend_.FailWith(failure);
    const grpc::Status status = Infer(FourFloats());
    EXPECT_EQ(static_cast<int>(status.error_code()), static_cast<int>(failure.code()));
    EXPECT_EQ(status.error_message(), failure.message());
  }
}

TEST_F(GrpcServerTest, DescribesTheModelAndItsReadiness) {
  inference::ModelMetadataResponse metadata;
  {
    grpc::ClientContext context;  // no name: the one served
    ASSERT_TRUE(stub_->ModelMetadata(&context, {}, &metadata).ok());
  }
  EXPECT_EQ(metadata.name(), "echo");
  EXPECT_THAT(metadata.inputs(0).shape(), ElementsAre(-1, 4));
  backend_.SetReady(absl::UnavailableError("waiting for rank 1"));
  inference::ServerReadyResponse ready;
  inference::ServerLiveResponse live;
  inference::RepositoryIndexResponse index;
  grpc::ClientContext ready_context, live_context, index_context;
  ASSERT_TRUE(stub_->ServerReady(&ready_context, {}, &ready).ok());
  ASSERT_TRUE(stub_->ServerLive(&live_context, {}, &live).ok());
  ASSERT_TRUE(stub_->RepositoryIndex(&index_context, {}, &index).ok());
  EXPECT_FALSE(ready.ready());
  EXPECT_TRUE(live.live());
  EXPECT_EQ(index.models(0).reason(), "waiting for rank 1");
}

TEST_F(GrpcServerTest, PassesTheDeadlineOn) {
  grpc::ClientContext context;
  const absl::Time deadline = absl::Now() + absl::Seconds(30);
  context.set_deadline(absl::ToChronoTime(deadline));
  inference::ModelInferResponse response;
  ASSERT_TRUE(stub_->ModelInfer(&context, FourFloats(), &response).ok());
  EXPECT_LT(absl::AbsDuration(backend_.deadline() - deadline), absl::Seconds(1));
}

TEST_F(GrpcServerTest, CancelsWhenTheClientGoes) {
  backend_.Hold();
  grpc::ClientContext context;
  std::thread call([&] {
    inference::ModelInferResponse response;
    EXPECT_EQ(stub_->ModelInfer(&context, FourFloats(), &response).error_code(),
              grpc::StatusCode::CANCELLED);
  });
  ASSERT_TRUE(backend_.WaitForHeld(1));
  context.TryCancel();
  EXPECT_TRUE(backend_.WaitForCancelled());
  call.join();
}

TEST_F(GrpcServerTest, RefusesMessagesPastTheLimit) {
  Start({.backend = &backend_, .max_message_bytes = 1000});
  inference::ModelInferRequest request;
  EncodeInput({"x", Tensor::Empty(DType::kU8, {2000})}, &request);
  EXPECT_EQ(Infer(request).error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
}

TEST_F(GrpcServerTest, AnswersWhatIsInFlightBeforeItStops) {
  backend_.Hold();
  grpc::Status status;
  std::thread call([&] { status = Infer(FourFloats()); });
  ASSERT_TRUE(backend_.WaitForHeld(1));
  std::thread stop([&] { server_->Stop(absl::Now() + absl::Seconds(10)); });
  backend_.Release();
  call.join();
  stop.join();
  EXPECT_TRUE(status.ok()) << status.error_message();
}

TEST_F(GrpcServerTest, AStopThatWaitsEndsWhenItsCallsAreCancelled) {
  backend_.Hold();
  grpc::Status status;
  absl::Notification called;
  std::thread call([&] {
    status = Infer(FourFloats());
    called.Notify();
  });
  ASSERT_TRUE(backend_.WaitForHeld(1));
  std::thread stop([&] { server_->Stop(absl::Now() + absl::Hours(1)); });
  // Again until the stop has begun; without a pause gRPC's queue would grow faster than it is run.
  do {
    server_->CancelCalls();
  } while (!called.WaitForNotificationWithTimeout(absl::Milliseconds(10)));
  call.join();
  EXPECT_FALSE(status.ok());
  backend_.Release();
  stop.join();
}

// The health protocol's one message, as its bytes: field 1, an enum (1: serving, 2: not).
std::string Health(const std::shared_ptr<grpc::Channel>& channel, const std::string& service) {
  const std::string bytes =
      service.empty() ? "" : absl::StrCat("\x0a", std::string(1, service.size()), service);
  const grpc::Slice slice(bytes);
  const grpc::ByteBuffer request(&slice, 1);
  grpc::ByteBuffer response;
  grpc::ClientContext context;
  grpc::Status status;
  absl::Notification answered;
  grpc::GenericStub stub(channel);
  stub.UnaryCall(&context, "/grpc.health.v1.Health/Check", {}, &request, &response,
                 [&](grpc::Status result) {
                   status = std::move(result);
                   answered.Notify();
                 });
  answered.WaitForNotification();
  if (!status.ok()) return status.error_message();
  grpc::Slice whole;
  if (!response.DumpToSingleSlice(&whole).ok()) return "no answer";
  return std::string(reinterpret_cast<const char*>(whole.begin()), whole.size());
}

TEST_F(GrpcServerTest, TellsItsHealthUnderBothNames) {
  EXPECT_EQ(Health(channel_, ""), "\x08\x02");
  server_->SetServing(true);
  EXPECT_EQ(Health(channel_, ""), "\x08\x01");
  EXPECT_EQ(Health(channel_, "echo"), "\x08\x01");
  server_->SetServing(false);
  EXPECT_EQ(Health(channel_, "echo"), "\x08\x02");
  server_->SetServing(true);
  server_->Drain();
  EXPECT_EQ(Health(channel_, ""), "\x08\x02");
}

TEST_F(GrpcServerTest, SaysThatThePortIsTaken) {
  const auto second = GrpcServer::Start({.host = "127.0.0.1", .port = server_->port()});
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(second.status().message(),
            absl::StrCat("port ", server_->port(),
                         " is taken; choose another with --grpc-port (0: any)"));
}

TEST_F(GrpcServerTest, OutlivesGarbageOnItsPort) {
  for (const std::string& garbage :
       {std::string("GET / HTTP/1.1\r\n\r\n"), std::string(100000, '\xff'),
        std::string("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff")}) {
    RawClient client(server_->port());
    client.Send(garbage);
    EXPECT_TRUE(client.WaitForClose());
  }
  EXPECT_TRUE(Infer(FourFloats()).ok());
}

TEST_F(GrpcServerTest, SaysThatALanguageModelIsReadyAndWhichDoorItsTextsComeThrough) {
  FakeTextBackend text({.name = "echo"});
  TextOnly text_only(&text);
  Start({.backend = &text_only});
  const auto is_ready = [&] {
    grpc::ClientContext context;
    inference::ServerReadyResponse response;
    EXPECT_TRUE(stub_->ServerReady(&context, {}, &response).ok());
    return response.ready();
  };
  EXPECT_TRUE(is_ready());
  text.SetReady(absl::UnavailableError("waiting for rank 1"));
  EXPECT_FALSE(is_ready());
  const grpc::Status refused = Infer(FourFloats());
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_THAT(refused.error_message(), HasSubstr("echo is a language model; its texts come over"));
}

TEST_F(GrpcServerTest, SaysOnWorkersWhereRequestsGo) {
  Start({.no_backend = "this is rank 1 of 2; ask rank 0 at head"});
  const grpc::Status refused = Infer(FourFloats());
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_EQ(refused.error_message(), "this is rank 1 of 2; ask rank 0 at head");
  EXPECT_EQ(Health(channel_, ""), "\x08\x02");
}

}  // namespace
}  // namespace echelon::serve
