#include "operator/render/digest.h"

#include <openssl/evp.h>

#include "absl/strings/escaping.h"

namespace echelon::op {

std::string Digest(const nlohmann::json& value, size_t digits) {
  const std::string text = value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int size = 0;
  // Fails only where OpenSSL is configured without SHA-256, and then no TLS works either.
  if (EVP_Digest(text.data(), text.size(), digest, &size, EVP_sha256(), nullptr) != 1) std::abort();
  const std::string bytes(reinterpret_cast<const char*>(digest), size);
  return absl::BytesToHexString(bytes).substr(0, digits);
}

}  // namespace echelon::op
