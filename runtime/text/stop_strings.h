// Strings that end a generation.
#ifndef ECHELON_RUNTIME_TEXT_STOP_STRINGS_H_
#define ECHELON_RUNTIME_TEXT_STOP_STRINGS_H_

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace echelon {

// Looks for stop strings in text that comes in pieces, and holds back what could still become one.
// How the text is cut in pieces changes nothing: the match is the one that ends first, and of
// those that end together the longest. One thread at a time.
class StopStrings {
 public:
  struct Piece {
    std::string text;            // to be shown: before the match, if there is one
    std::optional<size_t> stop;  // index of the string that was met
  };

  // Empty strings are never met.
  explicit StopStrings(std::vector<std::string> stops);

  // After a match, everything is swallowed. Where it may not end here, no string is met that ends
  // within `text`; it may be the beginning of one that ends later.
  Piece Append(std::string_view text, bool may_end = true);
  // What was held back and did not become a stop string.
  std::string Flush();

 private:
  std::optional<size_t> EndsAt(size_t end) const;
  size_t HeldBytes() const;

  std::vector<std::string> stops_;
  std::string held_;
  bool met_ = false;
};

}  // namespace echelon

#endif  // ECHELON_RUNTIME_TEXT_STOP_STRINGS_H_
