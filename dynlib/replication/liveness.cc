#include "dynlib/replication/liveness.h"

#include <algorithm>
#include <utility>

#include "dynlib/base/check.h"
#include "dynlib/base/strings.h"

namespace dynlib::replication {
namespace {

constexpr Duration kSupportMax = std::chrono::minutes(1);

Duration Stretch(Duration d, int64_t ppm) { return d + d * ppm / 1'000'000; }

}  // namespace

absl::Status Validate(const LivenessOptions& options) {
  if (options.support < std::chrono::milliseconds(3) || options.support > kSupportMax) {
    return absl::InvalidArgumentError(Cat("liveness.support is ", ToMicros(options.support),
                                          " us; allowed: 3,000 to 60,000,000"));
  }
  if (options.interval <= Duration(0) || options.interval > options.support / 3) {
    return absl::InvalidArgumentError(Cat("liveness.interval is ", ToMicros(options.interval),
                                          " us; allowed: 1 to a third of support (",
                                          ToMicros(options.support / 3), ")"));
  }
  if (options.reads_version < 1)
    return absl::InvalidArgumentError("reads_version is 0; allowed: at least 1");
  if (options.drift_ppm < 0 || options.drift_ppm > 200'000) {
    return absl::InvalidArgumentError(
        Cat("liveness.drift_ppm is ", options.drift_ppm, "; allowed: 0 to 200,000"));
  }
  return absl::OkStatus();
}

Liveness::Liveness(LivenessOptions options, uint64_t incarnation, Duration boot_wait, Instant now)
    : options_(options),
      incarnation_(incarnation),
      boot_wait_end_(options.faults.lease_forgotten_at_restart
                         ? now
                         : now + Stretch(boot_wait, options.drift_ppm)),
      next_request_(now) {
  DYNLIB_CHECK(Validate(options).ok());
  DYNLIB_CHECK(incarnation > 0 && incarnation < (uint64_t{1} << kCounterBits));
}

void Liveness::AddPeer(NodeId id, Instant now) {
  auto [it, added] = peers_.try_emplace(id);
  it->second.active = true;
  if (added) next_request_ = std::min(next_request_, now);
}

void Liveness::RemovePeer(NodeId id) {
  if (auto it = peers_.find(id); it != peers_.end()) it->second.active = false;
}

void Liveness::Step(NodeId from, const LivenessMessage& message, Instant now) {
  auto it = peers_.find(from);
  if (it == peers_.end()) return;
  Peer& peer = it->second;
  if (const auto* request = std::get_if<SupportRequest>(&message.body)) {
    OnRequest(from, peer, *request, now);
  } else {
    OnGrant(from, peer, std::get<SupportGrant>(message.body), now);
  }
}

void Liveness::OnRequest(NodeId from, Peer& peer, const SupportRequest& request, Instant now) {
  if (request.incarnation < peer.incarnation) return;  // From a boot that is over.
  Lapse(from, peer, now);
  peer.heard_at = now;
  peer.ever_heard = true;
  if (request.incarnation > peer.incarnation) {
    // The process that held the old grant is gone, and its leaderships with it.
    const bool restarted = peer.incarnation != 0;
    peer.incarnation = request.incarnation;
    if (restarted) {
      End(peer);
      effects_.events.push_back({Event::Kind::kPeerRestarted, from});
    }
  }
  SupportGrant grant{.incarnation = incarnation_,
                     .holder_incarnation = request.incarnation,
                     .request_sent_at = request.sent_at,
                     .granted_at = now.nanos(),
                     .reads_version = options_.reads_version};
  // A peer that does not hear this node cannot commit through it, however loudly it breathes (R8).
  const bool hears_us = request.heard_incarnation == incarnation_ && request.heard_age_us >= 0 &&
                        request.heard_age_us <= ToMicros(options_.support);
  if (hears_us && BootWaitOver(now)) {
    if (!peer.supported) effects_.events.push_back({Event::Kind::kPeerHeard, from});
    peer.supported = true;
    const Duration owed = options_.faults.clock_drift_ignored
                              ? options_.support
                              : Stretch(options_.support, options_.drift_ppm);
    peer.support_end = std::max(peer.support_end, now + owed);
    grant.epoch = MakeEpoch(peer);
    grant.duration = options_.support;
  }
  effects_.messages.emplace_back(from, LivenessMessage{grant});
}

void Liveness::OnGrant(NodeId from, Peer& peer, const SupportGrant& grant, Instant now) {
  if (grant.holder_incarnation != incarnation_) return;  // Meant for an earlier boot of this node.
  if (grant.incarnation < peer.granting_incarnation) return;
  const Instant sent = Instant::FromNanos(grant.request_sent_at);
  // No node grants for longer than options allow: such a claim is an error, and no promise.
  const bool sound = sent >= Instant() && sent <= now && grant.duration >= Duration(0) &&
                     grant.duration <= kSupportMax;
  if (!sound) return;
  if (grant.incarnation > peer.granting_incarnation) peer.clock.Reset();
  peer.granting_incarnation = grant.incarnation;
  CompareClocks(from, peer, grant, now);
  // How long ago the peer was heard counts from the request, the last time it is sure to have lived
  // after.
  peer.granted_at = std::max(peer.granted_at, sent);
  peer.reads_version = std::max<uint64_t>(1, grant.reads_version);
  peer.ever_granted = true;
  peer.heard_at = std::max(peer.heard_at, sent);
  peer.ever_heard = true;
  if (grant.epoch == 0) return;
  const Duration worth = options_.faults.clock_drift_ignored
                             ? grant.duration
                             : grant.duration - grant.duration * options_.drift_ppm / 1'000'000;
  if (grant.epoch > peer.held_epoch) {
    peer.held_epoch = grant.epoch;
    peer.held_until = sent + worth;
    effects_.events.push_back({Event::Kind::kPeerSupports, from});
  } else if (grant.epoch == peer.held_epoch) {
    peer.held_until = std::max(peer.held_until, sent + worth);
  }
}

void Liveness::CompareClocks(NodeId from, Peer& peer, const SupportGrant& grant, Instant now) {
  peer.clock_trusted = !options_.compare_clocks || grant.granted_at == 0;
  if (peer.clock_trusted) return;
  peer.clock.Note(Instant::FromNanos(grant.request_sent_at), grant.granted_at, now);
  const bool fast = peer.clock.Beyond(options_.drift_ppm);
  if (fast && !peer.clock_fast) effects_.fast_clocks.push_back(from);
  peer.clock_fast = fast;
  peer.clock_trusted = peer.clock.Trusted(options_.drift_ppm, 2 * options_.support);
}

void Liveness::Tick(Instant now) {
  for (auto& [id, peer] : peers_) Lapse(id, peer, now);
  if (now < next_request_) return;
  next_request_ = now + options_.interval;
  if (!log_healthy_) return;
  for (auto& [id, peer] : peers_) {
    if (!peer.active) continue;
    SupportRequest request{.incarnation = incarnation_, .sent_at = now.nanos()};
    if (peer.ever_granted) {
      request.heard_incarnation = peer.granting_incarnation;
      request.heard_age_us = ToMicros(now - peer.granted_at);
    }
    effects_.messages.emplace_back(id, LivenessMessage{request});
  }
}

void Liveness::Lapse(NodeId id, Peer& peer, Instant now) {
  if (!peer.supported || now < peer.support_end) return;
  End(peer);
  effects_.events.push_back({Event::Kind::kPeerLost, id});
}

void Liveness::End(Peer& peer) {
  peer.supported = false;
  peer.support_end = Instant();
  if (!options_.faults.epoch_reused) ++peer.epoch_counter;
  DYNLIB_CHECK(peer.epoch_counter < (uint64_t{1} << kCounterBits));
}

Liveness::Effects Liveness::TakeEffects() { return std::exchange(effects_, {}); }

bool Liveness::Supports(NodeId id, Instant now) const {
  return SupportRemaining(id, now) > Duration(0);
}

Duration Liveness::SupportRemaining(NodeId id, Instant now) const {
  Duration remaining = std::max(Duration(0), boot_wait_end_ - now);
  auto it = peers_.find(id);
  if (it != peers_.end() && it->second.supported) {
    remaining = std::max(remaining, it->second.support_end - now);
  }
  return remaining;
}

bool Liveness::EndSupport(NodeId id, Instant now) {
  if (options_.faults.no_wait_for_lease) return true;
  if (!BootWaitOver(now)) return false;
  auto it = peers_.find(id);
  if (it == peers_.end()) return true;
  Lapse(id, it->second, now);
  if (it->second.supported) return false;
  // Even if none was owed: an epoch named in an answer must not come to life once a higher ballot
  // is promised.
  End(it->second);
  return true;
}

uint64_t Liveness::EpochFor(NodeId id) const {
  auto it = peers_.find(id);
  return it == peers_.end() ? 0 : MakeEpoch(it->second);
}

Instant Liveness::SupportedUntil(NodeId grantor, uint64_t epoch) const {
  auto it = peers_.find(grantor);
  if (it == peers_.end() || !it->second.clock_trusted) return Instant();
  return SupportedByAnyClockUntil(grantor, epoch);
}

Instant Liveness::SupportedByAnyClockUntil(NodeId grantor, uint64_t epoch) const {
  auto it = peers_.find(grantor);
  if (it == peers_.end() || epoch == 0 || it->second.held_epoch != epoch) return Instant();
  return it->second.held_until;
}

bool Liveness::SupportedBy(NodeId grantor, Instant now) const {
  auto it = peers_.find(grantor);
  return it != peers_.end() && it->second.held_until > now;
}

std::vector<Liveness::PeerStatus> Liveness::Peers(Instant now) const {
  std::vector<PeerStatus> all;
  for (const auto& [id, peer] : peers_) {
    if (!peer.active) continue;
    all.push_back({.node = id,
                   .incarnation = peer.incarnation,
                   .heard = Hears(id, now),
                   .supported_for =
                       peer.supported ? std::max(Duration(0), peer.support_end - now) : Duration(0),
                   .supports_us_for = std::max(Duration(0), peer.held_until - now),
                   .clock_trusted = peer.clock_trusted,
                   .reads_version = peer.reads_version});
  }
  return all;
}

uint64_t Liveness::ReadsVersion(NodeId id, Instant now) const {
  auto it = peers_.find(id);
  const bool lately = it != peers_.end() && it->second.ever_granted &&
                      now - it->second.granted_at <= options_.support;
  return lately ? it->second.reads_version : 0;
}

uint64_t Liveness::IncarnationOf(NodeId id) const {
  auto it = peers_.find(id);
  return it == peers_.end() ? 0 : it->second.incarnation;
}

bool Liveness::Hears(NodeId id, Instant now) const {
  auto it = peers_.find(id);
  return it != peers_.end() && it->second.ever_heard &&
         now - it->second.heard_at <= options_.support;
}

}  // namespace dynlib::replication
