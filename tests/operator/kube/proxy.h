// A TCP proxy on loopback that can cut and silence what goes through it. What it carries it does
// not read.
#ifndef ECHELON_TESTS_OPERATOR_KUBE_PROXY_H_
#define ECHELON_TESTS_OPERATOR_KUBE_PROXY_H_

#include <array>
#include <atomic>
#include <boost/asio.hpp>
#include <cstdint>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <utility>

namespace echelon::op {

class Proxy {
 public:
  explicit Proxy(uint16_t target_port)
      : target_(boost::asio::ip::address_v4::loopback(), target_port),
        acceptor_(io_, {boost::asio::ip::address_v4::loopback(), 0}) {
    Accept();
    thread_ = std::thread([this] { io_.run(); });
  }
  ~Proxy() {
    io_.stop();
    thread_.join();
  }
  Proxy(const Proxy&) = delete;
  Proxy& operator=(const Proxy&) = delete;

  uint16_t port() const { return acceptor_.local_endpoint().port(); }
  int connections() const { return connections_; }
  // Every byte vanishes, both ways.
  void SetSilent(bool silent) { silent_ = silent; }
  // Resets what is open; new connections are welcome.
  void Cut() {
    boost::asio::post(io_, [this] {
      for (const auto& pair : std::exchange(pairs_, {})) Close(*pair);
    });
  }

 private:
  using Socket = boost::asio::ip::tcp::socket;
  struct Pair {
    Socket client, server;
    std::array<char, 65536> up, down;
  };

  void Accept() {
    acceptor_.async_accept([this](boost::system::error_code error, Socket socket) {
      if (error) return;
      ++connections_;
      auto pair = std::make_shared<Pair>(Pair{std::move(socket), Socket(io_), {}, {}});
      pair->server.connect(target_, error);
      if (!error) {
        pairs_.insert(pair);
        Pump(pair, pair->client, pair->server, pair->up);
        Pump(pair, pair->server, pair->client, pair->down);
      }
      Accept();
    });
  }

  void Pump(const std::shared_ptr<Pair>& pair, Socket& from, Socket& to,
            std::array<char, 65536>& buffer) {
    from.async_read_some(
        boost::asio::buffer(buffer),
        [this, pair, &from, &to, &buffer](boost::system::error_code error, size_t size) {
          if (error) {
            Close(*pair);
            pairs_.erase(pair);
            return;
          }
          if (silent_) return Pump(pair, from, to, buffer);
          boost::asio::async_write(
              to, boost::asio::buffer(buffer, size),
              [this, pair, &from, &to, &buffer](boost::system::error_code broken, size_t) {
                if (!broken) Pump(pair, from, to, buffer);
              });
        });
  }

  static void Close(Pair& pair) {
    boost::system::error_code ignored;
    pair.client.close(ignored);
    pair.server.close(ignored);
  }

  boost::asio::io_context io_;
  const boost::asio::ip::tcp::endpoint target_;
  boost::asio::ip::tcp::acceptor acceptor_;
  std::set<std::shared_ptr<Pair>> pairs_;  // on the thread alone
  std::atomic<bool> silent_ = false;
  std::atomic<int> connections_ = 0;
  std::thread thread_;
};

}  // namespace echelon::op

#endif  // ECHELON_TESTS_OPERATOR_KUBE_PROXY_H_
