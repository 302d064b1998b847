// How a leader shows, without any clock, that it still led when a read arrived: the ReadIndex of
// Ongaro's dissertation (section 6.4), on rounds that many reads share.
//
//   const uint64_t round = rounds.Join(now);           // when the read arrives
//   if (uint64_t due = rounds.Due(now)) ask every member "is this ballot still your highest?", due
//   rounds.Answer(member, round_that_it_echoes);       // it is
//   rounds.Count(voters, quorum);
//   if (rounds.Confirmed(round)) ...                  // the read may go on, at the leader's
//                                                      // read point of now
//
// Why it suffices: of those that confirmed a round one is in the quorum of any higher ballot, and
// promised that ballot after it answered, so after the read arrived. What another leader chose, it
// chose later than that. Nothing here depends on how fast clocks run.
//
// One round is in flight at a time; reads that arrive meanwhile share the next one. So a read waits
// for at most two round trips, and any number of reads costs one message a member a round trip.
//
// Threads: one executor's.
#ifndef DYNLIB_REPLICATION_READ_ROUNDS_H_
#define DYNLIB_REPLICATION_READ_ROUNDS_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>

#include "dynlib/base/ids.h"
#include "dynlib/base/time.h"

namespace dynlib::replication {

class ReadRounds {
 public:
  // `resend`: how long a round waits for answers before the others are asked again.
  // `after`: rounds count up from here. Above those of earlier objects for the same ballot, whose
  // answers may still be under way.
  explicit ReadRounds(Duration resend, uint64_t after = 0)
      : resend_(resend), after_(after), joined_(after), begun_(after), confirmed_(after) {}

  // The round that will speak for a read that arrives now: the next to begin.
  uint64_t Join();
  // The round to ask for now: one that begins, if somebody joined it and none is in flight, or the
  // one in flight if its answers are overdue; 0 for none. After kResends repetitions in vain nobody
  // is asked until somebody joins again.
  uint64_t Due(Instant now);
  // When Due wants to be called.
  Instant next_deadline() const { return resend_at_; }

  // A member confirms the round, and with it all before.
  void Answer(ReplicaId member, uint64_t round);
  bool Answered(ReplicaId member) const;
  // With the leader itself, `others` are the members.
  void Count(std::span<const ReplicaId> others, size_t quorum);
  uint64_t confirmed() const { return confirmed_; }
  bool Confirmed(uint64_t round) const { return round > after_ && round <= confirmed_; }

 private:
  static constexpr int kResends = 5;

  const Duration resend_;
  const uint64_t after_;
  uint64_t joined_;     // The newest round that a read waits for.
  uint64_t begun_;      // The newest that members were asked for.
  uint64_t confirmed_;  // By a quorum.
  Instant resend_at_ = Instant::Infinite();
  int resends_ = 0;
  std::map<ReplicaId, uint64_t> answered_;
};

}  // namespace dynlib::replication

#endif  // DYNLIB_REPLICATION_READ_ROUNDS_H_
