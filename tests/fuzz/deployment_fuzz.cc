// A PipelineDeployment in any bytes, as YAML: read, written, rendered. What is read must be read
// the same again, and a status must always be one that the API server takes.
#include <cstdint>
#include <cstdlib>
#include <string>

#include "operator/api/deployment.h"
#include "operator/api/yaml.h"
#include "operator/render/render.h"

namespace {

using namespace echelon::op;  // NOLINT: one file

void CheckStatus(const Status& status) {
  const nlohmann::json written = ToJson(status);
  if (written.dump().empty()) std::abort();  // throws where a string is no UTF-8
  if (ToJson(StatusFromJson(written)) != written) std::abort();
}

void CheckSpec(const Deployment& deployment, const nlohmann::json& object) {
  nlohmann::json again = object;
  again["spec"] = ToJson(deployment.spec);
  const auto read = FromJson(again);
  if (!read.ok() || read->invalid_reason != "" || ToJson(read->spec) != again["spec"]) std::abort();
  const Revision revision = MakeRevision(deployment.spec, "a", "b");
  if (revision.hash.size() != 8 || HeadService(deployment).is_null()) std::abort();
  if (SpecAt(deployment, revision).parallelism.stages != deployment.spec.parallelism.stages)
    std::abort();
  const std::vector<Run> runs = EqualRuns(deployment.spec);
  for (const Run& run : {runs.front(), runs.back()}) {
    const auto set = StatefulSet(deployment, revision, 0, run);
    if (!set.ok() && set.status().message().empty()) std::abort();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto documents = ParseYaml(std::string(reinterpret_cast<const char*>(data), size));
  if (!documents.ok()) {
    if (documents.status().message().empty()) std::abort();
    return 0;
  }
  for (const nlohmann::json& object : *documents) {
    (void)UnknownFields(object);
    const auto deployment = FromJson(object);
    if (!deployment.ok()) continue;
    CheckStatus(deployment->status);
    if (deployment->invalid_reason.empty() != deployment->invalid_message.empty()) std::abort();
    if (deployment->invalid_reason.empty()) CheckSpec(*deployment, object);
  }
  return 0;
}
