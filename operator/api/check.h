// What the fields of a spec mean together. The CRD says most of it too; here it is said for files
// that no API server has seen, and for what a schema cannot say.
#ifndef ECHELON_OPERATOR_API_CHECK_H_
#define ECHELON_OPERATOR_API_CHECK_H_

#include "operator/api/deployment.h"

namespace echelon::op {

// Sets invalid_reason and invalid_message when the object cannot be served.
void Check(Deployment* deployment);

}  // namespace echelon::op

#endif  // ECHELON_OPERATOR_API_CHECK_H_
