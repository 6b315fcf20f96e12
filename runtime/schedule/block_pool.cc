#include "runtime/schedule/block_pool.h"

#include <algorithm>
#include <iterator>

#include "absl/strings/str_cat.h"

namespace echelon::schedule {

BlockPool::BlockPool(int32_t blocks) : capacity_(std::max(blocks, 0)), free_(capacity_) {
  if (capacity_ > 0) runs_[0] = capacity_;
}

std::optional<std::vector<int32_t>> BlockPool::Take(int32_t count, int32_t after) {
  if (count < 0 || count > free_) return std::nullopt;
  std::vector<int32_t> taken;
  taken.reserve(count);
  if (const auto next = runs_.find(after + 1); after >= 0 && next != runs_.end())
    TakeFrom(next->first, std::min(count, next->second), &taken);
  while (static_cast<int32_t>(taken.size()) < count) {
    const auto largest =
        std::max_element(runs_.begin(), runs_.end(),
                         [](const auto& a, const auto& b) { return a.second < b.second; });
    const auto [first, length] = *largest;
    const int32_t wanted = std::min(count - static_cast<int32_t>(taken.size()), length);
    // Whoever owns the block before this run may grow into it: leave half of what is not needed.
    const int32_t room = first == 0 ? 0 : (length - wanted) / 2;
    TakeFrom(first + room, wanted, &taken);
  }
  return taken;
}

// The blocks are free and within one run.
void BlockPool::TakeFrom(int32_t first, int32_t count, std::vector<int32_t>* taken) {
  const auto run = std::prev(runs_.upper_bound(first));
  const int32_t begin = run->first, end = run->first + run->second;
  runs_.erase(run);
  if (begin < first) runs_[begin] = first - begin;
  if (first + count < end) runs_[first + count] = end - first - count;
  for (int32_t i = 0; i < count; ++i) taken->push_back(first + i);
  free_ -= count;
}

absl::Status BlockPool::Give(absl::Span<const int32_t> blocks) {
  std::vector<int32_t> given(blocks.begin(), blocks.end());
  std::sort(given.begin(), given.end());
  for (size_t i = 0; i < given.size(); ++i) {
    const int32_t block = given[i];
    const auto after = runs_.upper_bound(block);
    const bool is_free =
        (i > 0 && given[i - 1] == block) ||
        (after != runs_.begin() && std::prev(after)->first + std::prev(after)->second > block);
    if (block < 0 || block >= capacity_ || is_free)
      return absl::InternalError(
          absl::StrCat("block ", block, " of the KV cache is given back, ",
                       is_free ? "but it is free" : "but there is no such block"));
  }
  for (const int32_t block : given) {
    const auto after = runs_.find(block + 1);
    int32_t length = 1;
    if (after != runs_.end()) {
      length += after->second;
      runs_.erase(after);
    }
    const auto next = runs_.lower_bound(block);
    if (next != runs_.begin() && std::prev(next)->first + std::prev(next)->second == block) {
      std::prev(next)->second += length;
    } else {
      runs_[block] = length;
    }
  }
  free_ += static_cast<int32_t>(given.size());
  return absl::OkStatus();
}

std::string BlockPool::ToText() const {
  std::string text = absl::StrCat("free ", free_, " of ", capacity_, ":");
  for (const auto& [first, count] : runs_) {
    absl::StrAppend(&text, " ", first);
    if (count > 1) absl::StrAppend(&text, "..", first + count - 1);
  }
  return text;
}

}  // namespace echelon::schedule
