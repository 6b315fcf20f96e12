#include "operator/kube/token.h"

#include "absl/strings/ascii.h"

namespace echelon::op {

void Token::Read() {
  read_at_ = SteadyNow();
  const auto text = source_.Read();
  // A line's end, or anything else of that kind, must not reach a header.
  if (text.ok()) token_ = std::string(absl::StripAsciiWhitespace(*text));
}

}  // namespace echelon::op
