// Memory that both ends of a link see, where they are on one machine: the sender copies a frame's
// tensors once, the receiver uses them where they lie. Private to runtime/link.
//
// The sender says in an offer frame by which name it can be reached on a socket of the abstract
// namespace, which no other machine (nor another network namespace) has. The receiver makes the
// memory, sealed against shrinking, and passes it there. Whatever goes wrong, nothing is shared and
// bytes follow their frames over TCP; when a process dies, nothing of it is left.
#ifndef ECHELON_RUNTIME_LINK_SHARED_MEMORY_H_
#define ECHELON_RUNTIME_LINK_SHARED_MEMORY_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "runtime/link/socket.h"

namespace echelon::link {

// A few slots of equal size. The sender takes one for a frame, the receiver gives it back when the
// frame's tensors are gone. Pages come when they are first written to.
class SharedMemory {
 public:
  static constexpr uint32_t kSlots = 16;

  // Null where the system refuses.
  static std::shared_ptr<SharedMemory> Create(uint64_t slot_bytes);
  // The other end's. Null unless it is as Create makes it.
  static std::shared_ptr<SharedMemory> Adopt(Fd fd);
  ~SharedMemory();

  // The first free slot, if any and if nbytes fit. One thread at a time.
  std::optional<uint32_t> Take(uint64_t nbytes);
  void GiveBack(uint32_t slot);  // from any thread
  bool Has(uint32_t slot, uint64_t nbytes) const { return slot < kSlots && nbytes <= slot_bytes_; }
  std::byte* At(uint32_t slot) const;  // precondition: slot < kSlots
  int fd() const { return fd_.get(); }

 private:
  struct Taken;
  SharedMemory(Fd fd, void* map, uint64_t slot_bytes);
  static std::shared_ptr<SharedMemory> Map(Fd fd, uint64_t bytes);

  const Fd fd_;
  std::byte* const map_;
  const uint64_t slot_bytes_;  // our own copy: the other end can write to all that is mapped
};

// The sender's: waits for the receiver's memory without ever blocking.
class SharedMemoryOffer {
 public:
  static std::optional<SharedMemoryOffer> Make();
  const std::string& name() const { return name_; }
  // Null while nothing has come.
  std::shared_ptr<SharedMemory> Poll();

 private:
  SharedMemoryOffer(Fd fd, std::string name) : fd_(std::move(fd)), name_(std::move(name)) {}

  Fd fd_, peer_;
  std::string name_;
};

// The receiver's answer: memory that the offerer can map now. Null where it cannot be passed.
std::shared_ptr<SharedMemory> AnswerOffer(const std::string& name, uint64_t slot_bytes);

}  // namespace echelon::link

#endif  // ECHELON_RUNTIME_LINK_SHARED_MEMORY_H_
