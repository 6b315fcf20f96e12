// A PipelineDeployment out of a file, as one machine can run it.
#ifndef ECHELON_RUNTIME_CLI_DEPLOYMENT_H_
#define ECHELON_RUNTIME_CLI_DEPLOYMENT_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace echelon {

struct LocalDeployment {
  std::string name;   // of the object
  std::string model;  // a path on this machine: a .pt2 file, or a Hugging Face directory
  std::string model_name;
  int stages = 1, chunks = 1;
  std::string policy, dtype;
  int max_model_len = 0;
  std::string stage_memory, stage_speed;  // as the flags of that name
  std::vector<std::string> ignored;       // fields that mean something in a cluster alone
};

struct DeploymentChoice {
  std::string file;       // "-": stdin
  std::string name;       // of the object; "": the file's first
  std::string model_dir;  // where the model's volume lies here; "": as the object's hostPath says
  int stages = 0;         // other than the object's; 0: those
};

// Errors name the file, and the line or the object: bad YAML, no such object, one that the operator
// would refuse (and why), a volume that is not on this machine.
absl::StatusOr<LocalDeployment> ReadDeployment(const DeploymentChoice& choice);

}  // namespace echelon

#endif  // ECHELON_RUNTIME_CLI_DEPLOYMENT_H_
