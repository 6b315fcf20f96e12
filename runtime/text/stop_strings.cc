#include "runtime/text/stop_strings.h"

#include <algorithm>
#include <utility>

namespace echelon {

StopStrings::StopStrings(std::vector<std::string> stops) : stops_(std::move(stops)) {}

// The longest stop string that the first `end` held bytes end with.
std::optional<size_t> StopStrings::EndsAt(size_t end) const {
  std::optional<size_t> found;
  for (size_t i = 0; i < stops_.size(); ++i) {
    if (!stops_[i].empty() && std::string_view(held_).substr(0, end).ends_with(stops_[i]) &&
        (!found || stops_[i].size() > stops_[*found].size())) {
      found = i;
    }
  }
  return found;
}

// The longest end of the held text that is the beginning of a stop string.
size_t StopStrings::HeldBytes() const {
  size_t longest = 0;
  for (const std::string& stop : stops_) {
    for (size_t size = stop.empty() ? 0 : std::min(stop.size() - 1, held_.size()); size > longest;
         --size) {
      if (held_.ends_with(std::string_view(stop).substr(0, size))) {
        longest = size;
      }
    }
  }
  return longest;
}

StopStrings::Piece StopStrings::Append(std::string_view text, bool may_end) {
  if (met_) {
    return {};
  }
  const size_t before = held_.size();
  held_.append(text);
  for (size_t end = before + 1; may_end && end <= held_.size(); ++end) {
    if (std::optional<size_t> stop = EndsAt(end)) {
      met_ = true;
      Piece piece{held_.substr(0, end - stops_[*stop].size()), stop};
      held_.clear();
      return piece;
    }
  }
  // A stop string may begin inside a character's bytes only where it is no UTF-8 itself, so what is
  // shown is whole characters.
  const size_t shown = held_.size() - HeldBytes();
  Piece piece{held_.substr(0, shown), std::nullopt};
  held_.erase(0, shown);
  return piece;
}

std::string StopStrings::Flush() { return std::exchange(held_, {}); }

}  // namespace echelon
