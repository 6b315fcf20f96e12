#include "runtime/group/head_stream.h"

#include <utility>

namespace echelon::group {

std::shared_ptr<HeadStream> HeadStream::Create(grpc::CallbackServerContext* context) {
  std::shared_ptr<HeadStream> stream(new HeadStream(context));
  stream->self_ = stream;
  return stream;
}

void HeadStream::Begin(Callbacks callbacks) {
  callbacks_ = std::move(callbacks);
  StartRead(&in_);
}

void HeadStream::Send(const v1::FromHead& message) {
  MutexLock lock(&mutex_);
  if (ending_) return;
  out_.push_back(message);
  if (!writing_) Write();
}

void HeadStream::SendHeartbeat() {
  MutexLock lock(&mutex_);
  if (ending_ || writing_) return;
  out_.emplace_back().mutable_heartbeat();
  Write();
}

void HeadStream::Write() {
  writing_ = true;
  StartWrite(&out_.front());
}

void HeadStream::End(const grpc::Status& status) {
  MutexLock lock(&mutex_);
  if (ending_) return;
  ending_ = true;
  status_ = status;
  FinishWhenIdle();
}

void HeadStream::Abort() {
  MutexLock lock(&mutex_);
  if (finished_) return;  // the context may be gone
  context_->TryCancel();
  if (!ending_) status_ = grpc::Status(grpc::StatusCode::UNAVAILABLE, "dropped");
  ending_ = true;
  FinishWhenIdle();
}

void HeadStream::FinishWhenIdle() {
  if (writing_ || finished_) return;
  finished_ = true;
  Finish(status_);
}

void HeadStream::OnReadDone(bool ok) {
  if (!ok) {
    callbacks_.lost();
    return End(grpc::Status(grpc::StatusCode::CANCELLED, "the rank has left"));
  }
  callbacks_.message(in_);
  StartRead(&in_);
}

void HeadStream::OnWriteDone(bool ok) {
  MutexLock lock(&mutex_);
  writing_ = false;
  out_.pop_front();
  if (!ok) out_.clear();
  if (!out_.empty()) return Write();
  if (ending_) FinishWhenIdle();
}

void HeadStream::OnCancel() {
  callbacks_.lost();
  End(grpc::Status(grpc::StatusCode::CANCELLED, "the stream broke"));
}

void HeadStream::OnDone() {
  const std::shared_ptr<HeadStream> self = std::move(self_);
  callbacks_.ended();
}

}  // namespace echelon::group
