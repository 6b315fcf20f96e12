// The head's end of one rank's stream. Private to runtime/group.
#ifndef ECHELON_RUNTIME_GROUP_HEAD_STREAM_H_
#define ECHELON_RUNTIME_GROUP_HEAD_STREAM_H_

#include <grpcpp/grpcpp.h>

#include <deque>
#include <functional>
#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "proto/group.grpc.pb.h"
#include "runtime/sync/mutex.h"

namespace echelon::group {

// Thread-safe. Lives until the call is over and no one holds it.
class HeadStream final : public grpc::ServerBidiReactor<v1::FromRank, v1::FromHead> {
 public:
  // From gRPC's threads, in order; must not block. ended: exactly once, after which nothing is
  // called.
  struct Callbacks {
    std::function<void(const v1::FromRank&)> message;
    std::function<void()>
        lost;  // the rank's side has ended or broken: at once, before gRPC is done with the call
    std::function<void()> ended;
  };
  static std::shared_ptr<HeadStream> Create(grpc::CallbackServerContext* context);

  void Begin(Callbacks callbacks);
  void Send(const v1::FromHead& message);
  void SendHeartbeat();  // none when something is on its way already: a rank that does not read
                         // costs no memory
  // After what was sent. A refused rank gets the status.
  void End(const grpc::Status& status);
  void Abort();  // at once, whatever is under way

  std::string peer() const { return peer_; }

 private:
  explicit HeadStream(grpc::CallbackServerContext* context)
      : context_(context), peer_(context->peer()) {}

  void OnReadDone(bool ok) override;
  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;
  void Write() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void FinishWhenIdle() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  grpc::CallbackServerContext* const context_;  // gRPC's: valid until the call is over
  const std::string peer_;
  Callbacks callbacks_;
  v1::FromRank in_;
  std::shared_ptr<HeadStream> self_;  // until OnDone

  Mutex mutex_;
  std::deque<v1::FromHead> out_
      ABSL_GUARDED_BY(mutex_);  // the front is being written when writing_
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool ending_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
  grpc::Status status_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace echelon::group

#endif  // ECHELON_RUNTIME_GROUP_HEAD_STREAM_H_
