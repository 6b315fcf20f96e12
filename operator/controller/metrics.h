// What the operator counts, in Prometheus' text form. Thread-safe.
#ifndef ECHELON_OPERATOR_CONTROLLER_METRICS_H_
#define ECHELON_OPERATOR_CONTROLLER_METRICS_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

namespace echelon::op {

class Metrics {
 public:
  explicit Metrics(std::string_view version);
  ~Metrics();

  // echelon_operator_reconcile_cpu_seconds (histogram), .._max_seconds: of the thread, without I/O.
  void ObserveReconcile(double cpu_seconds);
  // echelon_operator_requests_total{verb,code}
  void AddRequest(std::string_view verb, std::string_view code);
  // echelon_operator_errors_total: plans and status writes that did not go through
  void AddError();
  // echelon_operator_status_polls_total{outcome}: answered, failed
  void AddPoll(bool answered);
  // echelon_operator_watch_errors_total{resource}
  void AddWatchError(std::string_view resource);

  struct Gauges {
    int64_t queued = 0, working = 0;    // echelon_operator_{queue,working}_objects
    int64_t deployments = 0, pods = 0;  // echelon_operator_{deployments,pods}
    int64_t requests_waiting = 0, requests_in_flight = 0;
    int64_t heads = 0;  // asked for their status
    bool leader = false, synced = false;
  };
  void Set(const Gauges& gauges);
  // echelon_operator_deployment_{groups,groups_ready}{deployment,deployment_namespace}: wanted,
  // and with a ready head. Told by the leader alone, which forgets them when it leads no more. A
  // scrape gives `namespace` to the operator's own.
  void SetGroups(std::string_view ns, std::string_view name, int wanted, int ready);
  void ForgetGroups(std::string_view ns, std::string_view name);
  void ForgetAllGroups();
  void SetWatches(int64_t opened);  // echelon_operator_watches_opened

  std::string Text() const;

 private:
  struct Families;
  std::unique_ptr<Families> families_;
};

}  // namespace echelon::op

#endif  // ECHELON_OPERATOR_CONTROLLER_METRICS_H_
