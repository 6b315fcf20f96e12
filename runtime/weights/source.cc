#include "runtime/weights/source.h"

#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <map>
#include <mutex>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"

namespace echelon::weights {
namespace {

class LocalFileSource final : public WeightSource {
 public:
  ~LocalFileSource() override {
    for (const auto& [path, descriptor] : descriptors_) ::close(descriptor);
  }

  absl::Status Read(const std::string& path, uint64_t offset, absl::Span<std::byte> to) override {
    const absl::StatusOr<int> descriptor = Open(path);
    if (!descriptor.ok()) return descriptor.status();
    for (size_t done = 0; done < to.size();) {
      const ssize_t got =
          ::pread(*descriptor, to.data() + done, to.size() - done, static_cast<off_t>(offset + done));
      if (got < 0 && errno == EINTR) continue;
      if (got < 0)
        return absl::DataLossError(absl::StrCat(path, ": reading at byte ", offset + done, " failed: ",
                                                std::strerror(errno)));
      if (got == 0)
        return absl::DataLossError(absl::StrCat(path, ": truncated, ends at byte ", offset + done,
                                                " where weights up to byte ", offset + to.size(),
                                                " are expected; copy the file again"));
      done += static_cast<size_t>(got);
      bytes_read_ += static_cast<uint64_t>(got);
    }
    return absl::OkStatus();
  }

  uint64_t bytes_read() const override { return bytes_read_; }

 private:
  absl::StatusOr<int> Open(const std::string& path) {
    const std::lock_guard lock(mutex_);
    const auto found = descriptors_.find(path);
    if (found != descriptors_.end()) return found->second;
    const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (descriptor < 0)
      return absl::NotFoundError(absl::StrCat(path, ": cannot be opened: ", std::strerror(errno)));
    return descriptors_[path] = descriptor;
  }

  std::mutex mutex_;
  std::map<std::string, int> descriptors_;
  std::atomic<uint64_t> bytes_read_ = 0;
};

}  // namespace

std::unique_ptr<WeightSource> LocalFiles() { return std::make_unique<LocalFileSource>(); }

}  // namespace echelon::weights
