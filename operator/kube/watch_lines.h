// Cuts the bytes of a watch into lines, once it is known that they are a watch and no refusal.
#ifndef ECHELON_OPERATOR_KUBE_WATCH_LINES_H_
#define ECHELON_OPERATOR_KUBE_WATCH_LINES_H_

#include <mutex>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "operator/kube/api.h"

namespace echelon::op {

class WatchLines {
 public:
  WatchLines(Api::OnLine on_line, size_t longest_line)
      : on_line_(std::move(on_line)), longest_line_(longest_line) {}

  // Bytes and headers may come in either order, from any thread. The error: a line is too long, and
  // the watch must end.
  absl::Status OnBytes(std::string_view bytes);
  absl::Status OnHeaders(int code, absl::Duration retry_after);
  // What the headers and the body of a refusal say; Ok: it was a watch.
  absl::Status Refusal();
  // No line comes after it has returned. Not from on_line.
  void Close();

 private:
  absl::Status Feed(std::string_view bytes);
  absl::Status TooLong() const;

  std::mutex mutex_;  // held while on_line runs, which keeps the lines in order
  Api::OnLine on_line_;
  const size_t longest_line_;
  Response head_;  // code 0: not there yet; the body: of a refusal, or what came before the headers
  std::string line_;  // its beginning
};

}  // namespace echelon::op

#endif  // ECHELON_OPERATOR_KUBE_WATCH_LINES_H_
