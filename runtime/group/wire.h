// What head and worker share of speaking gRPC. Private to runtime/group.
#ifndef ECHELON_RUNTIME_GROUP_WIRE_H_
#define ECHELON_RUNTIME_GROUP_WIRE_H_

#include <grpcpp/support/status.h>

#include <string>

#include "absl/status/status.h"

namespace echelon::group {

inline constexpr int kMaxFromRankBytes = 1 << 20;
inline constexpr int kMaxFromHeadBytes = 256 << 20;  // a plan names every node

// Foreign text, bounded and made fit for one line of a log.
std::string OneLine(const std::string& text);

absl::Status StatusFrom(int code,
                        const std::string& message);  // a code that is none, or OK, is kUnknown
grpc::Status ToGrpc(const absl::Status& status);

// "10.0.0.3" of gRPC's "ipv4:10.0.0.3:4711"; "[::1]" of "ipv6:%5B::1%5D:4711".
std::string HostOfPeer(const std::string& peer);
std::string AddressOfPeer(const std::string& peer);  // "10.0.0.3:4711"

// gRPC's own log goes to ours, at debug level: what it reports, we report with the thing's name.
void RouteGrpcLog();

}  // namespace echelon::group

#endif  // ECHELON_RUNTIME_GROUP_WIRE_H_
