// What a stage process tells the program that started it (echelon run), as JSON lines on a
// descriptor of its own.
#ifndef ECHELON_RUNTIME_STAGE_REPORT_H_
#define ECHELON_RUNTIME_STAGE_REPORT_H_

#include <cstdint>
#include <mutex>
#include <string>

namespace echelon::stage {

// {"event": "ports", "group": n, "http": n, "grpc": n, "metrics": n}
// {"event": "planned", "weights": bytes, "kv": bytes, "kv_tokens": n}    the head: of all stages
// {"event": "loading", "loaded": bytes, "total": bytes}        at most every 50 ms
// {"event": "ready", "epoch": n}    {"event": "closed", "why": text}    {"event": "error",
// "message": text}
class Report {
 public:
  explicit Report(int descriptor) : descriptor_(descriptor) {}  // negative: nobody listens

  void Ports(int group, int http, int grpc, int metrics);
  void Planned(int64_t weight_bytes, int64_t kv_bytes, int64_t kv_tokens);
  void Loading(int64_t loaded_bytes, int64_t total_bytes);
  void Ready(uint64_t epoch);
  void Closed(const std::string& why);
  void Error(const std::string& message);

 private:
  void Write(const std::string& json);

  const int descriptor_;
  std::mutex mutex_;
  int64_t last_loading_ms_ = 0;
};

// The line of a fatal error, for whoever looks at a container that has ended; 4096 bytes at most,
// which is what Kubernetes reads. Best effort; no file where the path is "".
void WriteTermination(const std::string& path, const std::string& line);

}  // namespace echelon::stage

#endif  // ECHELON_RUNTIME_STAGE_REPORT_H_
