// Which blocks of the KV cache are free: one table for all stages, owned by the head. Pure.
#ifndef ECHELON_RUNTIME_SCHEDULE_BLOCK_POOL_H_
#define ECHELON_RUNTIME_SCHEDULE_BLOCK_POOL_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"

namespace echelon::schedule {

// Blocks that follow each other cost a few bytes on the wire however many they are, so a sequence
// is given such runs where it can be, and room to grow behind them.
class BlockPool {
 public:
  explicit BlockPool(int32_t blocks);

  // `count` free blocks, or none at all where fewer are free. after: the sequence's last block,
  // which the first of them should follow; -1: a new sequence, which goes where it can grow.
  // The same calls give the same blocks.
  std::optional<std::vector<int32_t>> Take(int32_t count, int32_t after = -1);

  // Takes blocks back, in any order. kInternal names a block that is free or none of the pool's;
  // nothing is taken back then.
  absl::Status Give(absl::Span<const int32_t> blocks);

  int32_t capacity() const { return capacity_; }
  int32_t free() const { return free_; }
  int32_t used() const { return capacity_ - free_; }
  std::string ToText() const;  // "free 5 of 8: 0..2 6..7"

 private:
  void TakeFrom(int32_t first, int32_t count, std::vector<int32_t>* taken);
  int32_t capacity_, free_;
  std::map<int32_t, int32_t> runs_;  // first free block -> how many, none adjacent to the next
};

}  // namespace echelon::schedule

#endif  // ECHELON_RUNTIME_SCHEDULE_BLOCK_POOL_H_
