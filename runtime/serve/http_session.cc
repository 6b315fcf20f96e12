#include "runtime/serve/http_session.h"

#include <sys/socket.h>

#include <algorithm>
#include <boost/asio/dispatch.hpp>
#include <boost/asio/post.hpp>
#include <chrono>
#include <exception>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

namespace echelon::serve {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;

constexpr size_t kMaxLingerBytes = 1 << 20;
constexpr double kMinBytesPerSecond = 64 << 10;

std::chrono::steady_clock::duration ToChrono(absl::Duration duration) {
  return std::chrono::steady_clock::duration(absl::ToInt64Nanoseconds(duration));
}

// Whether the peer has closed its end; `readable` sockets only.
bool PeerClosed(int fd) {
  char byte;
  const ssize_t got = recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
  return got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR);
}

HttpCall ToCall(http::request<http::string_body>&& message) {
  HttpCall call;
  call.method = std::string(message.method_string());
  const absl::string_view target(message.target().data(), message.target().size());
  const size_t mark = target.find('?');
  call.path = std::string(target.substr(0, mark));
  if (mark != absl::string_view::npos) call.query = std::string(target.substr(mark + 1));
  for (const auto& field : message)
    call.headers.emplace_back(absl::AsciiStrToLower(std::string(field.name_string())),
                              std::string(field.value()));
  call.body = std::move(message.body());
  return call;
}

// What the handler's `done` needs to reach its session, if that is still there. Only weakly: what
// is posted to a stopped context must not keep that context's own sessions alive.
struct ReplyPath {
  std::shared_ptr<asio::io_context> context;  // outlives the executor
  beast::tcp_stream::executor_type executor;
  std::weak_ptr<HttpSession> session;
};

}  // namespace

HttpSession::HttpSession(asio::ip::tcp::socket socket, std::shared_ptr<HttpShared> shared,
                         std::function<void()> on_end)
    : shared_(std::move(shared)),
      stream_(std::move(socket)),
      buffer_(shared_->options.max_header_bytes + (64 << 10)),
      on_end_(std::move(on_end)) {}

HttpSession::~HttpSession() { ReleaseBody(); }

void HttpSession::Start() {
  asio::dispatch(stream_.get_executor(), [self = shared_from_this()] {
    beast::error_code ignored;
    self->stream_.socket().set_option(asio::ip::tcp::no_delay(true), ignored);
    self->ReadHeader();
  });
}

void HttpSession::Refuse(std::string reason) {
  asio::dispatch(stream_.get_executor(), [self = shared_from_this(), reason = std::move(reason)] {
    self->RefuseUnread(503, reason);
  });
}

void HttpSession::Finish() {
  asio::post(stream_.get_executor(), [self = shared_from_this()] {
    self->finishing_ = true;
    if (self->state_ == State::kIdle || self->state_ == State::kLingering) self->Close();
  });
}

void HttpSession::Cut() {
  asio::post(stream_.get_executor(), [self = shared_from_this()] { self->Close(); });
}

void HttpSession::ReadHeader() {
  if (finishing_ || shared_->stopping) return Close();
  state_ = State::kIdle;
  parser_.emplace();
  parser_->header_limit(static_cast<uint32_t>(shared_->options.max_header_bytes));
  parser_->body_limit(shared_->options.max_body_bytes);
  if (buffer_.size() > 0) {  // a pipelined request has begun to come
    state_ = State::kReading;
    stream_.expires_after(ToChrono(shared_->options.header_time));
    return http::async_read_header(
        stream_, buffer_, *parser_,
        [self = shared_from_this()](beast::error_code error, size_t) { self->OnHeader(error); });
  }
  stream_.expires_after(ToChrono(shared_->options.idle_time));
  stream_.async_read_some(buffer_.prepare(4096),
                          [self = shared_from_this()](beast::error_code error, size_t bytes) {
                            if (error || self->state_ == State::kClosed) return self->Close();
                            self->buffer_.commit(bytes);
                            self->ReadHeader();
                          });
}

// Says what is wrong where the peer can still hear it. (A timed-out stream has been closed
// already.)
bool HttpSession::RefuseBroken(beast::error_code error) {
  const HttpListenerOptions& options = shared_->options;
  if (error == http::error::header_limit)
    RefuseUnread(431, absl::StrCat("the request's header is larger than ", options.max_header_bytes,
                                   " bytes"));
  else if (error == http::error::body_limit)
    RefuseUnread(
        413, absl::StrCat("the request's body is larger than ", options.max_body_bytes, " bytes"));
  else if (error && error.category() == http::make_error_code(http::error::bad_method).category() &&
           error != http::error::end_of_stream && error != http::error::partial_message)
    RefuseUnread(400, absl::StrCat("this is not HTTP/1.1: ", error.message()));
  else if (error)
    Close();
  return static_cast<bool>(error);
}

void HttpSession::OnHeader(beast::error_code error) {
  if (state_ == State::kClosed || RefuseBroken(error)) return;
  arrived_ = absl::Now();
  const auto& header = parser_->get();
  head_ = header.method() == http::verb::head;
  version_ = header.version();
  const auto length = parser_->content_length();
  if (!Claim(length ? *length : 0)) return;
  const auto expect = header.find(http::field::expect);
  if (expect == header.end() || version_ < 11 || parser_->is_done()) return ReadBody();
  if (!beast::iequals(expect->value(), "100-continue"))
    return RefuseUnread(417, "only 'Expect: 100-continue' is understood");
  static constexpr absl::string_view kContinue = "HTTP/1.1 100 Continue\r\n\r\n";
  stream_.expires_after(ToChrono(shared_->options.transfer_time));
  asio::async_write(stream_, asio::buffer(kContinue.data(), kContinue.size()),
                    [self = shared_from_this()](beast::error_code error, size_t) {
                      if (error) return self->Close();
                      self->ReadBody();
                    });
}

// Bodies claim memory before they take it, so that many large ones cannot add up. False: refused.
bool HttpSession::Claim(size_t bytes) {
  if (bytes <= claimed_bytes_) return true;
  const size_t more = bytes - claimed_bytes_;
  const size_t total = shared_->body_bytes.fetch_add(more) + more;
  claimed_bytes_ = bytes;
  // One request alone always has room: its own limit stands.
  if (total <= shared_->options.max_total_body_bytes || total == claimed_bytes_) return true;
  RefuseUnread(503, "too many large requests at once; try again");
  return false;
}

void HttpSession::ReadBody() {
  if (state_ == State::kClosed) return;
  transfer_started_ = absl::Now();
  if (parser_->is_done()) return Dispatch();
  OnBody({});
}

void HttpSession::OnBody(beast::error_code error) {
  if (state_ == State::kClosed || RefuseBroken(error)) return;
  if (parser_->is_done()) return Dispatch();
  const size_t got = parser_->get().body().size();
  if (!Claim(got)) return;
  const absl::Duration left = transfer_started_ + TransferTime(got) - absl::Now();
  stream_.expires_after(ToChrono(std::min(left, shared_->options.transfer_time)));
  http::async_read_some(
      stream_, buffer_, *parser_,
      [self = shared_from_this()](beast::error_code error, size_t) { self->OnBody(error); });
}

void HttpSession::Dispatch() {
  state_ = State::kHandling;
  stream_.expires_never();
  const bool keep_alive = parser_->get().keep_alive();
  HttpCall call = ToCall(parser_->release());
  parser_.reset();
  call.arrived = arrived_;
  call.cancelled = cancelled_ = std::make_shared<std::atomic<bool>>(false);
  auto path = std::make_shared<ReplyPath>(
      ReplyPath{shared_->context.lock(), stream_.get_executor(), weak_from_this()});
  HttpDone done = [path, cancelled = cancelled_, keep_alive](HttpReply reply) {
    asio::post(path->executor,
               [weak = path->session, cancelled, keep_alive, reply = std::move(reply)]() mutable {
                 const auto self = weak.lock();
                 if (self && self->state_ == State::kHandling && self->cancelled_ == cancelled)
                   self->Reply(std::move(reply), keep_alive);
               });
  };
  WatchClient();
  shared_->handler(std::move(call), std::move(done));
}

void HttpSession::WatchClient() {
  stream_.socket().async_wait(
      asio::ip::tcp::socket::wait_read,
      [self = shared_from_this(), cancelled = cancelled_](beast::error_code error) {
        // A pipelined request is left for later; then a client that goes is noticed at the answer.
        if (error || self->state_ != State::kHandling || self->cancelled_ != cancelled) return;
        if (PeerClosed(self->stream_.socket().native_handle())) self->Close();
      });
}

void HttpSession::Reply(HttpReply reply, bool keep_alive) {
  beast::error_code ignored;
  stream_.socket().cancel(ignored);  // WatchClient's wait
  state_ = State::kWriting;
  ReleaseBody();
  try {
    if (const auto finish = std::exchange(reply.finish, nullptr)) finish(&reply);
  } catch (
      const std::exception& error) {  // out of memory: the client is told, and not left waiting
    reply = HttpError(500, absl::StrCat("the answer cannot be written: ", error.what()));
  }
  keep_alive = keep_alive && !finishing_ && !shared_->stopping && !shared_->draining;
  response_.emplace();
  response_->version(version_);
  response_->result(static_cast<unsigned>(reply.code));
  response_->set(http::field::server, "echelon");
  response_->set(http::field::content_type, reply.content_type);
  for (const auto& [name, value] : reply.headers) response_->set(name, value);
  response_->keep_alive(keep_alive);
  response_->body() = std::move(reply.body);
  response_->prepare_payload();
  if (head_) {
    const size_t bytes = response_->body().size();
    response_->body().clear();
    response_->content_length(bytes);
  }
  serializer_.emplace(*response_);
  keep_alive_ = keep_alive;
  transfer_started_ = absl::Now();
  Write();
}

// Piece by piece, so that a client that stops reading is noticed long before the time for all of it
// has passed.
void HttpSession::Write() {
  const absl::Duration left =
      transfer_started_ + TransferTime(response_->body().size()) - absl::Now();
  stream_.expires_after(ToChrono(std::min(left, shared_->options.transfer_time)));
  http::async_write_some(
      stream_, *serializer_,
      [self = shared_from_this()](beast::error_code error, size_t) { self->OnWritten(error); });
}

void HttpSession::OnWritten(beast::error_code error) {
  if (state_ == State::kClosed) return;
  if (error) return Close();
  if (!serializer_->is_done()) return Write();
  serializer_.reset();
  response_.reset();
  if (!keep_alive_) return Linger();
  ReadHeader();
}

void HttpSession::RefuseUnread(int code, absl::string_view text) {
  if (state_ == State::kClosed) return;
  unread_ = true;
  parser_.reset();
  Reply(HttpError(code, text), /*keep_alive=*/false);
}

// Closing while the client still sends would reset the connection and lose the answer: read on,
// within bounds.
void HttpSession::Linger() {
  if (state_ == State::kClosed) return;
  if (state_ != State::kLingering) {
    state_ = State::kLingering;
    beast::error_code ignored;
    stream_.socket().shutdown(asio::ip::tcp::socket::shutdown_send, ignored);
    if (!unread_) return Close();
    stream_.expires_after(std::chrono::seconds(2));
  }
  buffer_.clear();
  stream_.async_read_some(buffer_.prepare(16 << 10),
                          [self = shared_from_this()](beast::error_code error, size_t bytes) {
                            self->lingered_bytes_ += bytes;
                            if (error || self->lingered_bytes_ > kMaxLingerBytes)
                              return self->Close();
                            self->Linger();
                          });
}

void HttpSession::ReleaseBody() { shared_->body_bytes -= std::exchange(claimed_bytes_, 0); }

void HttpSession::Close() {
  if (state_ == State::kClosed) return;
  state_ = State::kClosed;
  if (cancelled_) cancelled_->store(true);
  stream_.close();
  if (auto on_end = std::exchange(on_end_, nullptr)) on_end();
}

absl::Duration HttpSession::TransferTime(size_t bytes) const {
  return shared_->options.transfer_time +
         absl::Seconds(static_cast<double>(bytes) / kMinBytesPerSecond);
}

}  // namespace echelon::serve
