#include "runtime/serve/http_server.h"

#include <algorithm>
#include <exception>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "absl/time/clock.h"
#include "runtime/serve/compress.h"
#include "runtime/serve/v2_json.h"
#include "runtime/serve/v2_types.h"

namespace echelon::serve {
namespace {

constexpr absl::string_view kPaths =
    "/v2, /v2/health/live, /v2/health/ready, /v2/models/NAME[/versions/V][/ready], "
    "/v2/models/NAME[/versions/V]/infer (POST), /healthz, /readyz, /status";
constexpr size_t kMinCompressedBytes = 1024;
constexpr absl::string_view kJsonLength = "inference-header-content-length";

HttpReply Json(std::string body) { return {.body = std::move(body)}; }

HttpReply Error(const absl::Status& status) {
  return HttpError(HttpCode(status), status.message());
}

HttpReply Readiness(const absl::Status& status) {
  return status.ok() ? Json("") : HttpError(503, status.message());
}

int HexDigit(char c) {
  return c >= '0' && c <= '9' ? c - '0' : absl::ascii_isxdigit(c) ? (c | 0x20) - 'a' + 10 : -1;
}

std::string PercentDecoded(absl::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '%' && i + 2 < text.size() && HexDigit(text[i + 1]) >= 0 &&
        HexDigit(text[i + 2]) >= 0) {
      out += static_cast<char>(HexDigit(text[i + 1]) * 16 + HexDigit(text[i + 2]));
      i += 2;
    } else {
      out += text[i];
    }
  }
  return out;
}

// "/v2/models/a%2Fb/" -> {"v2", "models", "a/b"}
std::vector<std::string> Segments(absl::string_view path) {
  std::vector<std::string> segments;
  for (const absl::string_view part : absl::StrSplit(path, '/', absl::SkipEmpty()))
    segments.push_back(PercentDecoded(part));
  return segments;
}

HttpReply WrongMethod(const HttpCall& call, absl::string_view allowed) {
  HttpReply reply =
      HttpError(405, absl::StrCat(call.path, " takes ", allowed, ", not ", call.method));
  reply.headers.emplace_back("Allow", std::string(allowed));
  return reply;
}

bool IsGet(const HttpCall& call) { return call.method == "GET" || call.method == "HEAD"; }

// The body as it was before compression; an error reply otherwise.
std::optional<HttpReply> Decompress(HttpCall* call, size_t max_bytes) {
  const std::string* header = call->Header("content-encoding");
  const std::string encoding = header ? absl::AsciiStrToLower(*header) : "identity";
  if (encoding == "identity" || encoding.empty()) return std::nullopt;
  if (encoding != "gzip" && encoding != "deflate") {
    HttpReply reply = HttpError(415, absl::StrCat("Content-Encoding '", encoding,
                                                  "' is not understood; use gzip, deflate"
                                                  " or none"));
    reply.headers.emplace_back("Accept-Encoding", "gzip, deflate");
    return reply;
  }
  auto body =
      Inflate(call->body, encoding == "gzip" ? Encoding::kGzip : Encoding::kDeflate, max_bytes);
  if (!body.ok())
    return HttpError(absl::IsOutOfRange(body.status()) ? 413 : 400, body.status().message());
  call->body = *std::move(body);
  return std::nullopt;
}

// Only inference answers: clients that ask for compression everywhere do not undo it everywhere.
void Compress(const std::string& accept_encoding, HttpReply* reply) {
  const Encoding encoding = Accepted(accept_encoding);
  if (encoding == Encoding::kNone || reply->body.size() < kMinCompressedBytes) return;
  reply->body = Deflate(reply->body, encoding);
  reply->headers.emplace_back("Content-Encoding", encoding == Encoding::kGzip ? "gzip" : "deflate");
}

HttpReply InferReply(const ModelInfo& model, const V2Request& request,
                     const absl::StatusOr<InferResult>& result,
                     const std::string& accept_encoding) {
  if (!result.ok()) return Error(result.status());
  auto body = EncodeV2Response(model, request, result->outputs);
  if (!body.ok()) return Error(body.status());
  HttpReply reply = Json(std::move(body->bytes));
  if (body->json_bytes) {
    reply.content_type = "application/octet-stream";
    reply.headers.emplace_back("Inference-Header-Content-Length", absl::StrCat(*body->json_bytes));
  }
  Compress(accept_encoding, &reply);
  return reply;
}

}  // namespace

int HttpCode(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kOk:
      return 200;
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kOutOfRange:
      return 400;
    case absl::StatusCode::kNotFound:
      return 404;
    case absl::StatusCode::kResourceExhausted:
      return 429;
    case absl::StatusCode::kCancelled:
      return 499;
    case absl::StatusCode::kUnimplemented:
      return 501;
    case absl::StatusCode::kUnavailable:
      return 503;
    case absl::StatusCode::kDeadlineExceeded:
      return 504;
    default:
      return 500;
  }
}

class HttpServer::Routes : public std::enable_shared_from_this<Routes> {
 public:
  explicit Routes(HttpServerOptions options) : options_(std::move(options)) {}

  void Handle(HttpCall call, HttpDone done) {
    const std::vector<std::string> path = Segments(call.path);
    if (path.size() == 1 && path[0] != "v2") return done(Watch(call, path[0]));
    if (path.empty() || path[0] != "v2") return done(Unknown(call));
    if (options_.backend == nullptr) return done(HttpError(404, options_.no_backend));
    if (path.size() > 2 && path[1] == "models")
      return Model(path, std::move(call), std::move(done));
    done(Server(call, path));
  }

 private:
  HttpReply Watch(const HttpCall& call, const std::string& name) {
    if (name != "healthz" && name != "readyz" && name != "status") return Unknown(call);
    if (!IsGet(call)) return WrongMethod(call, "GET");
    if (name == "healthz") return {.content_type = "text/plain", .body = "ok\n"};
    if (name == "status") return Json(options_.status_json ? options_.status_json() : "{}");
    const absl::Status ready = Ready();
    if (!ready.ok()) return HttpError(503, ready.message());
    return {.content_type = "text/plain", .body = "ok\n"};
  }

  absl::Status Ready() const {
    if (options_.ready) return options_.ready();
    return options_.backend ? options_.backend->Ready() : absl::OkStatus();
  }

  HttpReply Unknown(const HttpCall& call) const {
    return HttpError(404, absl::StrCat("there is nothing at ", call.path.substr(0, 200),
                                       "; the paths are ", kPaths));
  }

  HttpReply Server(const HttpCall& call, const std::vector<std::string>& path) {
    const std::string rest = absl::StrJoin(path.begin() + 1, path.end(), "/");
    if (rest == "repository/index") {
      if (call.method != "POST") return WrongMethod(call, "POST");
      return Json(RepositoryIndexJson(options_.backend->model(), options_.backend->Ready()));
    }
    if (rest != "" && rest != "health/live" && rest != "health/ready") return Unknown(call);
    if (!IsGet(call)) return WrongMethod(call, "GET");
    if (rest == "") return Json(ServerMetadataJson());
    return Readiness(rest == "health/live" ? absl::OkStatus() : options_.backend->Ready());
  }

  // v2/models/NAME[/versions/V][/ready|/config|/infer]
  void Model(const std::vector<std::string>& path, HttpCall call, HttpDone done) {
    const bool versioned = path.size() > 4 && path[3] == "versions";
    const size_t verb_at = versioned ? 5 : 3;
    const std::string verb = path.size() > verb_at ? path[verb_at] : "";
    const bool known = verb.empty() || verb == "ready" || verb == "config" || verb == "infer";
    if (path.size() > verb_at + 1 || !known) return done(Unknown(call));
    const ModelInfo& model = options_.backend->model();
    const absl::Status status = CheckModel(model, path[2], versioned ? path[4] : "");
    if (!status.ok()) return done(Error(status));
    if (verb == "infer") {
      if (call.method != "POST") return done(WrongMethod(call, "POST"));
      return Infer(std::move(call), std::move(done));
    }
    if (!IsGet(call)) return done(WrongMethod(call, "GET"));
    if (verb == "ready") return done(Readiness(options_.backend->Ready()));
    done(Json(verb == "config" ? ModelConfigJson(model) : ModelMetadataJson(model)));
  }

  void Infer(HttpCall call, HttpDone done) {
    const auto fail = [&](const absl::Status& status, HttpReply reply) {
      Log(status, call.arrived);
      done(std::move(reply));
    };
    if (auto refused = Decompress(&call, options_.listener.max_body_bytes))
      return fail(absl::InvalidArgumentError("encoding"), *std::move(refused));
    auto request = Decode(call);
    if (!request.ok()) return fail(request.status(), Error(request.status()));
    const std::string* accept = call.Header("accept-encoding");
    InferRequest infer = std::move(request->request);
    request->request = InferRequest{.id = infer.id};
    infer.deadline = call.arrived + std::min(request->timeout, options_.max_request_time);
    infer.cancelled = call.cancelled;
    std::string().swap(call.body);
    options_.backend->Infer(
        std::move(infer),
        [self = shared_from_this(), done = std::move(done), request = *std::move(request),
         accept = std::string(accept ? *accept : ""),
         arrived = call.arrived](absl::StatusOr<InferResult> result) mutable {
          self->Log(result.status(), arrived);
          // Writing large tensors as text takes long: not on the backend's thread.
          HttpReply reply;
          reply.finish = [self, request = std::move(request), accept = std::move(accept),
                          result = std::move(result)](HttpReply* reply) {
            *reply = InferReply(self->options_.backend->model(), request, result, accept);
          };
          done(std::move(reply));
        });
  }

  absl::StatusOr<V2Request> Decode(const HttpCall& call) const {
    std::optional<size_t> json_bytes;
    if (const std::string* length = call.Header(kJsonLength)) {
      uint64_t value = 0;
      if (!absl::SimpleAtoi(*length, &value))
        return absl::InvalidArgumentError("Inference-Header-Content-Length is not a number");
      json_bytes = value;
    }
    auto request = DecodeV2Request(call.body, json_bytes);
    if (!request.ok()) return request.status();
    auto status = CheckOutputs(options_.backend->model(), request->request.outputs);
    if (!status.ok()) return status;
    return request;
  }

  void Log(const absl::Status& status, absl::Time arrived) const {
    if (options_.log) options_.log(status, absl::ToDoubleSeconds(absl::Now() - arrived));
  }

  const HttpServerOptions options_;
};

HttpServer::HttpServer() = default;
HttpServer::~HttpServer() { Stop(absl::Now()); }
int HttpServer::port() const { return listener_->port(); }

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::Start(HttpServerOptions options) {
  std::unique_ptr<HttpServer> self(new HttpServer);
  HttpListenerOptions listener = options.listener;
  self->routes_ = std::make_shared<Routes>(std::move(options));
  auto started = HttpListener::Start(
      std::move(listener), [routes = self->routes_](HttpCall call, HttpDone done) {
        try {
          routes->Handle(std::move(call), done);
        } catch (const std::exception& error) {  // out of memory, most likely
          done(HttpError(500, absl::StrCat("the request could not be handled: ", error.what())));
        }
      });
  if (!started.ok()) return started.status();
  self->listener_ = *std::move(started);
  return self;
}

void HttpServer::Drain() {
  if (listener_) listener_->Drain();
}

void HttpServer::Stop(absl::Time deadline) {
  if (listener_) listener_->Stop(deadline);
}

}  // namespace echelon::serve
