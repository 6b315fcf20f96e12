#include "operator/controller/queue.h"

#include <algorithm>

namespace echelon::op {

void Queue::Schedule(const std::string& key, Item& item, absl::Time when) {
  if (when >= item.when) return;
  if (!item.working) {
    due_.erase({item.when, key});
    due_.emplace(when, key);
  }
  item.when = when;
}

void Queue::Add(std::string_view key, absl::Time when) {
  const auto [at, is_new] = items_.try_emplace(std::string(key));
  Schedule(at->first, at->second, when);
}

void Queue::Retry(std::string_view key, absl::Time now) {
  const auto [at, is_new] = items_.try_emplace(std::string(key));
  Item& item = at->second;
  const int doublings = std::min(item.errors++, 30);
  const absl::Duration backoff =
      std::min(options_.first_backoff * (int64_t{1} << doublings), options_.max_backoff);
  item.held_until = now + backoff * std::uniform_real_distribution<double>(0.5, 1)(random_);
  Schedule(at->first, item, item.held_until);
}

void Queue::Forget(std::string_view key) {
  const auto at = items_.find(std::string(key));
  if (at == items_.end()) return;
  at->second.errors = 0;
  at->second.held_until = absl::InfinitePast();
}

absl::Time Queue::held_until(std::string_view key) const {
  const auto at = items_.find(std::string(key));
  return at == items_.end() ? absl::InfinitePast() : at->second.held_until;
}

void Queue::Remove(std::string_view key) {
  const auto at = items_.find(std::string(key));
  if (at == items_.end()) return;
  if (at->second.working) --working_;
  due_.erase({at->second.when, at->first});
  items_.erase(at);
}

std::optional<std::string> Queue::Take(absl::Time now) {
  if (due_.empty() || due_.begin()->first > now) return std::nullopt;
  const std::string key = due_.begin()->second;
  due_.erase(due_.begin());
  Item& item = items_.at(key);
  item.when = absl::InfiniteFuture();
  item.working = true;
  ++working_;
  return key;
}

void Queue::Done(std::string_view key) {
  const auto at = items_.find(std::string(key));
  if (at == items_.end() || !at->second.working) return;
  at->second.working = false;
  --working_;
  if (at->second.when != absl::InfiniteFuture()) due_.emplace(at->second.when, at->first);
}

absl::Time Queue::next() const {
  return due_.empty() ? absl::InfiniteFuture() : due_.begin()->first;
}

}  // namespace echelon::op
