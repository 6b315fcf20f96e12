#include "runtime/serve/http_listener.h"

#include <algorithm>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <map>
#include <stdexcept>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "nlohmann/json.hpp"
#include "runtime/serve/http_session.h"
#include "runtime/serve/v2_types.h"
#include "runtime/sync/mutex.h"
#include "spdlog/spdlog.h"

namespace echelon::serve {
namespace {

namespace asio = boost::asio;
using boost::system::error_code;
using tcp = asio::ip::tcp;

class AsioListener : public HttpListener {
 public:
  AsioListener(HttpListenerOptions options, HttpHandler handler)
      : shared_(std::make_shared<HttpShared>()),
        context_(std::make_shared<asio::io_context>(std::max(1, options.threads))),
        work_(asio::make_work_guard(*context_)),
        acceptor_(asio::make_strand(*context_)),
        retry_(acceptor_.get_executor()) {
    shared_->options = std::move(options);
    shared_->handler = std::move(handler);
    shared_->context = context_;
  }

  ~AsioListener() override { Stop(absl::Now()); }

  absl::Status Listen() {
    const HttpListenerOptions& options = shared_->options;
    error_code error;
    tcp::resolver resolver(*context_);
    const auto found =
        resolver.resolve(options.host, std::to_string(options.port), tcp::resolver::passive, error);
    if (error || found.empty())
      return absl::UnavailableError(
          absl::StrCat("cannot listen on '", options.host, "': no such address here"));
    const tcp::endpoint endpoint = found.begin()->endpoint();
    acceptor_.open(endpoint.protocol(), error);
    if (!error) acceptor_.set_option(tcp::acceptor::reuse_address(true), error);
    if (!error) acceptor_.bind(endpoint, error);
    if (!error) acceptor_.listen(asio::socket_base::max_listen_connections, error);
    if (!error) port_ = acceptor_.local_endpoint(error).port();
    if (error)
      return absl::UnavailableError(
          ListenError(error.value(), options.host, options.port, options.port_flag));
    Accept();
    for (int i = 0; i < std::max(1, options.threads); ++i) threads_.emplace_back([this] { Run(); });
    return absl::OkStatus();
  }

  int port() const override { return port_; }

  void Drain() override { shared_->draining = true; }

  void Stop(absl::Time deadline) override {
    if (threads_.empty()) return;
    shared_->stopping = true;
    asio::post(acceptor_.get_executor(), [this] {
      error_code ignored;
      acceptor_.close(ignored);
      retry_.cancel();
    });
    ForEachSession([](HttpSession& session) { session.Finish(); });
    if (!AllEndedBy(deadline)) {
      ForEachSession([](HttpSession& session) { session.Cut(); });
      AllEndedBy(absl::Now() + absl::Seconds(1));
    }
    work_.reset();
    context_->stop();
    for (std::thread& thread : threads_) thread.join();
    threads_.clear();
    MutexLock lock(&mutex_);
    sessions_.clear();
  }

 private:
  void Run() {
    for (;;) {
      try {
        context_->run();
        return;
      } catch (const std::exception& error) {  // out of memory: that connection is lost, no other
        spdlog::error("HTTP connection dropped: {}", error.what());
      }
    }
  }

  void Accept() {
    acceptor_.async_accept(asio::make_strand(*context_),
                           [this](error_code error, tcp::socket socket) {
                             if (!acceptor_.is_open()) return;
                             if (error) return AcceptLater();
                             Serve(std::move(socket));
                             Accept();
                           });
  }

  // Out of file descriptors, most likely: trying again at once would spin.
  void AcceptLater() {
    retry_.expires_after(std::chrono::milliseconds(50));
    retry_.async_wait([this](error_code error) {
      if (!error && acceptor_.is_open()) Accept();
    });
  }

  void Serve(tcp::socket socket) {
    const uint64_t id = next_id_++;
    auto session =
        std::make_shared<HttpSession>(std::move(socket), shared_, [this, id] { Forget(id); });
    size_t count;
    {
      MutexLock lock(&mutex_);
      sessions_[id] = session;
      count = sessions_.size();
    }
    if (count > 2 * shared_->options.max_connections) return session->Cut();
    if (count > shared_->options.max_connections)
      return session->Refuse(absl::StrCat("more than ", shared_->options.max_connections,
                                          " connections are open; try again"));
    session->Start();
  }

  void Forget(uint64_t id) {
    MutexLock lock(&mutex_);
    sessions_.erase(id);
  }

  void ForEachSession(const std::function<void(HttpSession&)>& visit) {
    std::vector<std::shared_ptr<HttpSession>> alive;
    {
      MutexLock lock(&mutex_);
      for (const auto& [id, session] : sessions_) alive.push_back(session);
    }
    for (const auto& session : alive) visit(*session);
  }

  bool AllEndedBy(absl::Time deadline) {
    const auto none = [this]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return sessions_.empty(); };
    MutexLock lock(&mutex_);
    return mutex_.AwaitUntil(none, SteadyNow() + (deadline - absl::Now()));
  }

  const std::shared_ptr<HttpShared> shared_;
  const std::shared_ptr<asio::io_context> context_;  // outlives the sessions
  Mutex mutex_;
  std::map<uint64_t, std::shared_ptr<HttpSession>> sessions_ ABSL_GUARDED_BY(mutex_);
  asio::executor_work_guard<asio::io_context::executor_type> work_;
  tcp::acceptor acceptor_;
  asio::steady_timer retry_;
  std::atomic<uint64_t> next_id_{0};
  std::vector<std::thread> threads_;
  int port_ = 0;
};

}  // namespace

const std::string* HttpCall::Header(absl::string_view name) const {
  for (const auto& [key, value] : headers)
    if (key == name) return &value;
  return nullptr;
}

HttpReply HttpError(int code, absl::string_view text) {
  HttpReply reply{.code = code};
  reply.body = nlohmann::json{{"error", OneLine(text)}}.dump(
                   -1, ' ', false, nlohmann::json::error_handler_t::replace) +
               "\n";
  return reply;
}

absl::StatusOr<std::unique_ptr<HttpListener>> HttpListener::Start(HttpListenerOptions options,
                                                                  HttpHandler handler) {
  try {
    auto listener = std::make_unique<AsioListener>(std::move(options), std::move(handler));
    if (auto status = listener->Listen(); !status.ok()) return status;
    return listener;
  } catch (const std::exception& error) {
    return absl::UnavailableError(OneLine(absl::StrCat("cannot serve HTTP: ", error.what())));
  }
}

}  // namespace echelon::serve
