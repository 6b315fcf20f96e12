#include "runtime/cli/infer.h"

#include <grpc/support/log.h>
#include <grpcpp/grpcpp.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "nlohmann/json.hpp"
#include "proto/inference.grpc.pb.h"
#include "runtime/cli/infer_input.h"
#include "runtime/cli/npy.h"
#include "runtime/serve/grpc_codec.h"
#include "runtime/serve/v2_types.h"
#include "runtime/stage/flag_errors.h"

namespace echelon {
namespace {

using Stub = inference::GRPCInferenceService::Stub;

constexpr int64_t kShownElements = 8;

struct Options {
  std::string server = "localhost:8001";
  std::string model;
  std::vector<std::string> inputs;
  std::string output_dir;
  int repeat = 1;
  bool json = false;
  double timeout_s = 60;
};

class Client {
 public:
  Client(const std::string& server, absl::Duration timeout) : server_(server), timeout_(timeout) {
    grpc::ChannelArguments arguments;
    arguments.SetMaxReceiveMessageSize(-1);
    arguments.SetMaxSendMessageSize(-1);
    stub_ = inference::GRPCInferenceService::NewStub(
        grpc::CreateCustomChannel(server, grpc::InsecureChannelCredentials(), arguments));
  }

  // A method of the stub with its request and response, as absl::Status; unreachable servers are
  // named.
  template <typename Method, typename Request, typename Response>
  absl::Status Call(Method method, const Request& request, Response* response) const {
    grpc::ClientContext context;
    context.set_deadline(absl::ToChronoTime(absl::Now() + timeout_));
    const grpc::Status status = (stub_.get()->*method)(&context, request, response);
    if (status.ok()) return absl::OkStatus();
    const auto code = static_cast<absl::StatusCode>(status.error_code());
    const std::string text = serve::OneLine(status.error_message());
    if (code == absl::StatusCode::kDeadlineExceeded)
      return absl::DeadlineExceededError(
          absl::StrCat(server_, " did not answer within ", absl::FormatDuration(timeout_)));
    if (code == absl::StatusCode::kUnavailable && !status.error_details().empty())
      return absl::UnavailableError(absl::StrCat(server_, ": ", text));
    if (code == absl::StatusCode::kUnavailable && absl::StrContains(text, "connect"))
      return absl::UnavailableError(absl::StrCat("cannot reach ", server_, " (", text, ")"));
    return absl::Status(code, text);
  }

 private:
  const std::string server_;
  const absl::Duration timeout_;
  std::unique_ptr<Stub> stub_;
};

// The model named, or the one that the server serves.
absl::StatusOr<std::string> FindModel(const Client& client, const std::string& named) {
  if (!named.empty()) return named;
  inference::RepositoryIndexResponse index;
  const absl::Status status =
      client.Call(&Stub::RepositoryIndex, inference::RepositoryIndexRequest(), &index);
  if (!status.ok()) return status;
  if (index.models_size() == 1) return index.models(0).name();
  std::string names;
  for (const auto& model : index.models()) absl::StrAppend(&names, " ", model.name());
  return absl::NotFoundError(absl::StrCat("the server has ", index.models_size(), " models:", names,
                                          "; name one with --model"));
}

absl::StatusOr<std::vector<InputSpec>> ModelInputs(const Client& client, const std::string& model) {
  inference::ModelMetadataRequest request;
  request.set_name(model);
  inference::ModelMetadataResponse response;
  const absl::Status status = client.Call(&Stub::ModelMetadata, request, &response);
  if (!status.ok()) return status;
  std::vector<InputSpec> specs;
  for (const auto& input : response.inputs()) {
    const auto dtype = serve::InputDType(input.name(), input.datatype());
    if (!dtype.ok()) return dtype.status();
    specs.push_back({input.name(), *dtype, {input.shape().begin(), input.shape().end()}});
  }
  return specs;
}

void PrintText(const std::vector<NamedTensor>& outputs) {
  for (const auto& [name, tensor] : outputs) {
    const int64_t elements = tensor.elements();
    const int64_t shown = std::min(elements, kShownElements);
    std::string line = absl::StrCat(name, "  ", std::string(Name(tensor.dtype)), "[",
                                    tensor.shape.empty() ? "" : ShapeText(tensor.shape), "] ");
    for (int64_t i = 0; i < shown; ++i) absl::StrAppend(&line, " ", ElementText(tensor, i));
    if (shown < elements) absl::StrAppend(&line, " ... (", elements, " elements)");
    std::printf("%s\n", line.c_str());
  }
}

// Numbers stand in JSON as such where it has a form for them, else as text.
nlohmann::json ElementJson(const Tensor& tensor, int64_t index) {
  const std::string text = ElementText(tensor, index);
  nlohmann::json value = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  return value.is_discarded() ? nlohmann::json(text) : value;
}

nlohmann::json OutputsJson(const std::vector<NamedTensor>& outputs) {
  nlohmann::json list = nlohmann::json::array();
  for (const auto& [name, tensor] : outputs) {
    nlohmann::json data = nlohmann::json::array();
    for (int64_t i = 0; i < tensor.elements(); ++i) data.push_back(ElementJson(tensor, i));
    list.push_back({{"name", name},
                    {"dtype", std::string(Name(tensor.dtype))},
                    {"shape", tensor.shape},
                    {"data", std::move(data)}});
  }
  return list;
}

// An output's name comes from the server: it must not choose the folder.
std::string FileName(const std::string& output) {
  std::string name;
  for (const char c : output)
    name += absl::ascii_isalnum(c) || c == '_' || c == '-' || c == '.' ? c : '_';
  if (name.empty() || name[0] == '.') name = "_" + name;
  return name + ".npy";
}

absl::Status Save(const std::string& folder, const std::vector<NamedTensor>& outputs) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error)
    return absl::PermissionDeniedError(
        absl::StrCat("cannot make folder ", folder, ": ", error.message()));
  for (const auto& [name, tensor] : outputs) {
    const std::string path = (std::filesystem::path(folder) / FileName(name)).string();
    if (auto status = WriteNpy(path, tensor); !status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status Infer(const Options& options) {
  const Client client(options.server, absl::Seconds(options.timeout_s));
  const auto model = FindModel(client, options.model);
  if (!model.ok()) return model.status();
  const auto specs = ModelInputs(client, *model);
  if (!specs.ok()) return specs.status();
  const auto inputs = MakeInputs(options.inputs, *specs);
  if (!inputs.ok()) return inputs.status();
  inference::ModelInferRequest request;
  request.set_model_name(*model);
  if (auto status = serve::CheckMessageSize("the inputs have", *inputs); !status.ok())
    return status;
  for (const NamedTensor& input : *inputs) serve::EncodeInput(input, &request);
  inference::ModelInferResponse response;
  std::vector<double> times_ms;
  for (int i = 0; i < options.repeat; ++i) {
    response.Clear();
    const absl::Time start = absl::Now();
    if (auto status = client.Call(&Stub::ModelInfer, request, &response); !status.ok())
      return status;
    times_ms.push_back(absl::ToDoubleMilliseconds(absl::Now() - start));
  }
  const auto outputs = serve::DecodeResponse(response);
  if (!outputs.ok()) return outputs.status();
  if (!options.output_dir.empty())
    if (auto status = Save(options.output_dir, *outputs); !status.ok()) return status;
  std::sort(times_ms.begin(), times_ms.end());
  const double median_ms = times_ms[times_ms.size() / 2];
  if (options.json) {
    const nlohmann::json result = {
        {"model", *model},        {"outputs", OutputsJson(*outputs)}, {"repeat", options.repeat},
        {"median_ms", median_ms}, {"min_ms", times_ms.front()},       {"max_ms", times_ms.back()}};
    std::printf("%s\n", result.dump().c_str());
    return absl::OkStatus();
  }
  PrintText(*outputs);
  if (options.repeat > 1)
    std::printf("%d requests: median %.3f ms, %.3f to %.3f ms\n", options.repeat, median_ms,
                times_ms.front(), times_ms.back());
  return absl::OkStatus();
}

}  // namespace

int InferMain(int argc, char** argv) {
  Options options;
  CLI::App app("Sends tensors to a server and prints what comes back.", "echelon infer");
  app.footer(
      "Example:\n"
      "  echelon infer --input x=random:4x128 --output-dir out\n"
      "  echelon infer --server host:8001 --input ids=ids.npy --input mask=ones:2x16 --json");
  app.add_option("--server", options.server, "HOST:PORT of the gRPC front door")
      ->capture_default_str();
  app.add_option("--model", options.model, "the model's name (default: the one served)");
  app.add_option("--input", options.inputs,
                 "NAME=FILE.npy or NAME=random|arange|zeros|ones:SHAPE[:SEED]; without any, every "
                 "input is random and its dynamic sizes are 4");
  app.add_option("--output-dir", options.output_dir, "save each output as NAME.npy in this folder");
  app.add_option("--repeat", options.repeat, "send the request this many times, print the times")
      ->check(CLI::Range(1, 1000000000));
  app.add_flag("--json", options.json, "print JSON");
  app.add_option("--timeout", options.timeout_s, "seconds that each call may take")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& help) {
    return app.exit(help);
  } catch (const CLI::ParseError& error) {
    std::fprintf(stderr, "echelon infer: %s (see --help)\n", stage::FlagError(app, error).c_str());
    return 1;
  }
  gpr_set_log_verbosity(static_cast<gpr_log_severity>(GPR_LOG_SEVERITY_ERROR + 1));  // none
  const absl::Status status = Infer(options);
  if (status.ok()) return 0;
  std::fprintf(stderr, "echelon infer: %s\n", serve::OneLine(status.message()).c_str());
  return 1;
}

}  // namespace echelon
