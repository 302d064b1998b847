#include "dynlib/cluster/router_sessions.h"

#include <algorithm>
#include <string>

#include "dynlib/base/checksum.h"
#include "dynlib/base/coding.h"

namespace dynlib::cluster {

RouterSessions::Ticket RouterSessions::Begin(Instant now) {
  // One that has no write under way and can take no more has done its work.
  std::erase_if(sessions_, [&](const std::shared_ptr<Session>& session) {
    return session->in_flight == 0 && !(session->HasRoom() && IsFresh(*session, now));
  });
  auto found = std::find_if(sessions_.begin(), sessions_.end(),
                            [&](const std::shared_ptr<Session>& session) {
                              return session->HasRoom() && IsFresh(*session, now);
                            });
  if (found == sessions_.end()) {
    auto session = std::make_shared<Session>();
    session->client = NextClient();
    found = sessions_.insert(sessions_.end(), std::move(session));
  }
  Ticket ticket;
  ticket.session_ = *found;
  ticket.sequence_ = ++ticket.session_->last;
  ticket.session_->unanswered.insert(ticket.sequence_);
  ticket.session_->in_flight++;
  ticket.session_->used = now;
  return ticket;
}

void RouterSessions::Answered(const Ticket& ticket) {
  ticket.session_->unanswered.erase(ticket.sequence_);
  ticket.session_->in_flight--;
}

void RouterSessions::Abandoned(const Ticket& ticket) { ticket.session_->in_flight--; }

// 64 bits of hash: two live sessions of a partition share one with a chance of n^2 / 2^65.
ClientId RouterSessions::NextClient() {
  std::string seed;
  PutFixed64(seed, ToUint(router_));
  PutFixed64(seed, ToUint(partition_));
  PutFixed64(seed, ++begun_);
  return ClientId{std::max<uint64_t>(Checksum(seed), 1)};
}

}  // namespace dynlib::cluster
