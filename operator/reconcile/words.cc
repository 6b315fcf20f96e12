#include "operator/reconcile/words.h"

#include "absl/strings/str_cat.h"

namespace echelon::op {
namespace {

constexpr size_t kMaxLine = 512;

}  // namespace

std::string OneLine(absl::string_view text) {
  std::string line;
  bool space = false;
  for (const char c : text) {
    const bool blank = static_cast<unsigned char>(c) <= ' ';
    if (blank) {
      space = !line.empty();
      continue;
    }
    if (space) line += ' ';
    space = false;
    line += c;
    if (line.size() > kMaxLine) break;
  }
  if (line.size() <= kMaxLine) return line;
  line.resize(kMaxLine - 3);
  // No half character of UTF-8 at the end.
  while (!line.empty() && (static_cast<unsigned char>(line.back()) & 0xC0) == 0x80) line.pop_back();
  if (!line.empty() && static_cast<unsigned char>(line.back()) >= 0xC0) line.pop_back();
  return line + "...";
}

std::string Count(int number, absl::string_view noun) {
  return absl::StrCat(number, " ", noun, number == 1 ? "" : "s");
}

std::string At(absl::Time moment) {
  return absl::FormatTime("%H:%M:%SZ", moment, absl::UTCTimeZone());
}

}  // namespace echelon::op
