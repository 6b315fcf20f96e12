// What the C ABI gives, as C++ values. For this room's .cc files only.
#ifndef ECHELON_RUNTIME_TEXT_CAPI_STATUS_H_
#define ECHELON_RUNTIME_TEXT_CAPI_STATUS_H_

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/text/capi/capi.h"

namespace echelon {

// Takes the string's text and frees it.
std::string TakeString(EchelonTextString string);

// INVALID_ARGUMENT, RESOURCE_EXHAUSTED or INTERNAL; `where` (a file, say) stands before the
// message.
absl::Status CapiError(EchelonTextCode code, std::string_view where, std::string_view message);

// Takes the string: the result when the code is OK, else the message.
absl::StatusOr<std::string> TakeResult(EchelonTextCode code, EchelonTextString string,
                                       std::string_view where = "");

}  // namespace echelon

#endif  // ECHELON_RUNTIME_TEXT_CAPI_STATUS_H_
