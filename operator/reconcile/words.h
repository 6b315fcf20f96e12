// Sentences of status, events and actions.
#ifndef ECHELON_OPERATOR_RECONCILE_WORDS_H_
#define ECHELON_OPERATOR_RECONCILE_WORDS_H_

#include <string>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace echelon::op {

std::string OneLine(absl::string_view text);            // at most what a field of status may hold
std::string Count(int number, absl::string_view noun);  // "1 rank", "2 ranks"
std::string At(absl::Time moment);                      // "03:20:15Z"

}  // namespace echelon::op

#endif  // ECHELON_OPERATOR_RECONCILE_WORDS_H_
