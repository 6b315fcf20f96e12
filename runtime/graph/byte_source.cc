#include "runtime/graph/byte_source.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"

namespace echelon::graph {
namespace {

absl::Status PastEnd(const ByteSource& source, uint64_t offset, uint64_t nbytes) {
  return absl::DataLossError(absl::StrCat(source.name(), ": truncated: bytes ", offset, " to ",
                                          offset + nbytes, " are wanted, the file has ",
                                          source.size()));
}

class FileSource : public ByteSource {
 public:
  FileSource(std::string path, int fd, uint64_t size)
      : path_(std::move(path)), fd_(fd), size_(size) {}
  ~FileSource() override { close(fd_); }
  FileSource(const FileSource&) = delete;
  FileSource& operator=(const FileSource&) = delete;

  const std::string& name() const override { return path_; }
  uint64_t size() const override { return size_; }

  absl::Status Read(uint64_t offset, uint64_t nbytes, char* to) const override {
    if (offset > size_ || nbytes > size_ - offset) return PastEnd(*this, offset, nbytes);
    constexpr uint64_t kPiece = 1u << 30;  // one call reads at most 2 GiB
    while (nbytes > 0) {
      const ssize_t got = pread(fd_, to, std::min(nbytes, kPiece), static_cast<off_t>(offset));
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) return absl::UnavailableError(absl::StrCat(path_, ": ", strerror(errno)));
      if (got == 0) return PastEnd(*this, offset, nbytes);  // shrank since it was opened
      offset += got, nbytes -= got, to += got;
    }
    return absl::OkStatus();
  }

 private:
  const std::string path_;
  const int fd_;
  const uint64_t size_;
};

class MemorySource : public ByteSource {
 public:
  MemorySource(std::string_view bytes, std::string name) : bytes_(bytes), name_(std::move(name)) {}
  const std::string& name() const override { return name_; }
  uint64_t size() const override { return bytes_.size(); }
  absl::Status Read(uint64_t offset, uint64_t nbytes, char* to) const override {
    if (offset > size() || nbytes > size() - offset) return PastEnd(*this, offset, nbytes);
    std::copy_n(bytes_.data() + offset, nbytes, to);
    return absl::OkStatus();
  }

 private:
  const std::string_view bytes_;
  const std::string name_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<ByteSource>> OpenFile(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) {
    const std::string what = absl::StrCat("cannot open ", path, ": ", strerror(errno));
    return errno == ENOENT ? absl::NotFoundError(what) : absl::PermissionDeniedError(what);
  }
  struct stat about {};
  if (fstat(fd, &about) != 0 || !S_ISREG(about.st_mode)) {
    close(fd);
    return absl::InvalidArgumentError(absl::StrCat(path, ": not a regular file"));
  }
  return std::make_unique<FileSource>(path, fd, static_cast<uint64_t>(about.st_size));
}

std::unique_ptr<ByteSource> FromMemory(std::string_view bytes, std::string name) {
  return std::make_unique<MemorySource>(bytes, std::move(name));
}

std::string Quoted(std::string_view name) {
  constexpr size_t kMost = 120;
  const std::string escaped = absl::CHexEscape(std::string(name.substr(0, kMost)));
  return absl::StrCat("'", escaped, name.size() > kMost ? "..." : "", "'");
}

}  // namespace echelon::graph
