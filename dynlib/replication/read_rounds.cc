#include "dynlib/replication/read_rounds.h"

#include <algorithm>

namespace dynlib::replication {

uint64_t ReadRounds::Join() {
  joined_ = begun_ + 1;
  return joined_;
}

uint64_t ReadRounds::Due(Instant now) {
  const bool in_flight = begun_ > confirmed_;
  const bool given_up = in_flight && resend_at_ == Instant::Infinite();
  if (joined_ > begun_ && (!in_flight || given_up)) {
    ++begun_;
    resends_ = 0;
  } else if (in_flight && now >= resend_at_) {
    ++resends_;
  } else {
    return 0;
  }
  resend_at_ = resends_ < kResends ? now + resend_ : Instant::Infinite();
  return begun_;
}

void ReadRounds::Answer(ReplicaId member, uint64_t round) {
  // What was not asked cannot be answered.
  if (round > begun_) return;
  uint64_t& answered = answered_[member];
  answered = std::max(answered, round);
}

bool ReadRounds::Answered(ReplicaId member) const {
  const auto it = answered_.find(member);
  return it != answered_.end() && it->second >= begun_;
}

void ReadRounds::Count(std::span<const ReplicaId> others, size_t quorum) {
  const auto answers = std::count_if(others.begin(), others.end(),
                                     [this](ReplicaId member) { return Answered(member); });
  if (static_cast<size_t>(answers) + 1 < quorum) return;
  confirmed_ = begun_;
  resend_at_ = Instant::Infinite();
}

}  // namespace dynlib::replication
