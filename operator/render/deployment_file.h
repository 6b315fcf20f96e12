// PipelineDeployments out of a file, as `echelon-operator plan -f FILE` reads them.
#ifndef ECHELON_OPERATOR_RENDER_DEPLOYMENT_FILE_H_
#define ECHELON_OPERATOR_RENDER_DEPLOYMENT_FILE_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "operator/api/deployment.h"

namespace echelon::op {

// Documents of other kinds are left out; the namespace is `default` where none is given. Errors
// name `file`, and line or object: nothing to read, bad YAML, no PipelineDeployment at all, a field
// that nobody knows. What merely cannot be served is in invalid_*, as from the API server.
absl::StatusOr<std::vector<Deployment>> DeploymentsIn(const std::string& text,
                                                      const std::string& file);
absl::StatusOr<std::vector<Deployment>> ReadDeploymentFile(const std::string& file);  // "-": stdin

}  // namespace echelon::op

#endif  // ECHELON_OPERATOR_RENDER_DEPLOYMENT_FILE_H_
