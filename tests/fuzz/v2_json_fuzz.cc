// The v2 protocol over HTTP: any bytes as a request's body. The first two bytes give
// Inference-Header-Content-Length. What decodes must also encode.
#include <cstdint>
#include <cstdlib>

#include "absl/strings/string_view.h"
#include "runtime/serve/v2_json.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  const size_t json_bytes = data[0] | data[1] << 8;
  const absl::string_view body(reinterpret_cast<const char*>(data) + 2, size - 2);
  const auto request = echelon::serve::DecodeV2Request(
      body, json_bytes == 0xffff ? std::nullopt : std::optional<size_t>(json_bytes));
  if (!request.ok()) {
    if (request.status().message().empty()) std::abort();
    return 0;
  }
  const echelon::serve::ModelInfo model{.name = "m"};
  echelon::serve::V2Request binary = *request;
  binary.binary_outputs = true;
  binary.binary_output.clear();
  if (!echelon::serve::EncodeV2Response(model, binary, request->request.inputs).ok()) std::abort();
  (void)echelon::serve::EncodeV2Response(model, *request, request->request.inputs);
  return 0;
}
