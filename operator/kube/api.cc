#include "operator/kube/api.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/cord.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"

namespace echelon::op {
namespace {

constexpr size_t kQuoted = 200;
constexpr char kRetryAfter[] = "echelon.dev/retry-after-ms";

// A field of the body's Status object, or "". A Status is small: a long body is something else.
std::string Field(const Response& response, const char* name) {
  if (response.body.size() > (1 << 20)) return "";
  const auto body = nlohmann::json::parse(response.body, nullptr, false);
  if (!body.is_object() || !body.contains(name) || !body[name].is_string()) return "";
  return body[name].get<std::string>();
}

std::string OneLine(std::string text) {
  std::replace_if(
      text.begin(), text.end(), [](unsigned char c) { return absl::ascii_iscntrl(c) != 0; }, ' ');
  return std::string(absl::StripAsciiWhitespace(text));
}

std::string Shortened(std::string text) {
  if (text.size() <= kQuoted) return text;
  size_t end = kQuoted;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;  // whole UTF-8
  return text.substr(0, end) + "...";
}

absl::StatusCode StatusCodeOf(const Response& response) {
  switch (response.code) {
    case 400:
    case 422:
      return absl::StatusCode::kInvalidArgument;
    case 401:
      return absl::StatusCode::kUnauthenticated;
    case 403:
      return absl::StatusCode::kPermissionDenied;
    case 404:
      return absl::StatusCode::kNotFound;
    case 409:
      return ErrorReason(response) == "AlreadyExists" ? absl::StatusCode::kAlreadyExists
                                                      : absl::StatusCode::kAborted;
    case 410:
      return absl::StatusCode::kOutOfRange;
    case 413:
      return absl::StatusCode::kResourceExhausted;
    case 429:
      return absl::StatusCode::kUnavailable;
    default:
      return response.code >= 500 ? absl::StatusCode::kUnavailable : absl::StatusCode::kUnknown;
  }
}

}  // namespace

std::string ErrorReason(const Response& response) { return Field(response, "reason"); }

std::string ErrorMessage(const Response& response) {
  std::string message = OneLine(Field(response, "message"));
  return message.empty() ? Shortened(OneLine(response.body.substr(0, kQuoted + 4))) : message;
}

std::string ErrorText(const Response& response) {
  const std::string reason = ErrorReason(response), message = ErrorMessage(response);
  return absl::StrCat(response.code, reason.empty() ? "" : " ", reason, message.empty() ? "" : ": ",
                      message);
}

absl::Status ToStatus(const Response& response) {
  if (response.ok()) return absl::OkStatus();
  absl::Status status(StatusCodeOf(response), ErrorText(response));
  if (response.retry_after > absl::ZeroDuration()) {
    status.SetPayload(kRetryAfter,
                      absl::Cord(absl::StrCat(absl::ToInt64Milliseconds(response.retry_after))));
  }
  return status;
}

absl::Duration RetryAfter(const absl::Status& status) {
  int64_t delay_ms = 0;
  const auto payload = status.GetPayload(kRetryAfter);
  if (!payload || !absl::SimpleAtoi(std::string(*payload), &delay_ms)) return {};
  return absl::Milliseconds(delay_ms);
}

}  // namespace echelon::op
