// A server that answers each input NAME as output out_NAME, for clients written by others. Prints
// its ports as one line of JSON, and ends when its standard input does.
#include <unistd.h>

#include <cstdio>

#include "runtime/serve/grpc_server.h"
#include "runtime/serve/http_server.h"
#include "runtime/serve/metrics.h"
#include "tests/serve/fake_backend.h"

int main() {
  using echelon::DType;
  namespace serve = echelon::serve;
  std::vector<serve::TensorSpec> inputs;
  for (const auto& [name, dtype] :
       std::initializer_list<std::pair<const char*, DType>>{{"bool", DType::kBool},
                                                            {"u8", DType::kU8},
                                                            {"u16", DType::kU16},
                                                            {"u32", DType::kU32},
                                                            {"u64", DType::kU64},
                                                            {"i8", DType::kI8},
                                                            {"i16", DType::kI16},
                                                            {"i32", DType::kI32},
                                                            {"i64", DType::kI64},
                                                            {"f16", DType::kF16},
                                                            {"f32", DType::kF32},
                                                            {"f64", DType::kF64},
                                                            {"bf16", DType::kBF16}})
    inputs.push_back({name, dtype, {-1, -1}});
  serve::FakeBackend backend(inputs);
  serve::Metrics metrics({.model = "echo", .version = "test"});
  const serve::RequestLog log = [&metrics](const absl::Status& status, double seconds) {
    metrics.ObserveRequest(status, seconds);
  };
  auto grpc = serve::GrpcServer::Start(
      {.host = "127.0.0.1", .port = 0, .backend = &backend, .model = "echo", .log = log});
  auto http = serve::HttpServer::Start(
      {.listener = {.host = "127.0.0.1", .port = 0}, .backend = &backend, .log = log});
  auto scrape = serve::MetricsServer::Start(&metrics, "127.0.0.1", 0);
  for (const absl::Status& status : {grpc.status(), http.status(), scrape.status()}) {
    if (status.ok()) continue;
    std::fprintf(stderr, "%s\n", status.ToString().c_str());
    return 1;
  }
  (*grpc)->SetServing(true);
  std::printf("{\"grpc\": %d, \"http\": %d, \"metrics\": %d}\n", (*grpc)->port(), (*http)->port(),
              (*scrape)->port());
  std::fflush(stdout);
  char byte;
  while (read(STDIN_FILENO, &byte, 1) > 0) {
  }
  return 0;
}
