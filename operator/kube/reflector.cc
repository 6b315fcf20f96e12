#include "operator/kube/reflector.h"

#include <mutex>
#include <random>
#include <unordered_map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "operator/kube/list_page.h"
#include "operator/kube/reflector_state.h"

namespace echelon::op {

using nlohmann::json;

// Held by whatever is under way, so that late answers find it, stopped or not.
class Reflector::Loop : public std::enable_shared_from_this<Loop> {
 public:
  Loop(Api* api, Timer* timer, const Resource& resource, Options options, Callbacks callbacks)
      : api_(api),
        timer_(timer),
        resource_(resource),
        options_(std::move(options)),
        callbacks_(std::move(callbacks)),
        random_(options_.seed) {}

  void Start() {
    const std::lock_guard lock(mutex_);
    Handle(Started());
  }

  void Stop() {
    const std::lock_guard lock(mutex_);
    stopped_ = true;
    ++attempt_;
    stream_.reset();
    callbacks_ = {};  // whatever they hold need not wait for the last answer
  }

  Stats stats() const {
    const std::lock_guard lock(mutex_);
    return {state_.lists, state_.watches, state_.failures, synced_};
  }

 private:
  struct Known {
    std::string version;
    int64_t list = 0;  // the last one that had it
  };

  // All of these: locked.
  void Handle(const ReflectorEvent& event) {
    const ReflectorAction action = Next(state_, event, Random());
    if (std::holds_alternative<Nothing>(action)) return;
    ++attempt_;  // what is still under way is of the past
    stream_.reset();
    if (const auto* list = std::get_if<ListPage>(&action)) return List(list->token);
    if (const auto* watch = std::get_if<OpenWatch>(&action)) return Watch(watch->version);
    timer_->After(std::get<Wait>(action).delay, [self = shared_from_this(), attempt = attempt_] {
      self->IfCurrent(attempt, [&] { self->Handle(Waited()); });
    });
  }

  template <typename Task>
  void IfCurrent(uint64_t attempt, Task task) {
    const std::lock_guard lock(mutex_);
    if (!stopped_ && attempt == attempt_) task();
  }

  void List(const std::string& token) {
    Request request;
    request.path = ListPath(resource_, options_.of, options_.page, token);
    request.timeout = options_.list_timeout;
    api_->Call(std::move(request),
               [self = shared_from_this(), attempt = attempt_](absl::StatusOr<Response> response) {
                 self->IfCurrent(attempt, [&] { self->Listed(std::move(response)); });
               });
  }

  void Listed(absl::StatusOr<Response> response) {
    const absl::Status status = response.ok() ? ToStatus(*response) : response.status();
    if (!status.ok()) return Failed(ListFailed{status}, "list", status);
    const auto end = ReadPage(response->body, options_.without,
                              [this](json item) { Seen(std::move(item), true); });
    response->body = {};  // before the next page comes
    if (!end.ok()) return Failed(ListFailed{end.status()}, "list", end.status());
    if (end->token.empty()) FinishList();
    Handle(PageCame{end->version, end->token});
  }

  // What the list did not have is gone.
  void FinishList() {
    for (auto it = known_.begin(); it != known_.end();) {
      if (it->second.list == state_.lists) {
        ++it;
        continue;
      }
      callbacks_.remove(it->first);
      it = known_.erase(it);
    }
    if (!std::exchange(synced_, true) && callbacks_.synced) callbacks_.synced();
  }

  void Seen(json object, bool listed) {
    const std::string key = KeyOf(object);
    if (key.empty()) return;
    Known& known = known_[key];
    known.list = state_.lists;
    const std::string version = MetaText(object, "resourceVersion");
    // A new list mostly tells what is known already.
    if (listed && !version.empty() && known.version == version) return;
    known.version = version;
    callbacks_.upsert(key, std::move(object));
  }

  void Watch(const std::string& version) {
    opened_ = timer_->Now();
    lines_ = 0;
    auto self = shared_from_this();
    stream_ = api_->Watch(
        WatchPath(resource_, options_.of, version, options_.watch_lifetime),
        [self, attempt = attempt_](std::string_view line) {
          self->IfCurrent(attempt, [&] { self->HandleLine(line); });
        },
        [self, attempt = attempt_](absl::Status why) {
          self->IfCurrent(attempt, [&] { self->Ended(why); });
        });
  }

  void HandleLine(std::string_view text) {
    auto line = ReadWatchLine(text, options_.without);
    if (!line.ok()) return Failed(WatchFailed{line.status()}, "watch", line.status());
    if (line->type == "ERROR") {
      const auto code = line->object.find("code");
      const bool known = code != line->object.end() && code->is_number_integer();
      const absl::Status why =
          ToStatus({.code = known ? code->get<int>() : 500, .body = line->object.dump()});
      return Failed(WatchFailed{why}, "watch", why);
    }
    ++lines_;
    const std::string version = MetaText(line->object, "resourceVersion");
    if (line->type == "DELETED") {
      const std::string key = KeyOf(line->object);
      if (known_.erase(key) > 0) callbacks_.remove(key);
    } else if (line->type != "BOOKMARK") {
      Seen(std::move(line->object), false);
    }
    Handle(Advanced{version});
  }

  void Ended(const absl::Status& why) {
    const absl::Duration lasted = lines_ > 0 ? absl::InfiniteDuration() : timer_->Now() - opened_;
    if (why.ok()) return Handle(WatchEnded{why, lasted});
    Failed(WatchEnded{why, lasted}, "watch", why);
  }

  void Failed(const ReflectorEvent& event, const char* what, const absl::Status& why) {
    if (callbacks_.error) {
      callbacks_.error(
          absl::Status(why.code(), absl::StrCat(what, " of ", std::string(resource_.plural), ": ",
                                                std::string(why.message()))));
    }
    Handle(event);
  }

  double Random() { return std::uniform_real_distribution<double>(0, 1)(random_); }

  Api* const api_;
  Timer* const timer_;
  const Resource resource_;
  const Options options_;

  mutable std::mutex mutex_;
  Callbacks callbacks_;
  ReflectorState state_;
  std::unordered_map<std::string, Known> known_;
  std::unique_ptr<WatchStream> stream_;
  std::mt19937_64 random_;
  absl::Time opened_;     // the watch
  int64_t lines_ = 0;     // of it
  uint64_t attempt_ = 0;  // at the list, watch or wait under way
  bool synced_ = false, stopped_ = false;
};

Reflector::Reflector(Api* api, Timer* timer, const Resource& resource, Options options,
                     Callbacks callbacks)
    : loop_(
          std::make_shared<Loop>(api, timer, resource, std::move(options), std::move(callbacks))) {}

Reflector::~Reflector() { Stop(); }

void Reflector::Start() { loop_->Start(); }

void Reflector::Stop() { loop_->Stop(); }

Reflector::Stats Reflector::stats() const { return loop_->stats(); }

}  // namespace echelon::op
