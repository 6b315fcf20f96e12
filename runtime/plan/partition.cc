#include "runtime/plan/partition.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "runtime/plan/cost.h"

namespace echelon::plan {
namespace {

constexpr int64_t kNever = std::numeric_limits<int64_t>::max();

class Balancer {
 public:
  Balancer(const Load& load, const std::vector<int>& cuts, const std::vector<int64_t>& costs,
           const Machines& machines)
      : load_(load), machines_(machines), stages_(static_cast<int>(machines.speed.size())) {
    points_.push_back(0);
    points_.insert(points_.end(), cuts.begin(), cuts.end());
    points_.push_back(load.nodes);
    compute_.resize(points_.size());
    for (size_t p = 1; p < points_.size(); ++p) {
      compute_[p] = compute_[p - 1];
      for (int i = points_[p - 1]; i < points_[p]; ++i) {
        compute_[p] = SaturatingAdd(compute_[p], costs[i]);
      }
    }
    top_speed_ = *std::max_element(machines.speed.begin(), machines.speed.end());
    top_memory_ = *std::max_element(machines.memory_bytes.begin(), machines.memory_bytes.end());
    seen_.assign(load.record_bytes.size(), -1);
  }

  std::vector<int> Run() {
    bound_ = EvenSplitTime();
    int64_t best = LeastBottleneck();
    if (best == kNever && bound_ != kNever) {
      bound_ = kNever;
      best = LeastBottleneck();
    }
    if (best == kNever) return {};
    bound_ = best;
    return CheapestUnderBound();
  }

 private:
  int Last() const { return static_cast<int>(points_.size()) - 1; }
  int64_t Time(int stage, int from, int to) const {
    return StageTime(compute_[to] - compute_[from], machines_.speed[stage],
                     load_.send_bytes[points_[to]]);
  }

  // Calls visit(to, weight_bytes) for every end of a stage that starts at point `from` and no stage
  // finds too slow or too big. Weights are summed as the stage grows, each record once.
  template <class Visit>
  void ForEachEnd(int from, Visit visit) {
    int64_t weight = 0;
    ++sweep_;
    for (int to = from + 1; to <= Last(); ++to) {
      for (int i = points_[to - 1]; i < points_[to]; ++i) {
        for (const int record : load_.records[i]) {
          if (std::exchange(seen_[record], sweep_) != sweep_) {
            weight = SaturatingAdd(weight, load_.record_bytes[record]);
          }
        }
      }
      if (weight > top_memory_) return;
      if (bound_ != kNever && StageTime(compute_[to] - compute_[from], top_speed_, 0) > bound_)
        return;
      visit(to, weight);
    }
  }

  // The last stage ends at the last point, no other does; enough points must be left for those
  // behind.
  bool MayEnd(int stage, int to) const {
    if (stage + 1 == stages_) return to == Last();
    return to + (stages_ - stage - 1) <= Last();
  }

  // A first bound, from splitting at even shares of the compute: not optimal, but it prunes most of
  // the search.
  int64_t EvenSplitTime() {
    double speeds = 0, sum = 0;
    for (const double speed : machines_.speed) speeds += speed;
    int64_t slowest = 0;
    for (int s = 0, from = 0; s < stages_; ++s) {
      sum += machines_.speed[s];
      const auto wanted =
          static_cast<int64_t>(static_cast<double>(compute_.back()) * (sum / speeds));
      int to = static_cast<int>(std::lower_bound(compute_.begin(), compute_.end(), wanted) -
                                compute_.begin());
      to = s + 1 == stages_ ? Last() : std::clamp(to, from + 1, Last() - (stages_ - s - 1));
      if (load_.WeightBytes(points_[from], points_[to]) > machines_.memory_bytes[s]) return kNever;
      slowest = std::max(slowest, Time(s, from, to));
      from = to;
    }
    return slowest;
  }

  int64_t LeastBottleneck() {
    const size_t points = points_.size();
    // best[from * stages + s]: slowest of the first s stages when they end at point `from`.
    std::vector<int64_t> best(points * (stages_ + 1), kNever);
    best[0] = 0;
    for (int from = 0; from < Last(); ++from) {
      const int64_t* here = &best[from * (stages_ + 1)];
      if (std::all_of(here, here + stages_, [](int64_t t) { return t == kNever; })) continue;
      ForEachEnd(from, [&](int to, int64_t weight) {
        for (int s = 0; s < stages_; ++s) {
          if (here[s] == kNever || weight > machines_.memory_bytes[s] || !MayEnd(s, to)) continue;
          const int64_t time = std::max(here[s], Time(s, from, to));
          int64_t& there = best[to * (stages_ + 1) + s + 1];
          there = std::min(there, time);
        }
      });
    }
    return best.back();
  }

  struct Choice {
    int64_t bytes = kNever, uneven = 0;  // compared in this order
    int from = -1;
    bool operator<(const Choice& other) const {
      return bytes != other.bytes ? bytes < other.bytes : uneven < other.uneven;
    }
  };

  std::vector<int> CheapestUnderBound() {
    std::vector<Choice> best(points_.size() * (stages_ + 1));
    const auto at = [&](int point, int stage) -> Choice& {
      return best[point * (stages_ + 1) + stage];
    };
    at(0, 0) = {0, 0, 0};
    for (int from = 0; from < Last(); ++from) {
      ForEachEnd(from, [&](int to, int64_t weight) {
        for (int s = 0; s < stages_; ++s) {
          const Choice& here = at(from, s);
          if (here.from < 0 || weight > machines_.memory_bytes[s] || !MayEnd(s, to)) continue;
          const int64_t time = Time(s, from, to);
          if (time > bound_) continue;
          const Choice next{SaturatingAdd(here.bytes, load_.send_bytes[points_[to]]),
                            SaturatingAdd(here.uneven, Square(time)), from};
          if (next < at(to, s + 1)) at(to, s + 1) = next;
        }
      });
    }
    std::vector<int> bounds{load_.nodes};
    for (int s = stages_, point = Last(); s > 0; --s) {
      point = at(point, s).from;
      bounds.push_back(points_[point]);
    }
    std::reverse(bounds.begin(), bounds.end());
    return bounds;
  }

  // Of the time in 2^20ths of the slowest: small enough to add up.
  int64_t Square(int64_t time) const {
    if (bound_ <= 0) return 0;
    const auto part =
        static_cast<int64_t>(static_cast<double>(time) / static_cast<double>(bound_) * (1 << 20));
    return part * part;
  }

  const Load& load_;
  const Machines& machines_;
  const int stages_;
  std::vector<int> points_;       // 0, the legal cuts, the number of nodes
  std::vector<int64_t> compute_;  // of all nodes before each point
  double top_speed_ = 1;
  int64_t top_memory_ = 0;
  int64_t bound_ = kNever;
  std::vector<int> seen_;  // the sweep that last counted a record
  int sweep_ = 0;
};

}  // namespace

int64_t StageTime(int64_t compute_ns, double speed, int64_t send_bytes) {
  const double time =
      static_cast<double>(compute_ns) / speed + static_cast<double>(send_bytes) / kLinkBytesPerNs;
  return time >= static_cast<double>(kMost) ? kMost : static_cast<int64_t>(time);
}

std::vector<int> Balance(const Load& load, const std::vector<int>& cuts,
                         const std::vector<int64_t>& node_costs, const Machines& machines) {
  return Balancer(load, cuts, node_costs, machines).Run();
}

}  // namespace echelon::plan
