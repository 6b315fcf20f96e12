// What a stage process counts, in Prometheus' text form. Every metric carries the labels model and
// rank.
#ifndef ECHELON_RUNTIME_SERVE_METRICS_H_
#define ECHELON_RUNTIME_SERVE_METRICS_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace echelon::serve {

struct MetricsOptions {
  std::string model;
  int rank = 0;
  std::string version;        // of Echelon
  std::string torch_version;  // "" without LibTorch
};

// Methods are thread-safe and take well under a microsecond, except Text().
class Metrics {
 public:
  explicit Metrics(const MetricsOptions& options);
  ~Metrics();

  // One micro-batch through this stage's nodes.
  void ObserveCompute(double seconds);   // echelon_compute_seconds, echelon_micro_batches_total
  void AddLinkReceived(uint64_t bytes);  // echelon_link_received_bytes_total
  void AddLinkSent(uint64_t bytes);      // echelon_link_sent_bytes_total
  void AddLinkWait(double seconds);      // echelon_link_wait_seconds_total
  void SetWeights(uint64_t loaded_bytes, uint64_t bytes);  // echelon_weights_{loaded_,}bytes
  void SetEpoch(uint64_t epoch);                           // echelon_epoch
  void SetReady(bool ready);                               // echelon_ready
  void SetQueueDepth(int64_t requests);                    // echelon_queue_requests
  void AddError(
      absl::string_view reason);  // echelon_errors_total{reason}; "rank_lost", "bad_frame"...
  // echelon_requests_total{code}, echelon_request_seconds; fits RequestLog.
  void ObserveRequest(const absl::Status& status, double seconds);

  // Text requests, on the head.
  void AddPromptTokens(int64_t tokens);         // echelon_prompt_tokens_total
  void AddGeneratedTokens(int64_t tokens);      // echelon_generated_tokens_total
  void ObserveFirstToken(double seconds);       // echelon_time_to_first_token_seconds
  void ObserveNextToken(double seconds);        // echelon_time_per_output_token_seconds
  void AddPreemptions(int64_t preemptions);     // echelon_preemptions_total
  void SetRunning(int64_t requests);            // echelon_running_requests
  void SetKvBlocks(int64_t used, int64_t all);  // echelon_kv_blocks{_used,}

  // The text exposition format, version 0.0.4. Reads the resident bytes (echelon_resident_bytes).
  std::string Text() const;

 private:
  struct Families;
  std::unique_ptr<Families> families_;
};

// GET /metrics on a port of its own.
class MetricsServer {
 public:
  // `metrics` must outlive the server. Port 0: any. kUnavailable: the port is taken or cannot be
  // had, in one line.
  static absl::StatusOr<std::unique_ptr<MetricsServer>> Start(
      const Metrics* metrics, std::string host, int port, std::string port_flag = "--metrics-port");
  virtual ~MetricsServer() = default;
  virtual int port() const = 0;
};

}  // namespace echelon::serve

#endif  // ECHELON_RUNTIME_SERVE_METRICS_H_
