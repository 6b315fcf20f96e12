#include "operator/kube/watch_lines.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace echelon::op {
namespace {

constexpr size_t kLongestRefusal = 64 << 10;
constexpr size_t kKept = 256 << 10;  // of a line's memory, once it was long

}  // namespace

absl::Status WatchLines::OnBytes(std::string_view bytes) {
  const std::lock_guard lock(mutex_);
  if (head_.ok()) return Feed(bytes);
  const bool early = head_.code == 0;
  const size_t room = early ? longest_line_ + kLongestRefusal : kLongestRefusal;
  if (head_.body.size() + bytes.size() <= room) {
    head_.body += bytes;
  } else if (early) {
    return TooLong();
  }
  return absl::OkStatus();
}

absl::Status WatchLines::OnHeaders(int code, absl::Duration retry_after) {
  const std::lock_guard lock(mutex_);
  head_.code = code;
  head_.retry_after = retry_after;
  if (!head_.ok()) return absl::OkStatus();
  return Feed(std::exchange(head_.body, ""));
}

absl::Status WatchLines::Refusal() {
  const std::lock_guard lock(mutex_);
  return head_.code == 0 ? absl::OkStatus() : ToStatus(head_);
}

void WatchLines::Close() {
  const std::lock_guard lock(mutex_);
  on_line_ = nullptr;
}

absl::Status WatchLines::Feed(std::string_view bytes) {
  if (!on_line_) return absl::OkStatus();
  for (size_t end; (end = bytes.find('\n')) != bytes.npos; bytes.remove_prefix(end + 1)) {
    if (line_.empty()) {
      on_line_(bytes.substr(0, end));  // mostly a whole line is there
      continue;
    }
    line_ += bytes.substr(0, end);
    on_line_(line_);
    line_.clear();
    if (line_.capacity() > kKept) line_.shrink_to_fit();
  }
  line_ += bytes;
  return line_.size() > longest_line_ ? TooLong() : absl::OkStatus();
}

absl::Status WatchLines::TooLong() const {
  return absl::ResourceExhaustedError(
      absl::StrCat("a watch event has over ", longest_line_, " bytes"));
}

}  // namespace echelon::op
