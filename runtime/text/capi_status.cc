#include "runtime/text/capi_status.h"

#include "absl/strings/str_cat.h"

namespace echelon {

std::string TakeString(EchelonTextString string) {
  std::string text(string.data == nullptr ? "" : string.data, string.size);
  echelon_text_string_free(string);
  return text;
}

absl::Status CapiError(EchelonTextCode code, std::string_view where, std::string_view message) {
  std::string text(message);
  if (!where.empty()) {
    text = absl::StrCat(std::string(where), ": ", text);
  }
  switch (code) {
    case ECHELON_TEXT_OK:
      return absl::OkStatus();
    case ECHELON_TEXT_INVALID:
      return absl::InvalidArgumentError(text);
    case ECHELON_TEXT_LIMIT:
      return absl::ResourceExhaustedError(text);
    case ECHELON_TEXT_INTERNAL:
      break;
  }
  return absl::InternalError(text);
}

absl::StatusOr<std::string> TakeResult(EchelonTextCode code, EchelonTextString string,
                                       std::string_view where) {
  std::string text = TakeString(string);
  if (code != ECHELON_TEXT_OK) {
    return CapiError(code, where, text);
  }
  return text;
}

}  // namespace echelon
