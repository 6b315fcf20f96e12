#include "runtime/cli/infer.h"

#include <gmock/gmock.h>

#include <filesystem>

#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"
#include "runtime/cli/npy.h"
#include "runtime/serve/grpc_server.h"
#include "tests/serve/fake_backend.h"

namespace echelon {
namespace {

using testing::HasSubstr;

struct Ended {
  int code;
  std::string out, err;
};

class InferTest : public testing::Test {
 protected:
  InferTest()
      : server_(*serve::GrpcServer::Start({.host = "127.0.0.1", .port = 0, .backend = &backend_})) {
  }

  Ended Infer(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(),
                     {"infer", "--server", absl::StrCat("127.0.0.1:", server_->port())});
    std::vector<char*> argv;
    for (std::string& argument : arguments) argv.push_back(argument.data());
    testing::internal::CaptureStdout();
    testing::internal::CaptureStderr();
    const int code = InferMain(static_cast<int>(argv.size()), argv.data());
    std::fflush(stdout);
    return {code, testing::internal::GetCapturedStdout(), testing::internal::GetCapturedStderr()};
  }

  serve::FakeBackend backend_;
  std::unique_ptr<serve::GrpcServer> server_;
};

TEST_F(InferTest, PrintsEachOutput) {
  const Ended run = Infer({"--input", "x=arange:3x4"});
  EXPECT_EQ(run.code, 0) << run.err;
  EXPECT_EQ(run.out, "out_x  f32[3x4]  0 1 2 3 4 5 6 7 ... (12 elements)\n");
}

TEST_F(InferTest, SendsRandomInputsWhenNoneAreGiven) {
  const Ended run = Infer({"--json", "--repeat", "3"});
  EXPECT_EQ(run.code, 0) << run.err;
  const auto result = nlohmann::json::parse(run.out);
  EXPECT_EQ(result["outputs"][0]["shape"], nlohmann::json({4, 4}));
  EXPECT_EQ(result["outputs"][0]["data"].size(), 16u);
  EXPECT_EQ(backend_.requests(), 3);
}

TEST_F(InferTest, ReadsAndSavesFiles) {
  const std::string folder = testing::TempDir() + "infer_test";
  std::filesystem::create_directories(folder);
  Tensor tensor = Tensor::Empty(DType::kF32, {1, 4});
  std::fill_n(reinterpret_cast<float*>(tensor.data), 4, 1.5f);
  ASSERT_TRUE(WriteNpy(folder + "/in.npy", tensor).ok());
  const Ended run =
      Infer({"--input", "x=" + folder + "/in.npy", "--output-dir", folder + "/new/folder"});
  EXPECT_EQ(run.code, 0) << run.err;
  const auto saved = ReadNpy(folder + "/new/folder/out_x.npy");
  ASSERT_TRUE(saved.ok()) << saved.status();
  EXPECT_EQ(reinterpret_cast<const float*>(saved->data)[3], 1.5f);
  std::filesystem::remove_all(folder);
}

TEST_F(InferTest, SaysWhatWentWrongInOneLine) {
  backend_.FailWith(absl::UnavailableError("stage 1 was lost"));
  EXPECT_EQ(Infer({}).err, "echelon infer: stage 1 was lost\n");
  EXPECT_EQ(Infer({"--model", "other"}).err,
            "echelon infer: model 'other' is not here; this server serves 'echo'\n");
  const Ended unknown = Infer({"--input", "y=ones:1"});
  EXPECT_EQ(unknown.code, 1);
  EXPECT_THAT(unknown.err, HasSubstr("no such input; its inputs are x"));
  EXPECT_THAT(Infer({"--server", "127.0.0.1:1"}).err, HasSubstr("--server"));
}

TEST_F(InferTest, SaysThatTheServerCannotBeReached) {
  const int port = server_->port();
  server_->Stop(absl::Now());
  const Ended run = Infer({});
  EXPECT_EQ(run.code, 1);
  EXPECT_THAT(run.err, HasSubstr(absl::StrCat("cannot reach 127.0.0.1:", port)));
  EXPECT_EQ(std::count(run.err.begin(), run.err.end(), '\n'), 1);
}

TEST_F(InferTest, GivesUpAfterItsTimeout) {
  backend_.Hold();
  const Ended run = Infer({"--timeout", "0.2"});
  EXPECT_EQ(run.code, 1);
  EXPECT_THAT(run.err, HasSubstr("did not answer within 200ms"));
  backend_.Release();
}

TEST_F(InferTest, ShowsAnExample) {
  const Ended run = Infer({"--help"});
  EXPECT_EQ(run.code, 0);
  EXPECT_THAT(run.out, HasSubstr("echelon infer --input x=random:4x128"));
}

}  // namespace
}  // namespace echelon
