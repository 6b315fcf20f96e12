#include "operator/kube/lease_json.h"

#include <algorithm>

#include "absl/status/status.h"

namespace echelon::op {
namespace {

using nlohmann::json;

constexpr char kMicroTime[] = "%Y-%m-%dT%H:%M:%E6SZ";

std::string TextOf(const json& spec, const char* name) {
  const auto value = spec.find(name);
  return value == spec.end() || !value->is_string() ? "" : value->get<std::string>();
}

int64_t NumberOf(const json& spec, const char* name, int64_t absent) {
  const auto value = spec.find(name);
  return value == spec.end() || !value->is_number_integer() ? absent : value->get<int64_t>();
}

// A time that cannot be read is none: it serves to tell a change, and the version tells it too.
absl::Time TimeOf(const json& spec, const char* name) {
  absl::Time time;
  std::string error;
  if (!absl::ParseTime(absl::RFC3339_full, TextOf(spec, name), &time, &error)) return {};
  return time;
}

}  // namespace

absl::StatusOr<LeaseSpec> ReadLease(const json& lease) {
  if (!lease.is_object()) return absl::DataLossError("the Lease is no JSON object");
  const auto found = lease.find("spec");
  const json spec = found != lease.end() && found->is_object() ? *found : json::object();
  LeaseSpec read;
  read.holder = TextOf(spec, "holderIdentity");
  read.duration =
      absl::Seconds(std::clamp<int64_t>(NumberOf(spec, "leaseDurationSeconds", 15), 1, 3600));
  read.acquired = TimeOf(spec, "acquireTime");
  read.renewed = TimeOf(spec, "renewTime");
  read.transitions = static_cast<int>(NumberOf(spec, "leaseTransitions", 0));
  return read;
}

void WriteLease(const LeaseSpec& spec, json& lease) {
  lease["apiVersion"] = "coordination.k8s.io/v1";
  lease["kind"] = "Lease";
  json& to = lease["spec"];
  if (!to.is_object()) to = json::object();
  to["holderIdentity"] = spec.holder;
  // Rounded up: nobody may take it for expired while its holder still writes.
  to["leaseDurationSeconds"] =
      absl::ToInt64Seconds(std::max(absl::Seconds(1), absl::Ceil(spec.duration, absl::Seconds(1))));
  to["acquireTime"] = absl::FormatTime(kMicroTime, spec.acquired, absl::UTCTimeZone());
  to["renewTime"] = absl::FormatTime(kMicroTime, spec.renewed, absl::UTCTimeZone());
  to["leaseTransitions"] = spec.transitions;
}

}  // namespace echelon::op
