// Runs a Member's calls one at a time on a thread of their own, so that loading or opening never
// holds up heartbeats. Private to runtime/group.
#ifndef ECHELON_RUNTIME_GROUP_MEMBER_THREAD_H_
#define ECHELON_RUNTIME_GROUP_MEMBER_THREAD_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "runtime/group/group.h"
#include "runtime/group/loop.h"

namespace echelon::group {

class MemberThread {
 public:
  // Called from the member's thread (progress from any); must not block. `tag` is Load's.
  struct Callbacks {
    std::function<void(uint64_t tag, int64_t loaded_bytes, int64_t total_bytes)> progress;
    std::function<void(uint64_t tag, const absl::Status&)> loaded;
    std::function<void(uint64_t epoch, const absl::Status&)> opened;
    std::function<void(uint64_t epoch)> idle = {};  // from any thread; the head's
  };
  MemberThread(Member* member, absl::Duration open_timeout, Callbacks callbacks);
  ~MemberThread();

  void Load(uint64_t tag, const std::string& plan_json);
  void Open(const Epoch& epoch);
  void Formed(uint64_t epoch);
  void Hold(uint64_t epoch);
  // Also ends an Open that runs or waits its turn.
  void Close(uint64_t epoch, const absl::Status& why);
  void Stop();  // closes what is open; when it returns no call runs

 private:
  void CloseNow(uint64_t epoch, const absl::Status& why);

  // What a Member may keep of a Load; it outlives this object.
  struct Progress;

  Member* const member_;
  const absl::Duration open_timeout_;
  const Callbacks callbacks_;
  const std::shared_ptr<Progress> progress_;
  std::atomic<uint64_t> closed_through_ = 0;
  uint64_t open_ = 0;  // the member's thread's: the epoch it was told to open and not yet to close
  Loop loop_;
};

}  // namespace echelon::group

#endif  // ECHELON_RUNTIME_GROUP_MEMBER_THREAD_H_
