// A bare loopback TCP client: what a real HTTP client would never send.
#ifndef ECHELON_TESTS_SERVE_RAW_CLIENT_H_
#define ECHELON_TESTS_SERVE_RAW_CLIENT_H_

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace echelon::serve {

struct RawReply {
  int code = 0;  // 0: the connection ended without an answer
  std::string header, body;
};

class RawClient {
 public:
  explicit RawClient(int port) : fd_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    const timeval ten_s{10, 0};
    setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &ten_s, sizeof(ten_s));
    setsockopt(fd_, SOL_SOCKET, SO_SNDTIMEO, &ten_s, sizeof(ten_s));
    connected_ = connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0;
  }
  ~RawClient() { Close(); }

  bool connected() const { return connected_; }
  void Close() {
    if (fd_ >= 0) close(fd_);
    fd_ = -1;
  }
  // False: the peer has closed, or takes nothing for 10 s.
  bool Send(const std::string& bytes) {
    size_t sent = 0;
    while (sent < bytes.size()) {
      const ssize_t n = send(fd_, bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL);
      if (n <= 0) return false;
      sent += static_cast<size_t>(n);
    }
    return true;
  }
  // True when the peer closes within 10 s; what it still sends is dropped.
  bool WaitForClose() {
    char bytes[4096];
    ssize_t n;
    while ((n = recv(fd_, bytes, sizeof(bytes), 0)) > 0) {
    }
    return n == 0 || errno == ECONNRESET;
  }
  RawReply Read(bool head = false) {
    RawReply reply;
    while (buffer_.find("\r\n\r\n") == std::string::npos)
      if (!More()) return reply;
    const size_t end = buffer_.find("\r\n\r\n") + 4;
    reply.header = absl::AsciiStrToLower(buffer_.substr(0, end));
    buffer_.erase(0, end);
    size_t length = 0;
    const size_t at = reply.header.find("\r\ncontent-length: ");
    if (at != std::string::npos)
      length = std::strtoull(reply.header.c_str() + at + 18, nullptr, 10);
    while (!head && buffer_.size() < length)
      if (!More()) return reply;
    if (!head) {
      reply.body = buffer_.substr(0, length);
      buffer_.erase(0, length);
    }
    reply.code = std::atoi(reply.header.c_str() + 9);
    return reply;
  }
  RawReply Get(const std::string& path) {
    Send(absl::StrCat("GET ", path, " HTTP/1.1\r\nHost: t\r\n\r\n"));
    return Read();
  }
  RawReply Post(const std::string& path, const std::string& body, const std::string& headers = "") {
    Send(absl::StrCat("POST ", path, " HTTP/1.1\r\nHost: t\r\nContent-Length: ", body.size(),
                      "\r\n", headers, "\r\n", body));
    return Read();
  }

 private:
  bool More() {
    char bytes[65536];
    const ssize_t n = recv(fd_, bytes, sizeof(bytes), 0);
    if (n <= 0) return false;
    buffer_.append(bytes, static_cast<size_t>(n));
    return true;
  }

  int fd_;
  bool connected_ = false;
  std::string buffer_;
};

}  // namespace echelon::serve

#endif  // ECHELON_TESTS_SERVE_RAW_CLIENT_H_
