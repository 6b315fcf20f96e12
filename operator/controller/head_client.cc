#include "operator/controller/head_client.h"

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/address.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http.hpp>
#include <chrono>
#include <thread>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace echelon::op {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;

absl::Status ToStatus(const beast::error_code& error, const char* doing) {
  if (error == beast::error::timeout) {
    return absl::DeadlineExceededError(absl::StrCat("no answer in time while ", doing));
  }
  if (error == http::error::body_limit) {
    return absl::ResourceExhaustedError("the answer is longer than a status may be");
  }
  return absl::UnavailableError(absl::StrCat(doing, ": ", error.message()));
}

// One request on a connection of its own: heads are asked every few seconds, and restart.
class Exchange : public std::enable_shared_from_this<Exchange> {
 public:
  Exchange(asio::io_context& context, const HeadClientOptions& options, HeadClient::Done done)
      : stream_(context), options_(options), done_(std::move(done)) {
    parser_.header_limit(16 << 10);
    parser_.body_limit(options.max_body_bytes);
  }
  ~Exchange() {
    if (done_) done_(absl::CancelledError("the operator is stopping"));
  }

  void Start(const std::string& address) {
    beast::error_code error;
    const auto ip = asio::ip::make_address(address, error);
    if (error) return Finish(absl::InvalidArgumentError(absl::StrCat("no IP address: ", address)));
    stream_.expires_after(std::chrono::milliseconds(absl::ToInt64Milliseconds(options_.timeout)));
    request_ = {http::verb::get, options_.path, 11};
    request_.set(http::field::host, address);
    request_.set(http::field::user_agent, "echelon-operator");
    request_.set(http::field::connection, "close");
    stream_.async_connect({ip, static_cast<uint16_t>(options_.port)},
                          [self = shared_from_this()](beast::error_code e) { self->Write(e); });
  }

 private:
  void Write(beast::error_code error) {
    if (error) return Finish(ToStatus(error, "connecting"));
    http::async_write(stream_, request_,
                      [self = shared_from_this()](beast::error_code e, size_t) { self->Read(e); });
  }

  void Read(beast::error_code error) {
    if (error) return Finish(ToStatus(error, "asking"));
    http::async_read_header(
        stream_, buffer_, parser_,
        [self = shared_from_this()](beast::error_code e, size_t) { self->ReadBody(e); });
  }

  // Piece by piece: room for the length that a foreign header promises is not made in advance.
  void ReadBody(beast::error_code error) {
    if (error) return End(error);
    const auto length = parser_.content_length();
    const size_t limit = options_.max_body_bytes;
    if ((length && *length > limit) || parser_.get().body().size() > limit) {
      return Finish(ToStatus(http::error::body_limit, "reading"));
    }
    if (parser_.is_done()) return End(error);
    http::async_read_some(
        stream_, buffer_, parser_,
        [self = shared_from_this()](beast::error_code e, size_t) { self->ReadBody(e); });
  }

  void End(beast::error_code error) {
    if (error) return Finish(ToStatus(error, "reading"));
    if (parser_.get().result() != http::status::ok) {
      return Finish(absl::UnavailableError(absl::StrCat("HTTP ", parser_.get().result_int())));
    }
    Finish(std::move(parser_.get().body()));
  }

  void Finish(absl::StatusOr<std::string> answer) {
    if (auto done = std::exchange(done_, nullptr)) done(std::move(answer));
    beast::error_code ignored;
    stream_.socket().close(ignored);
  }

  beast::tcp_stream stream_;
  const HeadClientOptions options_;
  HeadClient::Done done_;
  http::request<http::empty_body> request_;
  http::response_parser<http::string_body> parser_;
  beast::flat_buffer buffer_{64 << 10};
};

class BeastHeadClient final : public HeadClient {
 public:
  explicit BeastHeadClient(const HeadClientOptions& options)
      : options_(options),
        work_(asio::make_work_guard(context_)),
        thread_([this] { context_.run(); }) {}

  ~BeastHeadClient() override {
    context_.stop();
    thread_.join();
  }

  void Get(const std::string& address, Done done) override {
    asio::post(context_, [this, address, done = std::move(done)]() mutable {
      std::make_shared<Exchange>(context_, options_, std::move(done))->Start(address);
    });
  }

 private:
  const HeadClientOptions options_;
  asio::io_context context_{1};
  asio::executor_work_guard<asio::io_context::executor_type> work_;
  std::thread thread_;
};

}  // namespace

std::unique_ptr<HeadClient> MakeHeadClient(const HeadClientOptions& options) {
  return std::make_unique<BeastHeadClient>(options);
}

}  // namespace echelon::op
