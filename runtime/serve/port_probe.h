// Why a port cannot be listened on, for libraries that do not tell.
#ifndef ECHELON_RUNTIME_SERVE_PORT_PROBE_H_
#define ECHELON_RUNTIME_SERVE_PORT_PROBE_H_

#include <string>

namespace echelon::serve {

// The errno of a bind and listen on host:port; 0 when they succeed or the host is no numeric
// address or known name.
int WhyNotListen(const std::string& host, int port);

}  // namespace echelon::serve

#endif  // ECHELON_RUNTIME_SERVE_PORT_PROBE_H_
