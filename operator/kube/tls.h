// Which server a client trusts, and as whom it comes.
#ifndef ECHELON_OPERATOR_KUBE_TLS_H_
#define ECHELON_OPERATOR_KUBE_TLS_H_

#include <cpprest/http_client.h>

#include <atomic>
#include <memory>
#include <string>

#include "operator/kube/config.h"

namespace echelon::op {

// What the last TLS handshakes broke by: cpprest itself says nothing but that one did. Shared by a
// client's connections.
struct TlsTrouble {
  std::atomic<const char*> alert = nullptr;  // static text: "unknown CA"
  std::atomic<bool> bad_files = false;       // certificates or keys could not be read
};

// Files are read again for every new connection, so that rotated ones are picked up.
void SetTls(web::http::client::http_client_config& client, const ClusterConfig& config,
            std::shared_ptr<TlsTrouble> trouble);

}  // namespace echelon::op

#endif  // ECHELON_OPERATOR_KUBE_TLS_H_
