#include "runtime/weights/source.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <map>
#include <mutex>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "runtime/weights/crc32.h"
#include "runtime/weights/guarded_copy.h"

namespace echelon::weights {
namespace {

constexpr size_t kMapBytes = 1 << 20;   // below this a mapping costs more than it saves
constexpr size_t kStepBytes = 8 << 20;  // mapped pages populated at once
// Read at once: also cached still, and from slow storage a sign of life.
constexpr size_t kReadBytes = 1 << 20;
constexpr size_t kProbes = 8;

// Whether a range of a file seems to be in the page cache. A file that is not there is better read:
// the kernel then reads ahead as far as it is asked to. (mincore says yes of every file that is not
// the caller's own.) Where a file system does not know such reads, a mapping does no harm.
bool IsCached(int descriptor, uint64_t offset, size_t nbytes) {
  for (size_t probe = 0; probe < kProbes; ++probe) {
    std::byte byte;
    const iovec to{&byte, 1};
    const off_t at = static_cast<off_t>(offset + nbytes / kProbes * probe);
    const ssize_t got = ::preadv2(descriptor, &to, 1, at, RWF_NOWAIT);
    if (got < 0 && errno == EOPNOTSUPP) return true;
    if (got != 1) return false;
  }
  return true;
}

// A file that is open, and mapped as long as its size at that time was.
class OpenFile {
 public:
  static absl::StatusOr<std::unique_ptr<OpenFile>> Open(const std::string& path) {
    const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (descriptor < 0)
      return absl::NotFoundError(absl::StrCat(path, ": cannot be opened: ", std::strerror(errno)));
    return std::unique_ptr<OpenFile>(new OpenFile(descriptor));
  }
  ~OpenFile() {
    if (mapping_ != nullptr) ::munmap(mapping_, nbytes_);
    ::close(descriptor_);
  }
  OpenFile(const OpenFile&) = delete;
  OpenFile& operator=(const OpenFile&) = delete;

  int descriptor() const { return descriptor_; }

  // Copies from the page cache through the mapping. Into huge pages just zeroed this is half as
  // fast again as a read: the zeroed lines are still in the processor's cache, and memcpy uses them
  // where the kernel's copy streams past. False: read instead, which also finds the words for what
  // is wrong. Each step is populated before it is touched, which is cheaper than its faults would
  // be, and then counted; a file cut short after that fails the guarded copy. Nothing is unmapped
  // in between: that would stop every thread that just then faults.
  bool CopyCached(uint64_t offset, absl::Span<std::byte> to, uint32_t* crc32,
                  std::atomic<uint64_t>* read_bytes) const {
    static const size_t page_bytes = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
    if (mapping_ == nullptr || to.size() < kMapBytes) return false;
    if (offset > nbytes_ || to.size() > nbytes_ - offset) return false;
    const size_t lead = offset % page_bytes, mapped_bytes = lead + to.size();
    std::byte* const mapping = mapping_ + (offset - lead);
    if (!IsCached(descriptor_, offset, to.size())) return false;
    size_t counted = 0;
    absl::Cleanup uncount = [&] { *read_bytes -= counted; };
    for (size_t done = 0; done < mapped_bytes; done += kStepBytes) {
      const size_t step = std::min(kStepBytes, mapped_bytes - done), skip = done == 0 ? lead : 0;
      if (::madvise(mapping + done, step, MADV_POPULATE_READ) != 0) return false;
      const absl::Span<std::byte> block = to.subspan(done + skip - lead, step - skip);
      if (!GuardedCopy(block, mapping + done + skip, crc32)) return false;
      *read_bytes += block.size();
      counted += block.size();
    }
    ::madvise(mapping, mapped_bytes, MADV_DONTNEED);  // or the file would count as resident, too
    std::move(uncount).Cancel();
    return true;
  }

 private:
  explicit OpenFile(int descriptor) : descriptor_(descriptor) {
    struct stat file {};
    if (::fstat(descriptor, &file) != 0 || !S_ISREG(file.st_mode) || file.st_size == 0) return;
    nbytes_ = static_cast<uint64_t>(file.st_size);
    void* map = ::mmap(nullptr, nbytes_, PROT_READ, MAP_SHARED, descriptor, 0);
    if (map != MAP_FAILED) mapping_ = static_cast<std::byte*>(map);
  }

  const int descriptor_;
  uint64_t nbytes_ = 0;
  std::byte* mapping_ = nullptr;  // null: it is only read
};

class LocalFileSource final : public WeightSource {
 public:
  absl::Status Read(const std::string& path, uint64_t offset, absl::Span<std::byte> to) override {
    return Fill(path, offset, to, nullptr);
  }

  absl::Status ReadSummed(const std::string& path, uint64_t offset, absl::Span<std::byte> to,
                          uint32_t* crc32) override {
    return Fill(path, offset, to, crc32);
  }

  uint64_t bytes_read() const override { return bytes_read_; }

 private:
  // crc32 may be null.
  absl::Status Fill(const std::string& path, uint64_t offset, absl::Span<std::byte> to,
                    uint32_t* crc32) {
    const absl::StatusOr<const OpenFile*> file = Open(path);
    if (!file.ok()) return file.status();
    if (crc32 != nullptr) *crc32 = 0;
    if ((*file)->CopyCached(offset, to, crc32, &bytes_read_)) return absl::OkStatus();
    if (crc32 != nullptr) *crc32 = 0;
    for (size_t done = 0; done < to.size();) {
      const absl::Span<std::byte> rest = to.subspan(done, kReadBytes);
      const ssize_t got = ::pread((*file)->descriptor(), rest.data(), rest.size(),
                                  static_cast<off_t>(offset + done));
      if (got < 0 && errno == EINTR) continue;
      if (got < 0)
        return absl::DataLossError(absl::StrCat(path, ": reading at byte ", offset + done,
                                                " failed: ", std::strerror(errno)));
      if (got == 0)
        return absl::DataLossError(absl::StrCat(path, ": truncated, ends at byte ", offset + done,
                                                " where weights up to byte ", offset + to.size(),
                                                " are expected; copy the file again"));
      const size_t got_bytes = static_cast<size_t>(got);
      if (crc32 != nullptr) *crc32 = ExtendCrc32(*crc32, rest.first(got_bytes));
      done += got_bytes;
      bytes_read_ += got_bytes;
    }
    return absl::OkStatus();
  }

  absl::StatusOr<const OpenFile*> Open(const std::string& path) {
    const std::lock_guard lock(mutex_);
    const auto found = files_.find(path);
    if (found != files_.end()) return found->second.get();
    absl::StatusOr<std::unique_ptr<OpenFile>> file = OpenFile::Open(path);
    if (!file.ok()) return file.status();
    return (files_[path] = *std::move(file)).get();
  }

  std::mutex mutex_;
  std::map<std::string, std::unique_ptr<OpenFile>> files_;
  std::atomic<uint64_t> bytes_read_ = 0;
};

}  // namespace

absl::Status WeightSource::ReadSummed(const std::string& path, uint64_t offset,
                                      absl::Span<std::byte> to, uint32_t* crc32) {
  absl::Status read = Read(path, offset, to);
  if (read.ok()) *crc32 = ExtendCrc32(0, to);
  return read;
}

std::unique_ptr<WeightSource> LocalFiles() { return std::make_unique<LocalFileSource>(); }

}  // namespace echelon::weights
