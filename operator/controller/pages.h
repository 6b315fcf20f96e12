// Answers GETs on one port from a table of pages: metrics and health.
#ifndef ECHELON_OPERATOR_CONTROLLER_PAGES_H_
#define ECHELON_OPERATOR_CONTROLLER_PAGES_H_

#include <functional>
#include <map>
#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace echelon::op {

struct Page {
  int code = 200;
  std::string body;
  std::string content_type = "text/plain; charset=utf-8";
};

class Pages {
 public:
  // By path; called on the server's one thread, so it must not wait for long.
  using Table = std::map<std::string, std::function<Page()>>;

  // Listens on all addresses. Port 0: any. kUnavailable, naming the flag: the port is taken.
  static absl::StatusOr<std::unique_ptr<Pages>> Serve(int port, std::string flag, Table table);
  virtual ~Pages() = default;
  virtual int port() const = 0;
};

}  // namespace echelon::op

#endif  // ECHELON_OPERATOR_CONTROLLER_PAGES_H_
