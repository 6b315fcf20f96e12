#include "runtime/serve/metrics.h"

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>
#include <unistd.h>

#include <fstream>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "runtime/serve/http_listener.h"

namespace echelon::serve {
namespace {

// 50 us to 10 s: from one micro-batch of a small stage to a long request.
const prometheus::Histogram::BucketBoundaries& Seconds() {
  static const prometheus::Histogram::BucketBoundaries kSeconds{
      0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025,
      0.05,    0.1,    0.25,    0.5,    1,     2.5,    5,     10};
  return kSeconds;
}

double ResidentBytes() {
  std::ifstream file("/proc/self/statm");
  uint64_t size_pages = 0, resident_pages = 0;
  file >> size_pages >> resident_pages;
  return static_cast<double>(resident_pages) * static_cast<double>(sysconf(_SC_PAGESIZE));
}

// A reason is a label's value: a short word, not a sentence with numbers in it, or the series would
// have no end.
std::string ReasonLabel(absl::string_view reason) {
  constexpr size_t kMaxBytes = 40;
  std::string label;
  for (const char c : reason.substr(0, kMaxBytes))
    label += absl::ascii_isalnum(c) ? absl::ascii_tolower(c) : '_';
  return label.empty() ? "unknown" : label;
}

}  // namespace

struct Metrics::Families {
  explicit Families(const MetricsOptions& options)
      : labels{{"model", options.model}, {"rank", absl::StrCat(options.rank)}} {
    prometheus::BuildGauge()
        .Name("echelon_build_info")
        .Help("Always 1; the versions stand in the labels.")
        .Labels(labels)
        .Register(registry)
        .Add({{"version", options.version}, {"torch", options.torch_version}})
        .Set(1);
  }

  prometheus::Counter& Count(const std::string& name, const std::string& help) {
    return prometheus::BuildCounter().Name(name).Help(help).Labels(labels).Register(registry).Add(
        {});
  }
  prometheus::Gauge& Level(const std::string& name, const std::string& help) {
    return prometheus::BuildGauge().Name(name).Help(help).Labels(labels).Register(registry).Add({});
  }
  prometheus::Histogram& Times(const std::string& name, const std::string& help) {
    return prometheus::BuildHistogram().Name(name).Help(help).Labels(labels).Register(registry).Add(
        {}, Seconds());
  }
  prometheus::Family<prometheus::Counter>& Counts(const std::string& name,
                                                  const std::string& help) {
    return prometheus::BuildCounter().Name(name).Help(help).Labels(labels).Register(registry);
  }

  prometheus::Registry registry;
  const prometheus::Labels labels;
  prometheus::Histogram& compute =
      Times("echelon_compute_seconds", "Time of one micro-batch in this stage's nodes.");
  prometheus::Counter& micro_batches =
      Count("echelon_micro_batches_total", "Micro-batches that this stage has computed.");
  prometheus::Counter& received =
      Count("echelon_link_received_bytes_total", "Bytes received from other stages.");
  prometheus::Counter& sent = Count("echelon_link_sent_bytes_total", "Bytes sent to other stages.");
  prometheus::Counter& wait =
      Count("echelon_link_wait_seconds_total", "Time spent waiting for another stage.");
  prometheus::Gauge& loaded =
      Level("echelon_weights_loaded_bytes", "Bytes of this stage's weights loaded so far.");
  prometheus::Gauge& weights = Level("echelon_weights_bytes", "Bytes of this stage's weights.");
  prometheus::Gauge& resident = Level("echelon_resident_bytes", "Resident memory of this process.");
  prometheus::Gauge& epoch =
      Level("echelon_epoch", "Number of the group's epoch; 0 while there is none.");
  prometheus::Gauge& ready = Level("echelon_ready", "1 when this rank can serve, else 0.");
  prometheus::Gauge& queue = Level("echelon_queue_requests", "Requests that wait for their turn.");
  prometheus::Family<prometheus::Counter>& errors =
      Counts("echelon_errors_total", "Failures, by reason.");
  prometheus::Family<prometheus::Counter>& requests_family =
      Counts("echelon_requests_total", "Inference requests answered, by status code.");
  prometheus::Histogram& request_seconds = Times(
      "echelon_request_seconds", "Time of an inference request from its arrival to its answer.");
  prometheus::Counter& prompt_tokens =
      Count("echelon_prompt_tokens_total", "Tokens of prompts whose answers have begun.");
  prometheus::Counter& generated_tokens =
      Count("echelon_generated_tokens_total", "Tokens of answers.");
  prometheus::Histogram& first_token =
      Times("echelon_time_to_first_token_seconds",
            "Time from a text request's arrival to the first token of its answer.");
  prometheus::Histogram& next_token = Times("echelon_time_per_output_token_seconds",
                                            "Time from one token of an answer to the next.");
  prometheus::Counter& preemptions =
      Count("echelon_preemptions_total",
            "Times that a text request gave its KV blocks up, to be computed again.");
  prometheus::Gauge& running =
      Level("echelon_running_requests", "Text requests that hold blocks of the KV cache.");
  prometheus::Gauge& kv_blocks_used =
      Level("echelon_kv_blocks_used", "Blocks of the KV cache that hold tokens.");
  prometheus::Gauge& kv_blocks = Level("echelon_kv_blocks", "Blocks of the KV cache.");
  // Found once: finding a series by its label costs more than counting.
  prometheus::Counter& requests_ok = requests_family.Add({{"code", "OK"}});
};

Metrics::Metrics(const MetricsOptions& options) : families_(std::make_unique<Families>(options)) {}
Metrics::~Metrics() = default;

void Metrics::ObserveCompute(double seconds) {
  families_->compute.Observe(seconds);
  families_->micro_batches.Increment();
}

void Metrics::AddLinkReceived(uint64_t bytes) {
  families_->received.Increment(static_cast<double>(bytes));
}

void Metrics::AddLinkSent(uint64_t bytes) { families_->sent.Increment(static_cast<double>(bytes)); }

void Metrics::AddLinkWait(double seconds) { families_->wait.Increment(seconds); }

void Metrics::SetWeights(uint64_t loaded_bytes, uint64_t bytes) {
  families_->loaded.Set(static_cast<double>(loaded_bytes));
  families_->weights.Set(static_cast<double>(bytes));
}

void Metrics::SetEpoch(uint64_t epoch) { families_->epoch.Set(static_cast<double>(epoch)); }

void Metrics::SetReady(bool ready) { families_->ready.Set(ready ? 1 : 0); }

void Metrics::SetQueueDepth(int64_t requests) {
  families_->queue.Set(static_cast<double>(requests));
}

void Metrics::AddError(absl::string_view reason) {
  families_->errors.Add({{"reason", ReasonLabel(reason)}}).Increment();
}

void Metrics::ObserveRequest(const absl::Status& status, double seconds) {
  (status.ok()
       ? families_->requests_ok
       : families_->requests_family.Add({{"code", absl::StatusCodeToString(status.code())}}))
      .Increment();
  families_->request_seconds.Observe(seconds);
}

void Metrics::AddPromptTokens(int64_t tokens) {
  families_->prompt_tokens.Increment(static_cast<double>(tokens));
}

void Metrics::AddGeneratedTokens(int64_t tokens) {
  families_->generated_tokens.Increment(static_cast<double>(tokens));
}

void Metrics::ObserveFirstToken(double seconds) { families_->first_token.Observe(seconds); }

void Metrics::ObserveNextToken(double seconds) { families_->next_token.Observe(seconds); }

void Metrics::AddPreemptions(int64_t preemptions) {
  families_->preemptions.Increment(static_cast<double>(preemptions));
}

void Metrics::SetRunning(int64_t requests) {
  families_->running.Set(static_cast<double>(requests));
}

void Metrics::SetKvBlocks(int64_t used, int64_t all) {
  families_->kv_blocks_used.Set(static_cast<double>(used));
  families_->kv_blocks.Set(static_cast<double>(all));
}

std::string Metrics::Text() const {
  families_->resident.Set(ResidentBytes());
  return prometheus::TextSerializer().Serialize(families_->registry.Collect());
}

namespace {

// On our own listener rather than the library's: one set of limits and deadlines, and no second
// HTTP server's threads.
class ListeningMetricsServer : public MetricsServer {
 public:
  explicit ListeningMetricsServer(std::unique_ptr<HttpListener> listener)
      : listener_(std::move(listener)) {}
  int port() const override { return listener_->port(); }

 private:
  const std::unique_ptr<HttpListener> listener_;
};

HttpReply Answer(const Metrics& metrics, const HttpCall& call) {
  if (call.path != "/metrics")
    return HttpError(404, absl::StrCat("there is nothing at ", call.path.substr(0, 200),
                                       "; the path is /metrics"));
  if (call.method != "GET" && call.method != "HEAD")
    return HttpError(405, absl::StrCat("/metrics takes GET, not ", call.method));
  return {.content_type = "text/plain; version=0.0.4; charset=utf-8", .body = metrics.Text()};
}

}  // namespace

absl::StatusOr<std::unique_ptr<MetricsServer>> MetricsServer::Start(const Metrics* metrics,
                                                                    std::string host, int port,
                                                                    std::string port_flag) {
  HttpListenerOptions options{.host = std::move(host),
                              .port = port,
                              .port_flag = std::move(port_flag),
                              .threads = 1,
                              .max_connections = 64,
                              .max_body_bytes = 1 << 10};
  auto listener = HttpListener::Start(std::move(options), [metrics](HttpCall call, HttpDone done) {
    done(Answer(*metrics, call));
  });
  if (!listener.ok()) return listener.status();
  return std::make_unique<ListeningMetricsServer>(*std::move(listener));
}

}  // namespace echelon::serve
