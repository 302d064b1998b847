// A router's sessions with one partition: which (client, sequence) a write gets, and up to where
// the router has its answers (rule R10).
//
//   RouterSessions::Ticket ticket = sessions.Begin(now);
//   ... send it, again and again, each time with ticket.acknowledged() ...
//   sessions.Answered(ticket);     // or Abandoned(ticket): nobody will ever know
//
// The mark never passes a sequence without an answer, so a replica keeps, or has yet to make, the
// result of every write that may still be under way somewhere; and it refuses late copies of those
// at or below the mark. A session whose last sequence is kSpanMax above its mark takes no more, and
// another begins under another ClientId: the replica's bound on results that were not acknowledged
// is never met, neither behind a write that timed out nor behind a slow one. A session that was
// not used for kIdleMax takes no more either: replicas forget sessions some time after.
//
// Pure. Threads: one executor's.
#ifndef DYNLIB_CLUSTER_ROUTER_SESSIONS_H_
#define DYNLIB_CLUSTER_ROUTER_SESSIONS_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <set>
#include <vector>

#include "dynlib/base/ids.h"
#include "dynlib/base/time.h"

namespace dynlib::cluster {

class RouterSessions {
 public:
  static constexpr uint64_t kSpanMax = 2048;
  static constexpr Duration kIdleMax = std::chrono::minutes(15);

 private:
  struct Session {
    ClientId client{};
    uint64_t last = 0;              // sequence given out
    std::set<uint64_t> unanswered;  // the abandoned ones for ever
    size_t in_flight = 0;
    Instant used;

    uint64_t acknowledged() const { return unanswered.empty() ? last : *unanswered.begin() - 1; }
    bool HasRoom() const { return last - acknowledged() < kSpanMax; }
  };

 public:
  class Ticket {
   public:
    Ticket() = default;
    bool valid() const { return session_ != nullptr; }
    ClientId client() const { return session_->client; }
    uint64_t sequence() const { return sequence_; }
    // As of now: below sequence() until that is answered.
    uint64_t acknowledged() const { return session_->acknowledged(); }

   private:
    friend class RouterSessions;
    std::shared_ptr<Session> session_;
    uint64_t sequence_ = 0;
  };

  // `begun`: at least as many sessions as the router may have begun with this partition before, in
  // objects that are gone: none of their ids is used again.
  RouterSessions(ClientId router, PartitionId partition, uint64_t begun = 0)
      : router_(router), partition_(partition), begun_(begun) {}

  Ticket Begin(Instant now);
  // Each ticket once.
  static void Answered(const Ticket& ticket);
  static void Abandoned(const Ticket& ticket);

  uint64_t sessions_begun() const { return begun_; }
  size_t sessions_kept() const { return sessions_.size(); }

 private:
  bool IsFresh(const Session& session, Instant now) const { return now - session.used < kIdleMax; }
  ClientId NextClient();

  const ClientId router_;
  const PartitionId partition_;
  uint64_t begun_;
  std::vector<std::shared_ptr<Session>> sessions_;  // the oldest first
};

}  // namespace dynlib::cluster

#endif  // DYNLIB_CLUSTER_ROUTER_SESSIONS_H_
