#include "operator/controller/pages.h"

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ip/v6_only.hpp>
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
using asio::ip::tcp;

constexpr std::chrono::seconds kIdle{30};
constexpr int kMaxConnections = 64;

class Connection : public std::enable_shared_from_this<Connection> {
 public:
  Connection(tcp::socket socket, const Pages::Table& table, int& open)
      : stream_(std::move(socket)), table_(table), open_(open) {
    ++open_;
  }
  ~Connection() { --open_; }

  void Read() {
    request_ = {};
    stream_.expires_after(kIdle);
    http::async_read(stream_, buffer_, request_,
                     [self = shared_from_this()](beast::error_code error, size_t) {
                       if (!error) self->Answer();
                     });
  }

 private:
  void Answer() {
    const std::string target(request_.target());
    const auto page = table_.find(target.substr(0, target.find('?')));
    const bool is_get =
        request_.method() == http::verb::get || request_.method() == http::verb::head;
    const Page answer = !is_get                ? Page{405, "only GET\n"}
                        : page == table_.end() ? Page{404, "no such page\n"}
                                               : page->second();
    response_ = {static_cast<http::status>(answer.code), request_.version()};
    response_.set(http::field::content_type, answer.content_type);
    response_.keep_alive(request_.keep_alive());
    response_.content_length(answer.body.size());
    if (request_.method() != http::verb::head) response_.body() = answer.body;
    http::async_write(stream_, response_,
                      [self = shared_from_this()](beast::error_code error, size_t) {
                        if (!error && self->response_.keep_alive()) self->Read();
                      });
  }

  beast::tcp_stream stream_;
  const Pages::Table& table_;
  int& open_;
  beast::flat_buffer buffer_{16 << 10};
  http::request<http::empty_body> request_;
  http::response<http::string_body> response_;
};

class BeastPages final : public Pages {
 public:
  explicit BeastPages(Table table) : table_(std::move(table)), acceptor_(context_) {}

  ~BeastPages() override {
    context_.stop();
    if (thread_.joinable()) thread_.join();
  }

  absl::Status Listen(int port, const std::string& flag) {
    beast::error_code error;
    const auto port_number = static_cast<uint16_t>(port);
    acceptor_.open(tcp::v6(), error);
    if (!error) acceptor_.set_option(asio::ip::v6_only(false), error);
    const bool has_v6 = !error;
    if (!has_v6) {
      error.clear();
      acceptor_.open(tcp::v4(), error);
    }
    if (!error) acceptor_.set_option(tcp::acceptor::reuse_address(true), error);
    if (!error) acceptor_.bind({has_v6 ? tcp::v6() : tcp::v4(), port_number}, error);
    if (!error) acceptor_.listen(kMaxConnections, error);
    if (!error) port_ = acceptor_.local_endpoint(error).port();
    if (error) {
      return absl::UnavailableError(
          absl::StrCat("cannot listen on port ", port, ": ", error.message(), " (", flag, ")"));
    }
    Accept();
    thread_ = std::thread([this] { context_.run(); });
    return absl::OkStatus();
  }

  int port() const override { return port_; }

 private:
  void Accept() {
    acceptor_.async_accept([this](beast::error_code error, tcp::socket socket) {
      if (!error && open_ < kMaxConnections) {
        std::make_shared<Connection>(std::move(socket), table_, open_)->Read();
      }
      if (error != asio::error::operation_aborted) Accept();
    });
  }

  const Table table_;
  int open_ = 0;
  asio::io_context context_{1};
  tcp::acceptor acceptor_;
  std::thread thread_;
  int port_ = 0;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Pages>> Pages::Serve(int port, std::string flag, Table table) {
  auto pages = std::make_unique<BeastPages>(std::move(table));
  const absl::Status listening = pages->Listen(port, flag);
  if (!listening.ok()) return listening;
  return pages;
}

}  // namespace echelon::op
