#include "runtime/serve/text_service.h"

#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "proto/generate.grpc.pb.h"
#include "runtime/serve/grpc_server.h"
#include "tests/serve/fake_text_backend.h"
#include "tests/text/tiny.h"

namespace echelon::serve {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::vector<int32_t> Bytes(const std::string& text) {
  const std::vector<int64_t> ids = BytesOf(text, 0);
  return {ids.begin(), ids.end()};
}

struct Answer {
  std::string text;
  std::vector<int32_t> ids;
  std::vector<v1::GenerateResponse> responses;
  grpc::Status status;
};

class TextServiceTest : public testing::Test {
 protected:
  explicit TextServiceTest(int32_t max_model_len = 1 << 20)
      : backend_({.name = "tiny",
                  .vocab_size = 258,
                  .max_model_len = max_model_len,
                  .eos_token_ids = {256}}) {
    Start({});
  }
  ~TextServiceTest() override {
    server_.reset();
    backend_.Stop();
  }

  void Start(TextServiceOptions options) {
    server_.reset();
    service_ = MakeTextService(&backend_, {.tokenizer = ByteLevel()}, std::move(options));
    auto server = GrpcServer::Start({.host = "127.0.0.1", .port = 0, .services = {service_.get()}});
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    // A window that grew by itself would take in megabytes that nobody has read.
    grpc::ChannelArguments fixed_window;
    fixed_window.SetInt(GRPC_ARG_HTTP2_BDP_PROBE, 0);
    stub_ = v1::Text::NewStub(grpc::CreateCustomChannel(absl::StrCat("127.0.0.1:", server_->port()),
                                                        grpc::InsecureChannelCredentials(),
                                                        fixed_window));
  }

  Answer Generate(v1::GenerateRequest request, grpc::ClientContext* context = nullptr) {
    if (request.prompt_case() == v1::GenerateRequest::PROMPT_NOT_SET) request.set_text("hi");
    grpc::ClientContext own;
    const auto stream = stub_->Generate(context != nullptr ? context : &own, request);
    Answer answer;
    for (v1::GenerateResponse response; stream->Read(&response);) {
      answer.text += response.text();
      answer.ids.insert(answer.ids.end(), response.token_ids().begin(), response.token_ids().end());
      answer.responses.push_back(response);
    }
    answer.status = stream->Finish();
    return answer;
  }

  FakeTextBackend backend_;
  std::unique_ptr<grpc::Service> service_;
  std::unique_ptr<GrpcServer> server_;
  std::unique_ptr<v1::Text::Stub> stub_;
};

TEST_F(TextServiceTest, StreamsAnAnswerAndItsUsage) {
  backend_.Draw({'o', 'k', '!', 256});
  v1::GenerateRequest request;
  request.set_seed(5);
  const Answer answer = Generate(request);
  ASSERT_TRUE(answer.status.ok()) << answer.status.error_message();
  EXPECT_EQ(answer.text, "ok!");
  EXPECT_THAT(answer.ids, ElementsAre('o', 'k', '!', 256));
  EXPECT_EQ(answer.responses.front().seed(), 5u);
  const v1::GenerateResponse& last = answer.responses.back();
  EXPECT_EQ(last.finish_reason(), v1::FINISH_REASON_STOP);
  EXPECT_EQ(last.stop_token_id(), 256);
  EXPECT_EQ(last.usage().prompt_tokens(), 2);
  EXPECT_EQ(last.usage().completion_tokens(), 4);
}

TEST_F(TextServiceTest, LosesNothingOfALongAnswer) {
  std::string text;
  for (int i = 0; i < 20'000; ++i) text += static_cast<char>('a' + i % 26);
  backend_.Draw(Bytes(text));
  const Answer answer = Generate({});
  ASSERT_TRUE(answer.status.ok()) << answer.status.error_message();
  EXPECT_EQ(answer.text, text);
  EXPECT_EQ(answer.responses.back().finish_reason(), v1::FINISH_REASON_LENGTH);
  EXPECT_EQ(answer.responses.back().usage().completion_tokens(), 20'000);
}

TEST_F(TextServiceTest, SendsWholeCharactersOnly) {
  backend_.Draw(Bytes("caf\xC3\xA9 \xF0\x9F\x98\x80"));
  EXPECT_EQ(Generate({}).text, "caf\xC3\xA9 \xF0\x9F\x98\x80");
}

TEST_F(TextServiceTest, EndsTheGenerationAtAStopString) {
  backend_.DrawForever(Bytes("one two STOP "));
  v1::GenerateRequest request;
  request.add_stop("STOP");
  const Answer answer = Generate(request);
  ASSERT_TRUE(answer.status.ok()) << answer.status.error_message();
  EXPECT_EQ(answer.text, "one two ");
  EXPECT_EQ(answer.responses.back().stop(), "STOP");
  EXPECT_EQ(answer.responses.back().usage().completion_tokens(), 12);
  ASSERT_TRUE(backend_.WaitForEnded(1));
  EXPECT_TRUE(backend_.was_told_to_stop());
}

TEST_F(TextServiceTest, TellsTheSeedThatItDrew) {
  backend_.Draw({'a'});
  const Answer answer = Generate({});
  ASSERT_TRUE(answer.responses.front().has_seed());
  EXPECT_EQ(answer.responses.front().seed(), backend_.requests()[0].sampling.seed);
}

TEST_F(TextServiceTest, RefusesABadFieldByName) {
  v1::GenerateRequest request;
  request.set_top_p(2);
  const Answer answer = Generate(request);
  EXPECT_EQ(answer.status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(answer.status.error_message(), "top_p 2 is not above 0 and at most 1");
  EXPECT_TRUE(backend_.requests().empty());
}

TEST_F(TextServiceTest, KeepsTheCodeAndTheLineOfAFailureAfterWhatWasDrawn) {
  backend_.Draw({'a', 'b'}, absl::UnavailableError("rank 1 was lost"));
  const Answer answer = Generate({});
  EXPECT_EQ(answer.text, "ab");
  EXPECT_EQ(answer.status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(answer.status.error_message(), "rank 1 was lost");
}

TEST_F(TextServiceTest, StopsTheGenerationWhenTheClientCancels) {
  backend_.DrawForever({'a'});
  v1::GenerateRequest request;
  request.set_text("hi");
  grpc::ClientContext context;
  const auto stream = stub_->Generate(&context, request);
  v1::GenerateResponse response;
  ASSERT_TRUE(stream->Read(&response));
  context.TryCancel();
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::CANCELLED);
  EXPECT_TRUE(backend_.WaitForEnded(1));
}

TEST_F(TextServiceTest, EndsAtTheCallsDeadline) {
  backend_.DrawForever({'a'});
  grpc::ClientContext context;
  context.set_deadline(absl::ToChronoTime(absl::Now() + absl::Seconds(2)));
  const Answer answer = Generate({}, &context);
  EXPECT_EQ(answer.status.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  EXPECT_FALSE(answer.text.empty());
  EXPECT_TRUE(backend_.WaitForEnded(1));
}

TEST_F(TextServiceTest, GivesTheBackendTheEarlierDeadline) {
  Start({.max_request_time = absl::Milliseconds(200)});
  backend_.DrawForever({'a'});
  const Answer answer = Generate({});
  EXPECT_EQ(answer.status.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  EXPECT_EQ(answer.status.error_message(), "the request's time is over");
}

TEST_F(TextServiceTest, EndsTheRequestOfAReaderThatDoesNotRead) {
  Start({.max_waiting_bytes = 64 << 10});
  backend_.DrawForever({'a'});
  v1::GenerateRequest request;
  request.set_text("hi");
  grpc::ClientContext context;
  const auto stream = stub_->Generate(&context, request);
  ASSERT_TRUE(backend_.WaitForEnded(1)) << "the backend is not held up";
  EXPECT_TRUE(backend_.was_told_to_stop());
  for (v1::GenerateResponse response; stream->Read(&response);) continue;
  const grpc::Status status = stream->Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(status.error_message(), HasSubstr("the answer is not being read"));
}

TEST_F(TextServiceTest, LetsGoOfACallWhoseClientNeverReads) {
  Mutex mutex;
  std::vector<absl::StatusCode> codes;
  Start({.max_request_time = absl::Seconds(1),
         .max_waiting_bytes = 256 << 20,
         .read_grace = absl::Milliseconds(10),
         .log = [&](const absl::Status& status, double) {
           MutexLock lock(&mutex);
           codes.push_back(status.code());
         }});
  backend_.DrawForever({'a'});
  v1::GenerateRequest request;
  request.set_text("hi");
  request.set_logprobs(2);  // the more bytes, the sooner the window is full
  grpc::ClientContext context;
  const auto stream = stub_->Generate(&context, request);
  {
    MutexLock lock(&mutex);
    const auto is_over = [&] { return !codes.empty(); };
    EXPECT_TRUE(mutex.AwaitUntil(is_over, SteadyNow() + absl::Seconds(10)));
    EXPECT_THAT(codes, ElementsAre(absl::StatusCode::kDeadlineExceeded));
  }
  for (v1::GenerateResponse response; stream->Read(&response);) continue;
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::CANCELLED);
}

TEST_F(TextServiceTest, ServesSeveralRequestsAtOnce) {
  backend_.DrawForever({'a'});
  v1::GenerateRequest request;
  request.set_text("hi");
  grpc::ClientContext contexts[3];
  std::vector<std::unique_ptr<grpc::ClientReader<v1::GenerateResponse>>> streams;
  for (grpc::ClientContext& context : contexts)
    streams.push_back(stub_->Generate(&context, request));
  v1::GenerateResponse response;
  for (const auto& stream : streams) EXPECT_TRUE(stream->Read(&response));
  for (grpc::ClientContext& context : contexts) context.TryCancel();
  for (const auto& stream : streams)
    EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::CANCELLED);
}

TEST_F(TextServiceTest, HoldsUpNoThreadOfGrpcWhileItReadsRequests) {
  backend_.Block(true);
  v1::GenerateRequest request;
  request.set_text("hi");
  std::vector<grpc::ClientContext> contexts(40);  // gRPC has 16 threads at most
  std::vector<std::unique_ptr<grpc::ClientReader<v1::GenerateResponse>>> streams;
  streams.reserve(contexts.size());
  for (grpc::ClientContext& context : contexts)
    streams.push_back(stub_->Generate(&context, request));
  for (int i = 0; i < 40; ++i) {
    grpc::ClientContext context;
    context.set_deadline(absl::ToChronoTime(absl::Now() + absl::Seconds(10)));
    v1::DescribeResponse described;
    EXPECT_TRUE(stub_->Describe(&context, {}, &described).ok());
  }
  for (size_t i = 0; i < 20; ++i) contexts[i].TryCancel();
  backend_.Draw({'o', 'k'});
  backend_.Block(false);
  v1::GenerateResponse response;
  for (size_t i = 0; i < contexts.size(); ++i) {
    while (streams[i]->Read(&response)) continue;
    EXPECT_EQ(streams[i]->Finish().error_code(),
              i < 20 ? grpc::StatusCode::CANCELLED : grpc::StatusCode::OK);
  }
}

class SmallTextServiceTest : public TextServiceTest {
 protected:
  SmallTextServiceTest() : TextServiceTest(/*max_model_len=*/32) {}
};

TEST_F(SmallTextServiceTest, LeavesAReaderToOthersWhileItReadsLongRequests) {
  backend_.Block(true);
  v1::GenerateRequest requests[3];
  for (v1::GenerateRequest& request : requests) request.set_text("long");
  for (int i = 0; i < 2; ++i) requests[i].add_stop(std::string(600, 'x'));
  requests[2].set_text("short");
  grpc::ClientContext contexts[3];
  std::vector<std::unique_ptr<grpc::ClientReader<v1::GenerateResponse>>> streams;
  for (int i = 0; i < 3; ++i) streams.push_back(stub_->Generate(&contexts[i], requests[i]));
  EXPECT_TRUE(backend_.WaitForRequests(2));
  std::vector<std::vector<int32_t>> prompts;
  for (const TokenRequest& request : backend_.requests()) prompts.push_back(request.prompt);
  EXPECT_THAT(prompts, testing::UnorderedElementsAre(Bytes("long"), Bytes("short")));
  backend_.Draw({'o', 'k'});
  backend_.Block(false);
  v1::GenerateResponse response;
  for (const auto& stream : streams) {
    while (stream->Read(&response)) continue;
    EXPECT_TRUE(stream->Finish().ok());
  }
}

TEST_F(TextServiceTest, RefusesMoreThanMayWaitToBeRead) {
  Start({.max_unread = 0});
  const Answer answer = Generate({});
  EXPECT_EQ(answer.status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(answer.status.error_message(),
            "the queue is full: 0 prompts wait to be split into tokens; try again later");
}

TEST_F(TextServiceTest, LogsEachRequestOnce) {
  Mutex mutex;
  std::vector<absl::StatusCode> codes;
  Start({.log = [&](const absl::Status& status, double) {
    MutexLock lock(&mutex);
    codes.push_back(status.code());
  }});
  backend_.Draw({'a'});
  Generate({});
  v1::GenerateRequest bad;
  bad.set_top_k(-1);
  Generate(bad);
  MutexLock lock(&mutex);
  EXPECT_THAT(codes, ElementsAre(absl::StatusCode::kOk, absl::StatusCode::kInvalidArgument));
}

TEST_F(TextServiceTest, DescribesTheModelAndItsReadiness) {
  backend_.SetReady(absl::UnavailableError("waiting for rank 1"));
  grpc::ClientContext context;
  v1::DescribeResponse described;
  ASSERT_TRUE(stub_->Describe(&context, {}, &described).ok());
  EXPECT_EQ(described.model(), "tiny");
  EXPECT_FALSE(described.ready());
  EXPECT_EQ(described.why_not_ready(), "waiting for rank 1");
  EXPECT_FALSE(described.has_chat_template());
  EXPECT_THAT(described.eos_token_ids(), ElementsAre(256));
}

}  // namespace
}  // namespace echelon::serve
