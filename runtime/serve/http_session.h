// One connection of an HttpListener. Private to runtime/serve.
#ifndef ECHELON_RUNTIME_SERVE_HTTP_SESSION_H_
#define ECHELON_RUNTIME_SERVE_HTTP_SESSION_H_

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/strand.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http.hpp>
#include <functional>
#include <memory>
#include <optional>

#include "runtime/serve/http_listener.h"

namespace echelon::serve {

// What the sessions of one listener share.
struct HttpShared {
  HttpListenerOptions options;
  HttpHandler handler;
  // Owned by the listener; a `done` in flight holds it, so that it may be called after the listener
  // is gone.
  std::weak_ptr<boost::asio::io_context> context;
  std::atomic<size_t> body_bytes{0};  // claimed by requests being read or handled
  std::atomic<bool> stopping{false};
  std::atomic<bool> draining{false};  // every answer says Connection: close
};

// Everything runs on the connection's strand. The listener holds a session until `on_end`, which is
// called once, when its socket is closed.
class HttpSession : public std::enable_shared_from_this<HttpSession> {
 public:
  HttpSession(boost::asio::ip::tcp::socket socket, std::shared_ptr<HttpShared> shared,
              std::function<void()> on_end);
  ~HttpSession();

  void Start();
  // Answers 503 with `reason` and closes.
  void Refuse(std::string reason);
  // Closes at once when idle, after the answer when not. From any thread.
  void Finish();
  // Closes at once. From any thread.
  void Cut();

 private:
  using Parser = boost::beast::http::request_parser<boost::beast::http::string_body>;

  void ReadHeader();
  void OnHeader(boost::beast::error_code error);
  void ReadBody();
  void OnBody(boost::beast::error_code error);
  bool RefuseBroken(boost::beast::error_code error);
  void Dispatch();
  void WatchClient();
  void Reply(HttpReply reply, bool keep_alive);
  bool Claim(size_t bytes);
  void Write();
  void OnWritten(boost::beast::error_code error);
  void RefuseUnread(int code, absl::string_view text);
  void Linger();
  void ReleaseBody();
  void Close();
  absl::Duration TransferTime(size_t bytes) const;

  enum class State { kIdle, kReading, kHandling, kWriting, kLingering, kClosed };

  std::shared_ptr<HttpShared> shared_;
  boost::beast::tcp_stream stream_;
  boost::beast::flat_buffer buffer_;
  std::optional<Parser> parser_;
  std::optional<boost::beast::http::response<boost::beast::http::string_body>> response_;
  std::optional<boost::beast::http::response_serializer<boost::beast::http::string_body>>
      serializer_;
  std::shared_ptr<std::atomic<bool>> cancelled_;
  std::function<void()> on_end_;
  State state_ = State::kIdle;
  absl::Time arrived_;
  absl::Time transfer_started_;  // of the body, then of the answer
  size_t claimed_bytes_ = 0;
  size_t lingered_bytes_ = 0;
  unsigned version_ = 11;
  bool head_ = false;
  bool keep_alive_ = false;
  bool unread_ = false;  // some of the request will never be read
  bool finishing_ = false;
};

}  // namespace echelon::serve

#endif  // ECHELON_RUNTIME_SERVE_HTTP_SESSION_H_
