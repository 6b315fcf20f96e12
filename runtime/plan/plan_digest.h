#ifndef ECHELON_RUNTIME_PLAN_PLAN_DIGEST_H_
#define ECHELON_RUNTIME_PLAN_PLAN_DIGEST_H_

#include <string>

#include "runtime/plan/plan.h"

namespace echelon::plan {

std::string DigestOf(const Plan& plan);  // of all fields but `digest` itself; 32 hex digits

}  // namespace echelon::plan

#endif  // ECHELON_RUNTIME_PLAN_PLAN_DIGEST_H_
