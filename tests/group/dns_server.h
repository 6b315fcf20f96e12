// A name server on loopback that gives every name one address, which a test may change: what a
// headless Service's name does when its pod is replaced.
#ifndef ECHELON_TESTS_GROUP_DNS_SERVER_H_
#define ECHELON_TESTS_GROUP_DNS_SERVER_H_

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <atomic>
#include <cstdint>
#include <cstring>
#include <string>
#include <thread>

#include "runtime/link/socket.h"

namespace echelon::group {

class DnsServer {
 public:
  explicit DnsServer(const std::string& address)
      : socket_(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)) {
    Point(address);
    sockaddr_in own{};
    own.sin_family = AF_INET;
    own.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    static_cast<void>(bind(socket_.get(), reinterpret_cast<sockaddr*>(&own), sizeof(own)));
    socklen_t length = sizeof(own);
    getsockname(socket_.get(), reinterpret_cast<sockaddr*>(&own), &length);
    port_ = ntohs(own.sin_port);
    const timeval patience{0, 50'000};
    setsockopt(socket_.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    thread_ = std::thread([this] { Run(); });
  }
  ~DnsServer() {
    stopping_ = true;
    thread_.join();
  }

  int port() const { return port_; }
  void Point(const std::string& address) { address_ = inet_addr(address.c_str()); }

 private:
  // RFC 1035, section 4: a header of 12 bytes, one question, and for type A one answer that any
  // resolver may keep for half a minute.
  void Run() {
    constexpr size_t kHeaderBytes = 12, kQuestionTail = 4;
    char packet[512];
    while (!stopping_) {
      sockaddr_in peer{};
      socklen_t length = sizeof(peer);
      const ssize_t got = recvfrom(socket_.get(), packet, sizeof(packet), 0,
                                   reinterpret_cast<sockaddr*>(&peer), &length);
      if (got < static_cast<ssize_t>(kHeaderBytes)) continue;
      const size_t name_end =
          std::string(packet, static_cast<size_t>(got)).find('\0', kHeaderBytes);
      if (name_end == std::string::npos) continue;
      std::string reply(packet, name_end + 1 + kQuestionTail);
      const bool wants_a = reply[name_end + 1] == 0 && reply[name_end + 2] == 1;
      const char flags_and_counts[] = {'\x84', 0, 0, 1, 0, static_cast<char>(wants_a), 0, 0, 0, 0};
      reply.replace(2, sizeof(flags_and_counts), flags_and_counts, sizeof(flags_and_counts));
      if (wants_a) {
        const char record[] = {'\xc0', 12, 0, 1, 0, 1, 0, 0, 0, 30, 0, 4};
        reply.append(record, sizeof(record));
        const uint32_t address = address_;
        reply.append(reinterpret_cast<const char*>(&address), sizeof(address));
      }
      sendto(socket_.get(), reply.data(), reply.size(), 0, reinterpret_cast<sockaddr*>(&peer),
             length);
    }
  }

  link::Fd socket_;
  int port_ = 0;
  std::atomic<uint32_t> address_ = 0;
  std::atomic<bool> stopping_ = false;
  std::thread thread_;
};

}  // namespace echelon::group

#endif  // ECHELON_TESTS_GROUP_DNS_SERVER_H_
