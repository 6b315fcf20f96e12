#include "runtime/serve/http_server.h"

#include <gmock/gmock.h>

#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"
#include "runtime/serve/compress.h"
#include "runtime/serve/text_only.h"
#include "tests/serve/fake_backend.h"
#include "tests/serve/fake_text_backend.h"
#include "tests/serve/raw_client.h"

namespace echelon::serve {
namespace {

using nlohmann::json;
using testing::HasSubstr;

constexpr char kInfer[] = "/v2/models/echo/infer";
constexpr char kFourFloats[] =
    R"({"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":[1,2,3,4.5]}]})";

class HttpServerTest : public testing::Test {
 protected:
  HttpServerTest() { Start({.backend = &backend_}); }

  void Start(HttpServerOptions options) {
    options.listener.host = "127.0.0.1";
    options.listener.port = 0;
    auto server = HttpServer::Start(std::move(options));
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
  }
  RawClient Client() { return RawClient(server_->port()); }
  RawReply Get(const std::string& path) { return Client().Get(path); }
  RawReply Infer(const std::string& body, const std::string& headers = "") {
    return Client().Post(kInfer, body, headers);
  }

  FakeBackend backend_;
  std::unique_ptr<HttpServer> server_;
};

std::string ErrorOf(const RawReply& reply) { return json::parse(reply.body).at("error"); }

TEST_F(HttpServerTest, AnswersJsonWithJson) {
  const RawReply reply = Infer(kFourFloats);
  EXPECT_EQ(reply.code, 200);
  const json body = json::parse(reply.body);
  EXPECT_EQ(body["model_name"], "echo");
  EXPECT_EQ(body["outputs"][0]["name"], "out_x");
  EXPECT_EQ(body["outputs"][0]["data"], json({1, 2, 3, 4.5}));
}

TEST_F(HttpServerTest, AnswersBinaryWithBinary) {
  const std::string head =
      R"({"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","parameters":{"binary_data_size":16}}],)"
      R"("outputs":[{"name":"out_x","parameters":{"binary_data":true}}]})";
  const std::string data = "0123456789abcdef";
  const RawReply reply =
      Client().Post("/v2/models/echo/versions/1/infer", head + data,
                    absl::StrCat("Inference-Header-Content-Length: ", head.size(), "\r\n"));
  EXPECT_EQ(reply.code, 200);
  const std::string key = "inference-header-content-length: ";
  const size_t length = std::stoul(reply.header.substr(reply.header.find(key) + key.size()));
  EXPECT_EQ(
      json::parse(reply.body.substr(0, length))["outputs"][0]["parameters"]["binary_data_size"],
      16);
  EXPECT_EQ(reply.body.substr(length), data);
}

TEST_F(HttpServerTest, TakesAndGivesCompressedBodies) {
  for (const auto& [name, encoding] :
       {std::pair{"gzip", Encoding::kGzip}, std::pair{"deflate", Encoding::kDeflate}}) {
    std::string row = "1,2,3,4";
    for (int i = 1; i < 1000; ++i) row += ",1,2,3,4";
    const std::string text =
        R"({"inputs":[{"name":"x","shape":[1000,4],"datatype":"FP32","data":[)" + row + "]}]}";
    const RawReply reply =
        Infer(Deflate(text, encoding),
              absl::StrCat("Content-Encoding: ", name, "\r\nAccept-Encoding: ", name, "\r\n"));
    EXPECT_EQ(reply.code, 200);
    EXPECT_THAT(reply.header, HasSubstr(absl::StrCat("content-encoding: ", name)));
    const auto plain = Inflate(reply.body, encoding, 1 << 20);
    ASSERT_TRUE(plain.ok()) << plain.status();
    EXPECT_EQ(json::parse(*plain)["outputs"][0]["data"].size(), 4000u);
  }
}

TEST_F(HttpServerTest, RefusesBodiesItCannotDecompress) {
  EXPECT_EQ(Infer("x", "Content-Encoding: br\r\n").code, 415);
  EXPECT_EQ(Infer("x", "Content-Encoding: gzip\r\n").code, 400);
  HttpServerOptions options{.backend = &backend_};
  options.listener.max_body_bytes = 1 << 20;
  Start(options);
  const std::string bomb = Deflate(std::string(16 << 20, ' '), Encoding::kGzip);
  EXPECT_EQ(Infer(bomb, "Content-Encoding: gzip\r\n").code, 413);
}

TEST_F(HttpServerTest, DescribesTheServerAndTheModel) {
  EXPECT_EQ(json::parse(Get("/v2").body)["name"], "echelon");
  const json model = json::parse(Get("/v2/models/echo").body);
  EXPECT_EQ(model["inputs"], json::parse(R"([{"name":"x","datatype":"FP32","shape":[-1,4]}])"));
  EXPECT_EQ(model["versions"], json::parse(R"(["1"])"));
  EXPECT_EQ(json::parse(Get("/v2/models/echo/config").body)["input"][0]["data_type"], "TYPE_FP32");
  EXPECT_EQ(json::parse(Client().Post("/v2/repository/index", "").body)[0]["state"], "READY");
}

TEST_F(HttpServerTest, SaysWhetherItIsReadyAndWhyNot) {
  for (const char* path : {"/v2/health/live", "/v2/health/ready", "/v2/models/echo/ready",
                           "/v2/models/echo/versions/1/ready", "/healthz", "/readyz"})
    EXPECT_EQ(Get(path).code, 200) << path;
  backend_.SetReady(absl::UnavailableError("waiting for rank 1"));
  for (const char* path : {"/v2/health/ready", "/v2/models/echo/ready", "/readyz"}) {
    EXPECT_EQ(Get(path).code, 503) << path;
    EXPECT_EQ(ErrorOf(Get(path)), "waiting for rank 1");
  }
  EXPECT_EQ(Get("/healthz").code, 200);
  EXPECT_EQ(Get("/v2/health/live").code, 200);
}

TEST_F(HttpServerTest, GivesTheStatusTextAsItIs) {
  EXPECT_EQ(Get("/status").body, "{}");
  Start({.backend = &backend_, .status_json = [] { return R"({"epoch": 3})"; }});
  EXPECT_EQ(Get("/status").body, R"({"epoch": 3})");
}

TEST_F(HttpServerTest, NamesTheModelServedWhenAnotherIsAskedFor) {
  EXPECT_EQ(Get("/v2/models/a%20b").code, 404);
  EXPECT_EQ(ErrorOf(Get("/v2/models/a%20b")), "model 'a b' is not here; this server serves 'echo'");
  EXPECT_EQ(ErrorOf(Get("/v2/models/echo/versions/2")),
            "model 'echo' has no version '2'; version '1' is served");
}

TEST_F(HttpServerTest, ListsThePathsWhenThereIsNothing) {
  for (const char* path : {"/", "/nothing", "/v2/models", "/v2/x", "/v2/models/echo/x"}) {
    EXPECT_EQ(Get(path).code, 404) << path;
    EXPECT_THAT(ErrorOf(Get(path)), HasSubstr("/v2/models/NAME")) << path;
  }
}

TEST_F(HttpServerTest, SaysWhichMethodAPathTakes) {
  const RawReply reply = Get(kInfer);
  EXPECT_EQ(reply.code, 405);
  EXPECT_THAT(reply.header, HasSubstr("allow: post"));
  EXPECT_EQ(Client().Post("/v2/models/echo", "").code, 405);
}

TEST_F(HttpServerTest, MapsEachFailureToItsCode) {
  for (const auto& [status, code] : std::vector<std::pair<absl::Status, int>>{
           {absl::InvalidArgumentError("one\nline"), 400},
           {absl::ResourceExhaustedError("the queue is full"), 429},
           {absl::CancelledError("cancelled"), 499},
           {absl::UnavailableError("stage 1 was lost"), 503},
           {absl::DeadlineExceededError("late"), 504},
           {absl::InternalError("stage 1 node 3"), 500}}) {
    backend_.FailWith(status);
    const RawReply reply = Infer(kFourFloats);
    EXPECT_EQ(reply.code, code);
    EXPECT_EQ(ErrorOf(reply), code == 400 ? "one line" : std::string(status.message()));
  }
}

TEST_F(HttpServerTest, RefusesOutputsThatTheModelLacks) {
  const RawReply reply = Infer(
      R"({"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[1]}],"outputs":[{"name":"y"}]})");
  EXPECT_EQ(reply.code, 400);
  EXPECT_EQ(ErrorOf(reply), "model 'echo' has no output 'y'; its outputs are 'out_x'");
  EXPECT_EQ(backend_.requests(), 0);
}

TEST_F(HttpServerTest, PassesTheDeadlineOn) {
  const absl::Time before = absl::Now();
  Infer(
      R"({"parameters":{"timeout":5000000},"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[1]}]})");
  EXPECT_GE(backend_.deadline(), before + absl::Seconds(5));
  EXPECT_LE(backend_.deadline(), absl::Now() + absl::Seconds(5));
}

TEST_F(HttpServerTest, CancelsWhenTheClientGoes) {
  backend_.Hold();
  RawClient client = Client();
  client.Send(absl::StrCat("POST ", kInfer, " HTTP/1.1\r\nContent-Length: ",
                           sizeof(kFourFloats) - 1, "\r\n\r\n", kFourFloats));
  ASSERT_TRUE(backend_.WaitForHeld(1));
  client.Close();
  EXPECT_TRUE(backend_.WaitForCancelled());
  backend_.Release();
}

TEST_F(HttpServerTest, TellsTheLogOfEveryRequest) {
  std::atomic<int> ok{0}, failed{0};
  Start({.backend = &backend_,
         .log = [&](const absl::Status& status, double) { status.ok() ? ++ok : ++failed; }});
  Infer(kFourFloats);
  Infer("not json");
  EXPECT_EQ(ok, 1);
  EXPECT_EQ(failed, 1);
}

TEST_F(HttpServerTest, SaysThatALanguageModelIsReadyAndWhichDoorItsTextsComeThrough) {
  FakeTextBackend text({.name = "echo"});
  TextOnly text_only(&text);
  Start({.backend = &text_only});
  EXPECT_EQ(Get("/v2/health/live").code, 200);
  EXPECT_EQ(Get("/v2/health/ready").code, 200);
  EXPECT_EQ(Get("/v2/models/echo/ready").code, 200);
  EXPECT_EQ(Get("/v2/models/another/ready").code, 404);
  const RawReply refused = Infer(kFourFloats);
  EXPECT_EQ(refused.code, 400);
  EXPECT_EQ(ErrorOf(refused),
            "echo is a language model; its texts come over gRPC, by echelon.v1.Text/Generate: "
            "try echelon generate HOST:PORT");
  text.SetReady(absl::UnavailableError("waiting for rank 1"));
  EXPECT_EQ(Get("/v2/health/ready").code, 503);
}

TEST_F(HttpServerTest, SendsClientsOfAWorkerToTheHead) {
  Start({.no_backend = "this is rank 1 of 2; ask rank 0 at head:8000",
         .ready = [] { return absl::UnavailableError("loading"); }});
  for (const char* path : {"/v2", "/v2/models/echo", "/v2/health/ready"}) {
    EXPECT_EQ(Get(path).code, 404);
    EXPECT_EQ(ErrorOf(Get(path)), "this is rank 1 of 2; ask rank 0 at head:8000");
  }
  EXPECT_EQ(Infer(kFourFloats).code, 404);
  EXPECT_EQ(ErrorOf(Get("/readyz")), "loading");
  EXPECT_EQ(Get("/healthz").code, 200);
}

}  // namespace
}  // namespace echelon::serve
