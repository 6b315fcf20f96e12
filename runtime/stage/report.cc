#include "runtime/stage/report.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>

namespace echelon::stage {

using Json = nlohmann::json;

void Report::Ports(int group, int http, int grpc, int metrics) {
  Write(Json{
      {"event", "ports"}, {"group", group}, {"http", http}, {"grpc", grpc}, {"metrics", metrics}}
            .dump());
}

void Report::Planned(int64_t weight_bytes, int64_t kv_bytes, int64_t kv_tokens) {
  Write(Json{
      {"event", "planned"}, {"weights", weight_bytes}, {"kv", kv_bytes}, {"kv_tokens", kv_tokens}}
            .dump());
}

void Report::Loading(int64_t loaded_bytes, int64_t total_bytes) {
  constexpr int64_t kPeriodMs = 50;
  const int64_t now = std::chrono::duration_cast<std::chrono::milliseconds>(
                          std::chrono::steady_clock::now().time_since_epoch())
                          .count();
  {
    const std::lock_guard lock(mutex_);
    if (loaded_bytes != total_bytes && now - last_loading_ms_ < kPeriodMs) return;
    last_loading_ms_ = now;
  }
  Write(Json{{"event", "loading"}, {"loaded", loaded_bytes}, {"total", total_bytes}}.dump());
}

void Report::Ready(uint64_t epoch) { Write(Json{{"event", "ready"}, {"epoch", epoch}}.dump()); }
void Report::Closed(const std::string& why) {
  Write(Json{{"event", "closed"}, {"why", why}}.dump());
}
void Report::Error(const std::string& message) {
  Write(Json{{"event", "error"}, {"message", message}}.dump());
}

void Report::Write(const std::string& json) {
  if (descriptor_ < 0) return;
  const std::string line = json + "\n";
  const std::lock_guard lock(mutex_);
  // A parent that has gone is no reason to fail: it is told, not asked. SIGPIPE is ignored in main.
  [[maybe_unused]] const ssize_t written = ::write(descriptor_, line.data(), line.size());
}

void WriteTermination(const std::string& path, const std::string& line) {
  constexpr size_t kMaxBytes = 4096;
  if (path.empty()) return;
  const int file = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (file < 0) return;
  [[maybe_unused]] const ssize_t written =
      ::write(file, line.data(), std::min(line.size(), kMaxBytes));
  ::close(file);
}

}  // namespace echelon::stage
