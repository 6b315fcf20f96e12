// Memory for received tensors that is used again: an 8 MiB activation must not fault its pages in
// anew at every step.
#ifndef ECHELON_RUNTIME_LINK_BUFFER_POOL_H_
#define ECHELON_RUNTIME_LINK_BUFFER_POOL_H_

#include <cstddef>
#include <memory>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "runtime/sync/mutex.h"

namespace echelon::link {

// Thread-safe. Blocks return when their last owner dies, on whatever thread; the pool lives as long
// as its blocks.
class BufferPool : public std::enable_shared_from_this<BufferPool> {
 public:
  static constexpr size_t kDefaultKeepBytes = size_t{256} << 20;

  // keep_bytes: what free blocks may hold together; the longest unused go first.
  static std::shared_ptr<BufferPool> Create(size_t keep_bytes = kDefaultKeepBytes);
  ~BufferPool();

  // At least nbytes, 64-byte aligned, uninitialised; from 2 MiB on in huge pages where the system
  // gives them. Null when there is no memory.
  std::shared_ptr<void> Take(size_t nbytes);

  size_t free_bytes() const;

 private:
  struct Block {
    void* data;
    size_t bytes;
  };
  struct Return;

  explicit BufferPool(size_t keep_bytes) : keep_bytes_(keep_bytes) {}
  void Put(Block block);

  const size_t keep_bytes_;
  mutable Mutex mutex_;
  std::vector<Block> free_ ABSL_GUARDED_BY(mutex_);  // longest unused first
  size_t free_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace echelon::link

#endif  // ECHELON_RUNTIME_LINK_BUFFER_POOL_H_
