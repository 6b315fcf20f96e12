#include "operator/controller/metrics.h"

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <fstream>
#include <map>
#include <mutex>
#include <utility>

namespace echelon::op {
namespace {

const prometheus::Histogram::BucketBoundaries kSeconds{0.0001, 0.00025, 0.0005, 0.001, 0.0025,
                                                       0.005,  0.01,    0.025,  0.05,  0.1};

}  // namespace

struct Metrics::Families {
  prometheus::Registry registry;
  prometheus::Family<prometheus::Counter>& requests =
      prometheus::BuildCounter()
          .Name("echelon_operator_requests_total")
          .Help("Requests to the API server for objects, status and events.")
          .Register(registry);
  prometheus::Family<prometheus::Counter>& watch_errors =
      prometheus::BuildCounter()
          .Name("echelon_operator_watch_errors_total")
          .Help("Lists and watches that failed; each is begun again.")
          .Register(registry);
  prometheus::Family<prometheus::Counter>& polls = prometheus::BuildCounter()
                                                       .Name("echelon_operator_status_polls_total")
                                                       .Help("Questions to heads for their status.")
                                                       .Register(registry);
  prometheus::Counter& errors =
      prometheus::BuildCounter()
          .Name("echelon_operator_errors_total")
          .Help("Plans and status writes that did not go through and are tried again.")
          .Register(registry)
          .Add({});
  prometheus::Histogram& reconcile =
      prometheus::BuildHistogram()
          .Name("echelon_operator_reconcile_cpu_seconds")
          .Help("CPU time of one reconcile, without the requests that follow.")
          .Register(registry)
          .Add({}, kSeconds);
  prometheus::Gauge& reconcile_max = Gauge("echelon_operator_reconcile_cpu_max_seconds",
                                           "The longest reconcile so far, in CPU time.");
  prometheus::Gauge& queued = Gauge("echelon_operator_queue_objects",
                                    "Objects that wait for their next reconcile, due or not.");
  prometheus::Gauge& working =
      Gauge("echelon_operator_working_objects", "Objects whose plan is being carried out.");
  prometheus::Gauge& deployments =
      Gauge("echelon_operator_deployments", "PipelineDeployments seen.");
  prometheus::Gauge& pods = Gauge("echelon_operator_pods", "Pods of PipelineDeployments seen.");
  prometheus::Gauge& requests_waiting =
      Gauge("echelon_operator_requests_waiting", "Requests that wait for a place in flight.");
  prometheus::Gauge& requests_in_flight =
      Gauge("echelon_operator_requests_in_flight", "Requests under way.");
  prometheus::Gauge& heads =
      Gauge("echelon_operator_polled_heads", "Heads that are asked for their status.");
  prometheus::Gauge& leader =
      Gauge("echelon_operator_leader", "1 while this replica holds the lease.");
  prometheus::Gauge& synced =
      Gauge("echelon_operator_synced", "1 once all resources have been listed.");
  prometheus::Gauge& watches =
      Gauge("echelon_operator_watches_opened", "Watches opened since the start.");
  prometheus::Gauge& resident =
      Gauge("echelon_operator_resident_bytes", "Resident memory of the process.");
  prometheus::Gauge& resident_max =
      Gauge("echelon_operator_resident_max_bytes", "The most resident memory the process has had.");
  prometheus::Family<prometheus::Gauge>& groups =
      prometheus::BuildGauge()
          .Name("echelon_operator_deployment_groups")
          .Help("Groups that a PipelineDeployment wants; 0 while it is suspended.")
          .Register(registry);
  prometheus::Family<prometheus::Gauge>& groups_ready =
      prometheus::BuildGauge()
          .Name("echelon_operator_deployment_groups_ready")
          .Help("Groups of a PipelineDeployment whose head takes requests.")
          .Register(registry);
  struct OfDeployment {
    prometheus::Gauge *wanted, *ready;
  };
  std::mutex deployments_mutex;
  std::map<std::pair<std::string, std::string>, OfDeployment> of_deployments;
  std::mutex max_mutex;

  void Remove(const OfDeployment& gauges) {
    groups.Remove(gauges.wanted);
    groups_ready.Remove(gauges.ready);
  }

  prometheus::Gauge& Gauge(const char* name, const char* help) {
    return prometheus::BuildGauge().Name(name).Help(help).Register(registry).Add({});
  }
};

Metrics::Metrics(std::string_view version) : families_(std::make_unique<Families>()) {
  prometheus::BuildGauge()
      .Name("echelon_operator_build_info")
      .Help("1; its label says which version this is.")
      .Register(families_->registry)
      .Add({{"version", std::string(version)}})
      .Set(1);
}

Metrics::~Metrics() = default;

void Metrics::ObserveReconcile(double cpu_seconds) {
  families_->reconcile.Observe(cpu_seconds);
  const std::lock_guard lock(families_->max_mutex);
  if (cpu_seconds > families_->reconcile_max.Value()) families_->reconcile_max.Set(cpu_seconds);
}

void Metrics::AddRequest(std::string_view verb, std::string_view code) {
  families_->requests.Add({{"verb", std::string(verb)}, {"code", std::string(code)}}).Increment();
}

void Metrics::AddError() { families_->errors.Increment(); }

void Metrics::AddPoll(bool answered) {
  families_->polls.Add({{"outcome", answered ? "answered" : "failed"}}).Increment();
}

void Metrics::AddWatchError(std::string_view resource) {
  families_->watch_errors.Add({{"resource", std::string(resource)}}).Increment();
}

void Metrics::Set(const Gauges& gauges) {
  families_->queued.Set(static_cast<double>(gauges.queued));
  families_->working.Set(static_cast<double>(gauges.working));
  families_->deployments.Set(static_cast<double>(gauges.deployments));
  families_->pods.Set(static_cast<double>(gauges.pods));
  families_->requests_waiting.Set(static_cast<double>(gauges.requests_waiting));
  families_->requests_in_flight.Set(static_cast<double>(gauges.requests_in_flight));
  families_->heads.Set(static_cast<double>(gauges.heads));
  families_->leader.Set(gauges.leader ? 1 : 0);
  families_->synced.Set(gauges.synced ? 1 : 0);
}

void Metrics::SetGroups(std::string_view ns, std::string_view name, int wanted, int ready) {
  const std::lock_guard lock(families_->deployments_mutex);
  const std::pair key{std::string(ns), std::string(name)};
  auto found = families_->of_deployments.find(key);
  if (found == families_->of_deployments.end()) {
    const prometheus::Labels labels{{"deployment_namespace", key.first},
                                    {"deployment", key.second}};
    found = families_->of_deployments
                .emplace(key, Families::OfDeployment{&families_->groups.Add(labels),
                                                     &families_->groups_ready.Add(labels)})
                .first;
  }
  found->second.wanted->Set(wanted);
  found->second.ready->Set(ready);
}

void Metrics::ForgetGroups(std::string_view ns, std::string_view name) {
  const std::lock_guard lock(families_->deployments_mutex);
  const auto found = families_->of_deployments.find({std::string(ns), std::string(name)});
  if (found == families_->of_deployments.end()) return;
  families_->Remove(found->second);
  families_->of_deployments.erase(found);
}

void Metrics::ForgetAllGroups() {
  const std::lock_guard lock(families_->deployments_mutex);
  for (const auto& [key, gauges] : families_->of_deployments) families_->Remove(gauges);
  families_->of_deployments.clear();
}

void Metrics::SetWatches(int64_t opened) { families_->watches.Set(static_cast<double>(opened)); }

std::string Metrics::Text() const {
  std::ifstream status("/proc/self/status");
  for (std::string word; status >> word;) {
    double kib = 0;
    if (word == "VmHWM:" && status >> kib) families_->resident_max.Set(kib * 1024);
    if (word == "VmRSS:" && status >> kib) families_->resident.Set(kib * 1024);
  }
  return prometheus::TextSerializer().Serialize(families_->registry.Collect());
}

}  // namespace echelon::op
