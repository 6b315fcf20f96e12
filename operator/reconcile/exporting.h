// A Hugging Face directory is turned into a .pt2 by a Job before groups of its revision are made.
#ifndef ECHELON_OPERATOR_RECONCILE_EXPORTING_H_
#define ECHELON_OPERATOR_RECONCILE_EXPORTING_H_

#include <string>

#include "operator/api/deployment.h"
#include "operator/reconcile/fleet.h"
#include "operator/reconcile/observed.h"

namespace echelon::op {

struct Export {
  enum class State { kDone, kRunning, kFailed };  // kDone: also where there is nothing to export
  State state = State::kDone;
  bool make_job = false;  // there is none yet
  std::string message;
};

Export LookAtExport(const Deployment& wanted, const Observed& observed,
                    const Generations& generations, const Fleet& fleet);

}  // namespace echelon::op

#endif  // ECHELON_OPERATOR_RECONCILE_EXPORTING_H_
