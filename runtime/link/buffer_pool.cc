#include "runtime/link/buffer_pool.h"

#include <sys/mman.h>

#include <bit>
#include <cstdint>
#include <cstdlib>
#include <new>

namespace echelon::link {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;
constexpr size_t kAlign = 64;
constexpr size_t kSmallest = size_t{16} << 10;  // below this malloc is as good

size_t RoundUp(size_t nbytes, size_t to) { return (nbytes + to - 1) / to * to; }

// Sizes in steps of an eighth of their power of two, so that batches of nearly one size share
// blocks.
size_t SizeClass(size_t nbytes) {
  if (nbytes <= kSmallest) return kSmallest;
  return RoundUp(nbytes, std::bit_floor(nbytes) / 8);
}

// Huge pages need memory that begins on one: map more and give back both ends.
void* MapHuge(size_t bytes) {
  void* map = mmap(nullptr, bytes + kHugePage, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (map == MAP_FAILED) return nullptr;
  char* const begin = static_cast<char*>(map);
  char* const data = reinterpret_cast<char*>(RoundUp(reinterpret_cast<uintptr_t>(map), kHugePage));
  if (data > begin) munmap(begin, static_cast<size_t>(data - begin));
  const size_t tail = static_cast<size_t>(begin + kHugePage - data);
  if (tail > 0) munmap(data + bytes, tail);
  madvise(data, bytes, MADV_HUGEPAGE);
  return data;
}

void* Allocate(size_t bytes) {
  return bytes >= kHugePage ? MapHuge(bytes)
                            : ::operator new (bytes, std::align_val_t{kAlign}, std::nothrow);
}

void Release(void* data, size_t bytes) {
  if (bytes >= kHugePage) {
    munmap(data, bytes);
  } else {
    ::operator delete (data, std::align_val_t{kAlign});
  }
}

}  // namespace

struct BufferPool::Return {
  std::shared_ptr<BufferPool> pool;
  size_t bytes;
  void operator()(void* data) const { pool->Put({data, bytes}); }
};

std::shared_ptr<BufferPool> BufferPool::Create(size_t keep_bytes) {
  return std::shared_ptr<BufferPool>(new BufferPool(keep_bytes));
}

BufferPool::~BufferPool() {
  for (const Block& block : free_) Release(block.data, block.bytes);
}

std::shared_ptr<void> BufferPool::Take(size_t nbytes) {
  if (nbytes > SIZE_MAX / 2) return nullptr;
  size_t bytes = SizeClass(nbytes);
  if (bytes >= kHugePage) bytes = RoundUp(bytes, kHugePage);
  void* data = nullptr;
  {
    MutexLock lock(&mutex_);
    // The block used last is the one whose bytes are still in the caches.
    for (auto block = free_.rbegin(); block != free_.rend(); ++block) {
      if (block->bytes != bytes) continue;
      data = block->data;
      free_bytes_ -= bytes;
      free_.erase(std::next(block).base());
      break;
    }
  }
  if (data == nullptr) data = Allocate(bytes);
  if (data == nullptr) return nullptr;
  return std::shared_ptr<void>(data, Return{shared_from_this(), bytes});
}

size_t BufferPool::free_bytes() const {
  MutexLock lock(&mutex_);
  return free_bytes_;
}

void BufferPool::Put(Block block) {
  std::vector<Block> surplus;
  {
    MutexLock lock(&mutex_);
    free_.push_back(block);
    free_bytes_ += block.bytes;
    auto keep = free_.begin();
    for (; free_bytes_ > keep_bytes_; ++keep) free_bytes_ -= keep->bytes;
    surplus.assign(free_.begin(), keep);
    free_.erase(free_.begin(), keep);
  }
  for (const Block& old : surplus) Release(old.data, old.bytes);
}

}  // namespace echelon::link
