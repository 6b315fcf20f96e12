#include "operator/kube/lease_state.h"

#include <algorithm>

namespace echelon::op {

bool LeaseState::MayTake(absl::Time now) const {
  if (!read_ || read_->holder.empty() || read_->holder == identity_) return true;
  return now - seen_at_ >= read_->duration;
}

LeaseState::Write LeaseState::Claim(absl::Time now, absl::Time wall) {
  wanted_ = read_.value_or(LeaseSpec());
  const bool mine = wanted_.holder == identity_;
  // A clock set back must not make a renewal look like none.
  wanted_.renewed = read_ ? std::max(wall, wanted_.renewed + absl::Microseconds(1)) : wall;
  if (!mine) {
    wanted_.acquired = wanted_.renewed;
    wanted_.transitions += read_ ? 1 : 0;
  }
  wanted_.holder = identity_;
  wanted_.duration = times_.duration;
  asked_at_ = now;
  in_flight_ = true;
  return {wanted_, !read_};
}

LeaseState::Action LeaseState::Tick(absl::Time now, absl::Time wall) {
  if (now >= deadline_) deadline_ = absl::InfinitePast();
  if (in_flight_ || now < next_at_) return {};
  if (stopping_) {
    if (!to_release_) return {};
    if (known_ && (!read_ || read_->holder != identity_)) {  // not ours to empty
      to_release_ = false;
      return {};
    }
    asked_at_ = now;
    in_flight_ = true;
    if (!known_) return Read();
    wanted_ = *read_;
    wanted_.holder.clear();
    wanted_.renewed = std::max(wall, wanted_.renewed + absl::Microseconds(1));
    return Write{wanted_, false};
  }
  if (known_ && MayTake(now)) return Claim(now, wall);
  asked_at_ = now;
  in_flight_ = true;
  return Read();
}

absl::Time LeaseState::wake_at() const {
  absl::Time at = absl::InfiniteFuture();
  if (!in_flight_ && (!stopping_ || to_release_)) at = next_at_;
  if (deadline_ != absl::InfinitePast()) at = std::min(at, deadline_);
  return at;
}

void LeaseState::OnRead(const std::optional<LeaseSpec>& spec, absl::Time now) {
  in_flight_ = false;
  read_ = spec;
  known_ = true;
  next_at_ = now;
  if (spec && spec->holder == identity_) return;
  deadline_ = absl::InfinitePast();  // somebody else's, or nobody's, or deleted
  if (!spec) return;
  if (seen_at_ == absl::InfinitePast() || *spec != seen_) {
    seen_ = *spec;
    seen_at_ = now;
  }
  if (MayTake(now)) return;
  known_ = false;  // by then it will have been renewed
  next_at_ = std::min(now + times_.poll(), seen_at_ + spec->duration);
}

void LeaseState::OnWritten(absl::Time now) {
  in_flight_ = false;
  read_ = wanted_;
  known_ = true;
  if (wanted_.holder != identity_) {
    to_release_ = false;
    return;
  }
  seen_ = wanted_;
  next_at_ = asked_at_ + times_.renew();
  if (stopping_) {
    next_at_ = now;  // and is emptied at once
    return;
  }
  deadline_ = asked_at_ + times_.duration - times_.margin();
  if (now >= deadline_) deadline_ = absl::InfinitePast();  // the answer came too late to be of use
}

void LeaseState::OnConflict(absl::Time now) {
  in_flight_ = false;
  known_ = false;
  next_at_ = now;
}

void LeaseState::OnFailed(absl::Time now, absl::Duration retry_after) {
  in_flight_ = false;
  known_ = false;  // a write without an answer may have been carried out
  next_at_ = now + std::max(retry_after, times_.retry());
}

void LeaseState::Release(absl::Time now) {
  if (stopping_) return;
  stopping_ = true;
  // It may hold the Lease if it leads, or if a claim is on its way.
  to_release_ =
      in_flight_ || deadline_ != absl::InfinitePast() || (read_ && read_->holder == identity_);
  deadline_ = absl::InfinitePast();
  next_at_ = now;
}

}  // namespace echelon::op
