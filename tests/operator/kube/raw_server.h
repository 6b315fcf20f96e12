// An HTTP server without TLS that answers what a test tells it to, byte by byte.
#ifndef ECHELON_TESTS_OPERATOR_KUBE_RAW_SERVER_H_
#define ECHELON_TESTS_OPERATOR_KUBE_RAW_SERVER_H_

#include <boost/asio.hpp>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace echelon::op {

class RawServer {
 public:
  struct Answer {
    std::string bytes;    // head and body
    bool close = true;    // the connection, then
    bool silent = false;  // nothing at all comes
  };
  // Of a request as it arrived: head and body.
  using Handler = std::function<Answer(const std::string& request)>;

  explicit RawServer(Handler handler, const std::string& address = "127.0.0.1")
      : handler_(std::move(handler)), acceptor_(io_, {boost::asio::ip::make_address(address), 0}) {
    Accept();
    thread_ = std::thread([this] { io_.run(); });
  }
  ~RawServer() {
    io_.stop();
    thread_.join();
  }
  RawServer(const RawServer&) = delete;
  RawServer& operator=(const RawServer&) = delete;

  uint16_t port() const { return acceptor_.local_endpoint().port(); }
  std::vector<std::string> requests() const {
    const std::lock_guard lock(mutex_);
    return requests_;
  }

  static Answer Reply(int code, const std::string& body, const std::string& headers = "") {
    return {"HTTP/1.1 " + std::to_string(code) + " X\r\nContent-Type: application/json\r\n" +
            headers + "Content-Length: " + std::to_string(body.size()) +
            "\r\nConnection: close\r\n\r\n" + body};
  }
  // The head and one chunk of an answer that goes on.
  static Answer Chunk(const std::string& body) {
    char size[32];
    std::snprintf(size, sizeof(size), "%zx\r\n", body.size());
    return {.bytes =
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: "
                "chunked\r\n\r\n" +
                (body.empty() ? "" : size + body + "\r\n"),
            .close = false};
  }

 private:
  struct Connection {
    boost::asio::ip::tcp::socket socket;
    std::string in, out;
  };

  void Accept() {
    acceptor_.async_accept([this](boost::system::error_code error,
                                  boost::asio::ip::tcp::socket socket) {
      if (error) return;
      connections_.push_back(std::make_shared<Connection>(Connection{std::move(socket), "", ""}));
      Read(connections_.back());
      Accept();
    });
  }

  void Read(const std::shared_ptr<Connection>& connection) {
    boost::asio::async_read_until(
        connection->socket, boost::asio::dynamic_buffer(connection->in), "\r\n\r\n",
        [this, connection](boost::system::error_code error, size_t head) {
          if (error) return;
          const size_t at = connection->in.find("Content-Length:");
          const size_t body = at < head ? std::stoul(connection->in.substr(at + 15)) : 0;
          const size_t have = connection->in.size() - head;
          boost::asio::async_read(connection->socket, boost::asio::dynamic_buffer(connection->in),
                                  boost::asio::transfer_exactly(body > have ? body - have : 0),
                                  [this, connection](boost::system::error_code broken, size_t) {
                                    if (!broken) Answered(connection);
                                  });
        });
  }

  void Answered(const std::shared_ptr<Connection>& connection) {
    {
      const std::lock_guard lock(mutex_);
      requests_.push_back(connection->in);
    }
    const Answer answer = handler_(connection->in);
    connection->in.clear();
    if (answer.silent) return;
    connection->out = answer.bytes;
    boost::asio::async_write(
        connection->socket, boost::asio::buffer(connection->out),
        [this, connection, close = answer.close](boost::system::error_code error, size_t) {
          boost::system::error_code ignored;
          if (error || close) {
            connection->socket.close(ignored);
          } else {
            Read(connection);
          }
        });
  }

  const Handler handler_;
  boost::asio::io_context io_;
  boost::asio::ip::tcp::acceptor acceptor_;
  std::vector<std::shared_ptr<Connection>> connections_;  // on the thread alone
  mutable std::mutex mutex_;
  std::vector<std::string> requests_;
  std::thread thread_;
};

}  // namespace echelon::op

#endif  // ECHELON_TESTS_OPERATOR_KUBE_RAW_SERVER_H_
