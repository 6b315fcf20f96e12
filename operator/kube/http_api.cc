#include "operator/kube/http_api.h"

#include <cpprest/http_client.h>
#include <pplx/threadpool.h>

#include <condition_variable>
#include <cstdlib>
#include <map>
#include <mutex>
#include <set>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "operator/kube/byte_sink.h"
#include "operator/kube/tls.h"
#include "operator/kube/token.h"
#include "operator/kube/watch_lines.h"
#include "runtime/sync/steady_clock.h"

namespace echelon::op {
namespace {

namespace http = web::http;
using Client = http::client::http_client;

// Seconds, or a date.
absl::Duration ParseRetryAfter(const http::http_headers& headers) {
  std::string text;
  if (!headers.match("Retry-After", text)) return {};
  int64_t seconds = 0;
  if (absl::SimpleAtoi(text, &seconds)) return absl::Seconds(std::clamp<int64_t>(seconds, 0, 600));
  absl::Time date;
  std::string error;
  if (!absl::ParseTime("%a, %d %b %Y %H:%M:%S GMT", text, &date, &error)) return {};
  return std::clamp(date - absl::Now(), absl::ZeroDuration(), absl::Minutes(10));
}

// cpprest gives an IPv6 address to the resolver with its brackets, which finds nothing: they go.
// Throws where there is none.
web::uri AddressOf(const std::string& server) {
  const web::uri uri(server);
  std::string host = uri.host();
  if (host.starts_with("[") && host.ends_with("]")) host = host.substr(1, host.size() - 2);
  if (host.empty() || host.find('[') != std::string::npos) throw web::uri_exception("no host");
  return web::uri_builder(uri).set_host(host).to_uri();
}

// The next shorter one of a few: each has a client, with connections of its own, and a time that is
// counted from a lease's end differs for every request.
absl::Duration OneOfFew(absl::Duration timeout) {
  if (timeout > absl::Minutes(1)) return timeout;
  for (const int seconds : {60, 30, 10, 3, 1}) {
    if (timeout >= absl::Seconds(seconds)) return absl::Seconds(seconds);
  }
  return std::max(absl::Floor(timeout, absl::Milliseconds(100)),
                  std::min(timeout, absl::Milliseconds(100)));
}

template <typename Task>
void Post(Task task) {
  crossplat::threadpool::shared_instance().service().post(std::move(task));
}

class HttpApi final : public Api {
 public:
  HttpApi(const ClusterConfig& config, const HttpOptions& options)
      : config_(config), options_(options), token_(config.token, options.token_lifetime) {}

  ~HttpApi() override {
    std::unique_lock lock(mutex_);
    stopping_ = true;
    const auto watches = watches_;
    Post([stop = stop_, watches] {  // on the thread of its callbacks, as all that closes sockets
      stop.cancel();
      for (const auto& watch : watches) watch->stop.cancel();
    });
    idle_.wait(lock, [this] { return under_way_ == 0; });
  }

  void Call(Request request, Done done) override;
  std::unique_ptr<WatchStream> Watch(std::string path, OnLine on_line, OnEnd on_end) override;

 private:
  struct OneCall {
    Request request;
    Done done;
    Response response;
    std::string token;
    bool renewed = false;
    absl::Time sent_at;
  };
  struct OneWatch {
    OneWatch(std::string path, OnLine on_line, OnEnd on_end, size_t longest_line)
        : path(std::move(path)),
          lines(std::move(on_line), longest_line),
          on_end(std::move(on_end)) {}
    const std::string path;
    WatchLines lines;
    OnEnd on_end;
    std::string token;
    pplx::cancellation_token_source stop;
    std::mutex mutex;
    absl::Status broken;  // by us; guarded by mutex
    absl::Time heard_at;  // guarded by mutex
    void Break(absl::Status why) {
      const std::lock_guard lock(mutex);
      if (broken.ok()) broken = std::move(why);
    }
  };
  class Stream;

  // False: the Api is being destroyed. Otherwise it waits for End.
  bool Begin(const std::shared_ptr<OneWatch>& watch = nullptr) {
    const std::lock_guard lock(mutex_);
    if (stopping_) return false;
    ++under_way_;
    if (watch != nullptr) watches_.insert(watch);
    return true;
  }
  // The last thing that is done with `this`.
  void End(const std::shared_ptr<OneWatch>& watch = nullptr) {
    const std::lock_guard lock(mutex_);
    watches_.erase(watch);
    if (--under_way_ == 0) idle_.notify_all();
  }

  // A client's timeout is its own: one client for each, and the watches' apart.
  Client ClientFor(absl::Duration timeout, bool watch);
  http::http_request Prepare(const std::string& method, const std::string& path,
                             std::string& token);

  void Send(const std::shared_ptr<OneCall>& call);
  void Finish(const std::shared_ptr<OneCall>& call, const pplx::task<http::http_response>& end);
  void Open(const std::shared_ptr<OneWatch>& watch);
  void Ended(const std::shared_ptr<OneWatch>& watch, const pplx::task<http::http_response>& end);
  // What the exception of a chain that has ended means.
  absl::Status StatusOf(const std::string& what, const std::exception_ptr& error, bool timed_out);

  const ClusterConfig config_;
  const HttpOptions options_;
  Token token_;
  const std::shared_ptr<TlsTrouble> trouble_ = std::make_shared<TlsTrouble>();
  pplx::cancellation_token_source stop_;
  std::mutex mutex_;
  std::condition_variable idle_;
  bool stopping_ = false;
  int64_t under_way_ = 0;
  std::set<std::shared_ptr<OneWatch>> watches_;         // open ones
  std::map<std::pair<int64_t, bool>, Client> clients_;  // by timeout in ms
};

Client HttpApi::ClientFor(absl::Duration timeout, bool watch) {
  const int64_t timeout_ms = std::max<int64_t>(1, absl::ToInt64Milliseconds(timeout));
  const std::lock_guard lock(mutex_);
  const auto found = clients_.find({timeout_ms, watch});
  if (found != clients_.end()) return found->second;
  http::client::http_client_config client;
  client.set_timeout(std::chrono::milliseconds(timeout_ms));
  SetTls(client, config_, trouble_);
  return clients_.emplace(std::pair(timeout_ms, watch), Client(AddressOf(config_.server), client))
      .first->second;
}

http::http_request HttpApi::Prepare(const std::string& method, const std::string& path,
                                    std::string& token) {
  http::http_request request(method);
  request.set_request_uri(path);
  token = token_.Get();
  if (!token.empty()) request.headers().add("Authorization", "Bearer " + token);
  // cpprest checks the certificate against this name where there is one.
  if (!config_.server_name.empty()) request.headers().add("Host", config_.server_name);
  request.headers().add("Accept", kJson);
  request.headers().add("User-Agent", "echelon-operator");
  return request;
}

absl::Status HttpApi::StatusOf(const std::string& what, const std::exception_ptr& error,
                               bool timed_out) {
  std::string text;
  try {
    std::rethrow_exception(error);
  } catch (const pplx::task_canceled&) {
    return absl::CancelledError(what + ": cancelled");
  } catch (const http::http_exception& exception) {
    if (exception.error_code() == std::errc::operation_canceled) {
      return absl::CancelledError(what + ": cancelled");
    }
    timed_out |= exception.error_code() == std::errc::timed_out;
    text = exception.what();
  } catch (const std::exception& exception) {
    text = exception.what();
  }
  if (timed_out) {
    return absl::DeadlineExceededError(
        absl::StrCat(what, ": ", config_.server, " did not answer in time"));
  }
  if (text.find("SSL") != std::string::npos || text.find("handshake") != std::string::npos) {
    const char* alert = trouble_->alert;
    absl::StrAppend(
        &text,
        trouble_->bad_files ? " (a certificate or key file cannot be read)"
        : alert == nullptr  ? ""
                            : absl::StrCat(" (", alert, ")"),
        "; check the certificate authority, the server's name and the client certificate");
  }
  return absl::UnavailableError(absl::StrCat(what, " at ", config_.server, ": ", text));
}

// ---- calls --------------------------------------------------------------------------------------

void HttpApi::Call(Request request, Done done) {
  auto call = std::make_shared<OneCall>();
  call->request = std::move(request);
  call->request.timeout = OneOfFew(call->request.timeout);
  call->done = std::move(done);
  if (!Begin()) {
    return Post([call] { call->done(absl::CancelledError("the API client is being destroyed")); });
  }
  Send(call);
}

void HttpApi::Send(const std::shared_ptr<OneCall>& call) {
  try {
    http::http_request request = Prepare(call->request.method, call->request.path, call->token);
    if (!call->request.body.empty()) {
      request.set_body(call->request.body, call->request.content_type);
    }
    call->response = {};
    call->sent_at = SteadyNow();
    request.set_response_stream(
        ByteSink::Stream([call](std::string_view bytes) { call->response.body += bytes; }));
    ClientFor(call->request.timeout, false)
        .request(request, stop_.get_token())
        .then([call](const http::http_response& response) {
          call->response.code = response.status_code();
          call->response.retry_after = ParseRetryAfter(response.headers());
          return response.content_ready();
        })
        // A task, not a value: so every error is seen; one that nobody sees ends the process.
        .then([this, call](const pplx::task<http::http_response>& end) { Finish(call, end); });
  } catch (...) {  // a path that is no URI, most likely
    const absl::Status why = StatusOf(absl::StrCat(call->request.method, " ", call->request.path),
                                      std::current_exception(), false);
    Post([this, call, why] {
      std::exchange(call->done, nullptr)(why);
      End();
    });
  }
}

void HttpApi::Finish(const std::shared_ptr<OneCall>& call,
                     const pplx::task<http::http_response>& end) {
  absl::StatusOr<Response> result = absl::UnknownError("");
  try {
    end.get();
    if (call->response.code == 401 && !call->renewed && token_.Renew(call->token)) {
      call->renewed = true;
      return Send(call);
    }
    result = std::move(call->response);
  } catch (...) {
    result =
        StatusOf(absl::StrCat(call->request.method, " ", call->request.path),
                 std::current_exception(), SteadyNow() - call->sent_at >= call->request.timeout);
  }
  std::exchange(call->done, nullptr)(std::move(result));
  End();
}

// ---- watches ------------------------------------------------------------------------------------

class HttpApi::Stream final : public WatchStream {
 public:
  explicit Stream(std::shared_ptr<OneWatch> watch) : watch_(std::move(watch)) {}
  ~Stream() override { Cancel(); }
  void Cancel() override {
    watch_->Break(absl::CancelledError("cancelled"));
    // Cancelling runs cpprest's own callbacks, which may end the watch: not under the caller's
    // locks.
    Post([watch = watch_] { watch->stop.cancel(); });
  }

 private:
  std::shared_ptr<OneWatch> watch_;
};

std::unique_ptr<WatchStream> HttpApi::Watch(std::string path, OnLine on_line, OnEnd on_end) {
  auto watch = std::make_shared<OneWatch>(std::move(path), std::move(on_line), std::move(on_end),
                                          options_.longest_line);
  if (Begin(watch)) {
    Open(watch);
  } else {
    Post([watch] { watch->on_end(absl::CancelledError("the API client is being destroyed")); });
  }
  return std::make_unique<Stream>(watch);
}

void HttpApi::Open(const std::shared_ptr<OneWatch>& watch) {
  try {
    http::http_request request = Prepare("GET", watch->path, watch->token);
    watch->heard_at = SteadyNow();
    request.set_response_stream(ByteSink::Stream([watch](std::string_view bytes) {
      {
        const std::lock_guard lock(watch->mutex);
        watch->heard_at = SteadyNow();
        if (!watch->broken.ok()) return;  // it is being cut
      }
      const absl::Status fed = watch->lines.OnBytes(bytes);
      if (fed.ok()) return;
      watch->Break(fed);
      watch->stop.cancel();
    }));
    ClientFor(options_.watch_idle, true)
        .request(request, watch->stop.get_token())
        .then([watch](const http::http_response& response) {
          const absl::Status fed =
              watch->lines.OnHeaders(response.status_code(), ParseRetryAfter(response.headers()));
          if (!fed.ok()) {
            watch->Break(fed);
            watch->stop.cancel();
          }
          return response.content_ready();
        })
        .then([this, watch](const pplx::task<http::http_response>& end) { Ended(watch, end); });
  } catch (...) {
    watch->Break(StatusOf("watch " + watch->path, std::current_exception(), false));
    Post([this, watch] {
      std::exchange(watch->on_end, nullptr)(watch->broken);
      End(watch);
    });
  }
}

void HttpApi::Ended(const std::shared_ptr<OneWatch>& watch,
                    const pplx::task<http::http_response>& end) {
  absl::Status why;
  try {
    end.get();
    why = watch->lines.Refusal();
    if (absl::IsUnauthenticated(why)) token_.Renew(watch->token);  // for the next one
  } catch (...) {
    std::unique_lock lock(watch->mutex);
    const bool silent = SteadyNow() - watch->heard_at >= options_.watch_idle;
    lock.unlock();
    why = StatusOf("watch " + watch->path, std::current_exception(), silent);
  }
  {
    const std::lock_guard lock(watch->mutex);
    if (!watch->broken.ok()) why = watch->broken;
  }
  watch->lines.Close();
  std::exchange(watch->on_end, nullptr)(why);
  End(watch);
}

}  // namespace

void StartKubeThread() {
  // cpprest reads the system's authorities for each connection, 30 ms of a core, and tls.cc forgets
  // them: only the cluster's own are trusted.
  setenv("SSL_CERT_FILE", "/dev/null", 1);
  setenv("SSL_CERT_DIR", "/dev/null", 1);
  crossplat::threadpool::initialize_with_threads(1);
}

absl::StatusOr<std::unique_ptr<Api>> MakeHttpApi(const ClusterConfig& config, HttpOptions options) {
  if (auto bad = Check(config); !bad.ok()) return bad;
  try {
    const Client probe(AddressOf(config.server));  // throws where the address is none
  } catch (const std::exception& error) {
    return absl::InvalidArgumentError(
        absl::StrCat("the cluster's server ", config.server, ": ", error.what()));
  }
  return std::make_unique<HttpApi>(config, options);
}

}  // namespace echelon::op
