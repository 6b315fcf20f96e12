// A worker's end of its stream to the head: one call on a channel of its own, so that a redial
// never inherits a dead connection. Private to runtime/group.
#ifndef ECHELON_RUNTIME_GROUP_WORKER_STREAM_H_
#define ECHELON_RUNTIME_GROUP_WORKER_STREAM_H_

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
class WorkerStream final : public grpc::ClientBidiReactor<v1::FromRank, v1::FromHead> {
 public:
  // From gRPC's threads, in order; must not block. ended: exactly once, after which nothing is
  // called. It gets the stream so that it dies on another thread: the last channel's destructor
  // joins gRPC's threads (1.51).
  struct Callbacks {
    std::function<void(const v1::FromHead&)> message;
    std::function<void(const grpc::Status&, std::shared_ptr<WorkerStream>)> ended;
  };
  // Dials at once and says hello.
  static std::shared_ptr<WorkerStream> Start(const std::string& address, const v1::FromRank& hello,
                                             Callbacks callbacks);

  void Send(const v1::FromRank& message);
  void SendHeartbeat();  // none when something is on its way already
  void End();            // after what was sent
  void Abort();          // at once

 private:
  WorkerStream(const std::string& address, Callbacks callbacks);

  void OnReadDone(bool ok) override;
  void OnWriteDone(bool ok) override;
  void OnDone(const grpc::Status& status) override;
  void Write() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const Callbacks callbacks_;
  std::unique_ptr<v1::Group::Stub> stub_;
  grpc::ClientContext context_;
  v1::FromHead in_;
  std::shared_ptr<WorkerStream> self_;  // until OnDone

  Mutex mutex_;
  std::deque<v1::FromRank> out_
      ABSL_GUARDED_BY(mutex_);  // the front is being written when writing_
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool ending_ ABSL_GUARDED_BY(mutex_) = false;  // nothing more is sent
  bool held_ ABSL_GUARDED_BY(mutex_) = true;     // while it is, writes may start from any thread
};

}  // namespace echelon::group

#endif  // ECHELON_RUNTIME_GROUP_WORKER_STREAM_H_
