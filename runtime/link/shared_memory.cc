#include "runtime/link/shared_memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace echelon::link {
namespace {

constexpr uint64_t kPage = 4096;
constexpr int kSeals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
constexpr char kNamePrefix[] = "echelon-link-";
constexpr size_t kRandomBytes = 16;

uint64_t Pages(uint64_t nbytes) { return (nbytes + kPage - 1) / kPage * kPage; }

struct Address {
  sockaddr_un value{};
  socklen_t size = 0;
  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&value); }
};

// The path of an abstract name begins with a zero byte.
Address AbstractAddress(absl::string_view name) {
  Address address;
  address.value.sun_family = AF_UNIX;
  std::memcpy(address.value.sun_path + 1, name.data(), name.size());
  address.size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name.size());
  return address;
}

Fd UnixSocket() { return Fd(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)); }

// One byte, since a message without any carries no descriptor.
struct Message {
  char byte = 0;
  iovec piece{&byte, 1};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
  msghdr header{};

  Message() {
    header.msg_iov = &piece;
    header.msg_iovlen = 1;
    header.msg_control = control.data();
    header.msg_controllen = control.size();
  }
};

bool IsOurUser(int socket) {
  ucred peer{};
  socklen_t size = sizeof(peer);
  return getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 && peer.uid == geteuid();
}

}  // namespace

struct SharedMemory::Taken {
  std::array<std::atomic<uint32_t>, kSlots> slots;
};

SharedMemory::SharedMemory(Fd fd, void* map, uint64_t slot_bytes)
    : fd_(std::move(fd)), map_(static_cast<std::byte*>(map)), slot_bytes_(slot_bytes) {
  static_assert(sizeof(Taken) <= kPage && std::atomic<uint32_t>::is_always_lock_free);
}

SharedMemory::~SharedMemory() { munmap(map_, kPage + kSlots * slot_bytes_); }

std::shared_ptr<SharedMemory> SharedMemory::Map(Fd fd, uint64_t bytes) {
  void* map = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd.get(), 0);
  if (map == MAP_FAILED) return nullptr;
  return std::shared_ptr<SharedMemory>(
      new SharedMemory(std::move(fd), map, (bytes - kPage) / kSlots));
}

std::shared_ptr<SharedMemory> SharedMemory::Create(uint64_t slot_bytes) {
  const uint64_t bytes = kPage + kSlots * Pages(slot_bytes);
  Fd fd(memfd_create("echelon-link", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (fd.get() < 0 || ftruncate(fd.get(), static_cast<off_t>(bytes)) != 0 ||
      fcntl(fd.get(), F_ADD_SEALS, kSeals) != 0) {
    return nullptr;
  }
  return Map(std::move(fd), bytes);
}

std::shared_ptr<SharedMemory> SharedMemory::Adopt(Fd fd) {
  struct stat status {};
  const int seals = fcntl(fd.get(), F_GET_SEALS);
  if (seals < 0 || (seals & F_SEAL_SHRINK) == 0 || fstat(fd.get(), &status) != 0) return nullptr;
  const auto bytes = static_cast<uint64_t>(status.st_size);
  if (bytes <= kPage || (bytes - kPage) % (kSlots * kPage) != 0) return nullptr;
  return Map(std::move(fd), bytes);
}

std::byte* SharedMemory::At(uint32_t slot) const { return map_ + kPage + slot * slot_bytes_; }

std::optional<uint32_t> SharedMemory::Take(uint64_t nbytes) {
  if (nbytes > slot_bytes_) return std::nullopt;
  auto& slots = reinterpret_cast<Taken*>(map_)->slots;
  for (uint32_t slot = 0; slot < kSlots; ++slot) {  // the first ones stay in the caches
    if (slots[slot].load(std::memory_order_acquire) != 0) continue;
    slots[slot].store(1, std::memory_order_relaxed);
    return slot;
  }
  return std::nullopt;
}

void SharedMemory::GiveBack(uint32_t slot) {
  reinterpret_cast<Taken*>(map_)->slots[slot].store(0, std::memory_order_release);
}

std::optional<SharedMemoryOffer> SharedMemoryOffer::Make() {
  std::string random(kRandomBytes, '\0');
  if (getrandom(random.data(), random.size(), 0) != static_cast<ssize_t>(random.size()))
    return std::nullopt;
  std::string name = absl::StrCat(kNamePrefix, absl::BytesToHexString(random));
  const Address address = AbstractAddress(name);
  Fd fd = UnixSocket();
  if (fd.get() < 0 || bind(fd.get(), address.get(), address.size) != 0 || listen(fd.get(), 1) != 0)
    return std::nullopt;
  return SharedMemoryOffer(std::move(fd), std::move(name));
}

std::shared_ptr<SharedMemory> SharedMemoryOffer::Poll() {
  if (peer_.get() < 0) {
    peer_ = Fd(accept4(fd_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (peer_.get() < 0) return nullptr;
    if (!IsOurUser(peer_.get())) peer_ = Fd();
  }
  Message message;
  if (recvmsg(peer_.get(), &message.header, MSG_CMSG_CLOEXEC) < 0) return nullptr;
  const cmsghdr* control = CMSG_FIRSTHDR(&message.header);
  if (control == nullptr || control->cmsg_level != SOL_SOCKET || control->cmsg_type != SCM_RIGHTS ||
      control->cmsg_len != CMSG_LEN(sizeof(int))) {
    return nullptr;
  }
  int fd = -1;
  std::memcpy(&fd, CMSG_DATA(control), sizeof(fd));
  return SharedMemory::Adopt(Fd(fd));
}

std::shared_ptr<SharedMemory> AnswerOffer(const std::string& name, uint64_t slot_bytes) {
  if (name.size() != sizeof(kNamePrefix) - 1 + 2 * kRandomBytes ||
      !absl::StartsWith(name, kNamePrefix)) {
    return nullptr;
  }
  const Address address = AbstractAddress(name);
  const Fd socket = UnixSocket();
  if (socket.get() < 0 || connect(socket.get(), address.get(), address.size) != 0 ||
      !IsOurUser(socket.get())) {
    return nullptr;
  }
  std::shared_ptr<SharedMemory> memory = SharedMemory::Create(slot_bytes);
  if (memory == nullptr) return nullptr;
  Message message;
  cmsghdr* control = CMSG_FIRSTHDR(&message.header);
  control->cmsg_level = SOL_SOCKET;
  control->cmsg_type = SCM_RIGHTS;
  control->cmsg_len = CMSG_LEN(sizeof(int));
  const int fd = memory->fd();
  std::memcpy(CMSG_DATA(control), &fd, sizeof(fd));
  return sendmsg(socket.get(), &message.header, MSG_NOSIGNAL) == 1 ? memory : nullptr;
}

}  // namespace echelon::link
