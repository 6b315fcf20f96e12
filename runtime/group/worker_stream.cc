#include "runtime/group/worker_stream.h"

#include <utility>

#include "runtime/group/wire.h"

namespace echelon::group {
namespace {

std::shared_ptr<grpc::Channel> NewChannel(const std::string& address) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL,
                   1);  // else a new channel shares the old one's connection
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);
  arguments.SetMaxReceiveMessageSize(kMaxFromHeadBytes);
  return grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments);
}

}  // namespace

WorkerStream::WorkerStream(const std::string& address, Callbacks callbacks)
    : callbacks_(std::move(callbacks)), stub_(v1::Group::NewStub(NewChannel(address))) {}

std::shared_ptr<WorkerStream> WorkerStream::Start(const std::string& address,
                                                  const v1::FromRank& hello, Callbacks callbacks) {
  std::shared_ptr<WorkerStream> stream(new WorkerStream(address, std::move(callbacks)));
  stream->self_ = stream;
  stream->stub_->async()->Join(&stream->context_, stream.get());
  stream->AddHold();
  stream->StartRead(&stream->in_);
  stream->Send(hello);
  stream->StartCall();
  return stream;
}

void WorkerStream::Send(const v1::FromRank& message) {
  MutexLock lock(&mutex_);
  if (ending_) return;
  out_.push_back(message);
  if (!writing_) Write();
}

void WorkerStream::SendHeartbeat() {
  MutexLock lock(&mutex_);
  if (ending_ || writing_) return;
  out_.emplace_back().mutable_heartbeat();
  Write();
}

void WorkerStream::Write() {
  writing_ = true;
  StartWrite(&out_.front());
}

void WorkerStream::End() {
  MutexLock lock(&mutex_);
  if (ending_) return;
  ending_ = true;
  if (!writing_) StartWritesDone();
}

void WorkerStream::Abort() { context_.TryCancel(); }

void WorkerStream::OnReadDone(bool ok) {
  if (ok) {
    callbacks_.message(in_);
    return StartRead(&in_);
  }
  MutexLock lock(&mutex_);
  ending_ = true;
  if (std::exchange(held_, false)) RemoveHold();
}

void WorkerStream::OnWriteDone(bool ok) {
  MutexLock lock(&mutex_);
  writing_ = false;
  out_.pop_front();
  if (!ok) {
    ending_ = true;
    return out_.clear();
  }
  if (!out_.empty()) return Write();
  if (ending_ && held_) StartWritesDone();
}

void WorkerStream::OnDone(const grpc::Status& status) {
  const auto ended = callbacks_.ended;  // *this may be gone before the call returns
  ended(status, std::move(self_));
}

}  // namespace echelon::group
