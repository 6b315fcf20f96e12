#include "operator/kube/tls.h"

#include <openssl/ssl.h>
#include <openssl/x509.h>

#include <boost/asio/buffer.hpp>
#include <boost/asio/ssl.hpp>
#include <utility>

namespace echelon::op {
namespace {

namespace ssl = boost::asio::ssl;

int TroubleIndex() {
  static const int index = SSL_CTX_get_ex_new_index(0, nullptr, nullptr, nullptr, nullptr);
  return index;
}

void OnInfo(const SSL* connection, int where, int value) {
  if ((where & SSL_CB_ALERT) == 0) return;
  const char* text = SSL_alert_desc_string_long(value);
  if (std::string(text) == "close notify") return;
  if (auto* trouble = static_cast<TlsTrouble*>(
          SSL_CTX_get_ex_data(SSL_get_SSL_CTX(connection), TroubleIndex()))) {
    trouble->alert = text;
  }
}

void Load(const ClusterConfig& config, ssl::context& context) {
  // cpprest has loaded the system's authorities: a new store forgets them.
  SSL_CTX_set_cert_store(context.native_handle(), X509_STORE_new());
  if (const auto ca = config.ca.Read(); ca.ok() && !ca->empty()) {
    context.add_certificate_authority(boost::asio::buffer(*ca));
  }
  if (config.certificate.empty()) return;
  const auto certificate = config.certificate.Read(), key = config.key.Read();
  if (!certificate.ok() || !key.ok()) return;
  context.use_certificate_chain(boost::asio::buffer(*certificate));
  context.use_private_key(boost::asio::buffer(*key), ssl::context::pem);
}

}  // namespace

void SetTls(web::http::client::http_client_config& client, const ClusterConfig& config,
            std::shared_ptr<TlsTrouble> trouble) {
  client.set_validate_certificates(!config.insecure);
  client.set_ssl_context_callback([config, trouble = std::move(trouble)](ssl::context& context) {
    SSL_CTX_set_min_proto_version(context.native_handle(), TLS1_2_VERSION);
    SSL_CTX_set_ex_data(context.native_handle(), TroubleIndex(), trouble.get());
    SSL_CTX_set_info_callback(context.native_handle(), OnInfo);
    try {
      Load(config, context);
      trouble->bad_files = false;
    } catch (const boost::system::system_error&) {  // the handshake fails for want of them
      trouble->bad_files = true;
    }
  });
}

}  // namespace echelon::op
