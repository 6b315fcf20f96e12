#include "operator/controller/crd_check.h"

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"

namespace echelon::op {
namespace {

using nlohmann::json;

constexpr char kRemedy[] =
    "; apply this version's crds/pipelinedeployments.yaml: kubectl apply --server-side "
    "--force-conflicts -f crds/";

const json& At(const json& from, const char* name) {
  static const json kNothing;
  if (!from.is_object()) return kNothing;
  const auto at = from.find(name);
  return at == from.end() ? kNothing : *at;
}

}  // namespace

absl::Status CheckCrd(const Response& response) {
  if (response.code == 403) return absl::OkStatus();
  if (response.code == 404) {
    return absl::FailedPreconditionError(
        absl::StrCat("CustomResourceDefinition ", kCrdName, " is missing", kRemedy));
  }
  if (!response.ok()) return absl::UnavailableError(ErrorText(response));
  const json object = json::parse(response.body, nullptr, false);
  const json& given = At(At(At(object, "metadata"), "annotations"), kCrdVersionAnnotation);
  int version = 0;
  if (given.is_string()) (void)absl::SimpleAtoi(given.get<std::string>(), &version);
  if (version < kCrdVersion) {
    return absl::FailedPreconditionError(
        absl::StrCat("CustomResourceDefinition ", kCrdName, " is of version ", version,
                     ", this operator needs ", kCrdVersion, kRemedy));
  }
  return absl::OkStatus();
}

}  // namespace echelon::op
