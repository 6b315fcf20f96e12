#include "runtime/group/wire.h"

#include <grpc/support/log.h>
#include <spdlog/spdlog.h>

#include <mutex>

#include "absl/strings/match.h"
#include "absl/strings/str_replace.h"

namespace echelon::group {
namespace {
constexpr size_t kMaxText = 2048;
}

std::string OneLine(const std::string& text) {
  std::string line = text.substr(0, kMaxText);
  for (char& c : line) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = ' ';
  }
  return line;
}

absl::Status StatusFrom(int code, const std::string& message) {
  if (code <= 0 || code > static_cast<int>(absl::StatusCode::kUnauthenticated)) {
    return absl::UnknownError(OneLine(message));
  }
  return absl::Status(static_cast<absl::StatusCode>(code), OneLine(message));
}

grpc::Status ToGrpc(const absl::Status& status) {
  return {static_cast<grpc::StatusCode>(status.raw_code()), std::string(status.message())};
}

std::string AddressOfPeer(const std::string& peer) {
  const std::string address = peer.substr(peer.find(':') + 1);
  return absl::StrReplaceAll(address, {{"%5B", "["}, {"%5D", "]"}});
}

std::string HostOfPeer(const std::string& peer) {
  const std::string address = AddressOfPeer(peer);
  return address.substr(0, address.rfind(':'));
}

void RouteGrpcLog() {
  static std::once_flag once;
  std::call_once(once, [] {
    gpr_set_log_function([](gpr_log_func_args* args) {
      // The one thing of gRPC's that must be seen: the process aborts next.
      const bool fatal = absl::StartsWith(args->message, "assertion failed");
      spdlog::log(fatal ? spdlog::level::critical : spdlog::level::debug, "gRPC: {}",
                  args->message);
    });
  });
}

}  // namespace echelon::group
