#include "dynlib/admission/gac_client.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cmath>
#include <limits>
#include <utility>

#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"

namespace dynlib::admission {
namespace {

constexpr uint64_t kEmpty = 0;
constexpr uint64_t kRemoved = std::numeric_limits<uint64_t>::max();
constexpr int64_t kNoGrant = std::numeric_limits<int64_t>::max();
constexpr size_t kInFlightMax = 16;  // reports a server; more than that count as failed
// When nothing is asked any more: one report to tell so, one to tell that the smaller grant was
// taken, and one more in case of loss.
constexpr int kIdleReports = 3;
// Of its share, what a limit must be asked for to count as running low.
constexpr double kBusy = 0.8;
constexpr Duration kValidForMax = std::chrono::hours(1);

double Seconds(Duration duration) { return static_cast<double>(duration.count()) / 1e9; }

absl::Status CheckRange(const char* field, double value, double low, double high) {
  if (value >= low && value <= high) return absl::OkStatus();
  return absl::InvalidArgumentError(Cat(field, " is ", value, "; allowed are ", low, " to ", high));
}

absl::Status Validate(const GacClient::Options& options) {
  if (ToUint(options.client) == 0) {
    return absl::InvalidArgumentError("client is 0; it must be at least 1");
  }
  const double report_after = Seconds(options.report_after);
  DYNLIB_RETURN_IF_ERROR(CheckRange("saved_seconds", options.saved_seconds, 0.01, 10));
  DYNLIB_RETURN_IF_ERROR(
      CheckRange("request_units_max", static_cast<double>(options.request_units_max), 1, 1e9));
  DYNLIB_RETURN_IF_ERROR(CheckRange("report_after (s)", report_after, 0.01, 60));
  DYNLIB_RETURN_IF_ERROR(
      CheckRange("report_min (s)", Seconds(options.report_min), 0.001, report_after));
  DYNLIB_RETURN_IF_ERROR(
      CheckRange("reply_timeout (s)", Seconds(options.reply_timeout), 1e-9, 3600));
  DYNLIB_RETURN_IF_ERROR(CheckRange("failures_to_move", options.failures_to_move, 1, 1000));
  DYNLIB_RETURN_IF_ERROR(CheckRange("avoid_for (s)", Seconds(options.avoid_for), 1e-9, 3600));
  return CheckRange("limits_max", static_cast<double>(options.limits_max), 1, 1e6);
}

absl::Status Validate(const GacClient::Limit& limit) {
  DYNLIB_RETURN_IF_ERROR(CheckRange("safe_units_per_second", limit.safe_units_per_second,
                                    BucketRate::kUnitsPerSecondMin,
                                    BucketRate::kUnitsPerSecondMax));
  if (!limit.limit.has_value()) return absl::OkStatus();
  return CheckRange("units_per_second", limit.limit->units_per_second,
                    BucketRate::kUnitsPerSecondMin, BucketRate::kUnitsPerSecondMax);
}

// Each holds ahead at most what its limit makes in an eighth of a millisecond, so that all of them
// together hold a millisecond of it.
constexpr size_t kStripes = 8;
constexpr double kAheadSeconds = 0.001 / kStripes;

// Threads that run at once come to different stripes as long as there are no more of them. Which
// one it is makes no difference to what is admitted.
std::atomic<size_t> threads_seen{0};
thread_local constinit size_t this_thread = 0;  // counted from 1
size_t ThisThreadsStripe() {
  if (this_thread == 0) [[unlikely]]
    this_thread = 1 + threads_seen.fetch_add(1, std::memory_order_relaxed);
  return this_thread % kStripes;
}

// Fibonacci hashing: table numbers are dense.
uint64_t HashOf(uint64_t id) { return (id * 0x9e3779b97f4a7c15u) >> 32; }

}  // namespace

struct GacClient::Entry {
  explicit Entry(const BucketRate& rate, Instant now)
      : bucket(rate, TokenBucket::Fill::kFull, now) {}

  TokenBucket bucket;
  std::atomic<bool> unlimited{false};
  std::atomic<double> safe{1};
  // When the grant in use ends; kNoGrant while the safe rate applies.
  std::atomic<int64_t> ends_ns{kNoGrant};
  // Units that one stripe of threads may hold ahead, and whether any may hold some.
  std::atomic<int64_t> ahead_max{0};
  std::atomic<bool> some_ahead{false};
  // Units since the last report: taken from the bucket, and refused.
  alignas(64) std::atomic<int64_t> taken{0};
  std::atomic<int64_t> refused{0};

  // Units taken from the bucket and not asked for yet. A thread that finds enough here touches no
  // cache line that another one writes: two threads on one limit 4 ns each instead of 72.
  struct alignas(64) Stripe {
    std::atomic<int64_t> ahead{0};
  };
  std::array<Stripe, kStripes> stripes;

  // Guarded by the client's mutex.
  LimitRate limit;
  GacClaim claim;     // valid_for is counted from grant_end
  Instant grant_end;  // Instant(): no grant yet
  bool scarce = false;
  bool changed = false;  // The limit is new to the server: report soon.
  int idle_reports = 0;  // in a row, that nothing was asked
  Instant last_report;

  // Of units taken, those that earlier reports have not counted as admitted.
  int64_t unreported = 0;

  bool Granted(Instant now) const { return now < grant_end; }
  int64_t Ahead() const {
    int64_t units = 0;
    for (const Stripe& stripe : stripes) units += stripe.ahead.load(std::memory_order_relaxed);
    return units;
  }
  int64_t Admitted() const { return unreported + taken.load(std::memory_order_relaxed) - Ahead(); }
  bool Asked() const { return Admitted() > 0 || refused.load(std::memory_order_relaxed) != 0; }

  void SetRate(const BucketRate& rate, Instant now) {
    ahead_max.store(static_cast<int64_t>(rate.units_per_second() * kAheadSeconds),
                    std::memory_order_relaxed);
    TakeBackAhead(now);
    bucket.SetRate(rate, now);
  }

  bool TryTake(int64_t units, Instant now) {
    Stripe& stripe = stripes[ThisThreadsStripe()];
    // Unsigned: fewer than none are refused by the bucket.
    if (static_cast<uint64_t>(units) <=
        static_cast<uint64_t>(stripe.ahead.load(std::memory_order_relaxed))) {
      if (stripe.ahead.fetch_sub(units, std::memory_order_relaxed) >= units) [[likely]]
        return true;
      stripe.ahead.fetch_add(units, std::memory_order_relaxed);  // Another thread was faster.
    }
    return Draw(stripe, units, now);
  }

  bool Draw(Stripe& stripe, int64_t units, Instant now) {
    if (!bucket.TryTake(units, now) && !(TakeBackAhead(now) && bucket.TryTake(units, now))) {
      return false;
    }
    // Of a scarce bucket nothing, so that no thread sits on what another one needs.
    const int64_t most = ahead_max.load(std::memory_order_relaxed);
    int64_t held = stripe.ahead.load(std::memory_order_relaxed);
    int64_t ahead = most - held;
    if (ahead > 0) ahead = std::min(ahead, bucket.Remaining(now) / int64_t{2 * kStripes});
    if (ahead > 0) ahead = bucket.TakeUpTo(ahead, now);
    taken.fetch_add(units + std::max<int64_t>(ahead, 0), std::memory_order_relaxed);
    if (ahead > 0) {
      // Another thread of the stripe may have filled it meanwhile: `most` holds all the same.
      while (held + ahead <= most &&
             !stripe.ahead.compare_exchange_weak(held, held + ahead, std::memory_order_relaxed)) {
      }
      if (held + ahead > most) {
        bucket.GiveBack(ahead, now);
        taken.fetch_sub(ahead, std::memory_order_relaxed);
        return true;
      }
      if (!some_ahead.load(std::memory_order_relaxed)) {
        some_ahead.store(true, std::memory_order_relaxed);
      }
    }
    return true;
  }

  // What is held ahead goes back into the bucket. False: nothing was.
  bool TakeBackAhead(Instant now) {
    if (!some_ahead.load(std::memory_order_relaxed)) return false;
    some_ahead.store(false, std::memory_order_relaxed);
    int64_t units = 0;
    for (Stripe& stripe : stripes) {
      // A thread may be about to undo what it took too much: less than nothing is left as it is.
      int64_t ahead = stripe.ahead.load(std::memory_order_relaxed);
      while (ahead > 0 &&
             !stripe.ahead.compare_exchange_weak(ahead, 0, std::memory_order_relaxed)) {
      }
      units += std::max<int64_t>(ahead, 0);
    }
    if (units == 0) return false;
    bucket.GiveBack(units, now);
    taken.fetch_sub(units, std::memory_order_relaxed);
    return true;
  }
};

absl::StatusOr<std::unique_ptr<GacClient>> GacClient::Create(const Options& options,
                                                             std::span<const NodeId> servers) {
  DYNLIB_RETURN_IF_ERROR(Validate(options));
  return std::unique_ptr<GacClient>(new GacClient(options, servers));
}

GacClient::GacClient(const Options& options, std::span<const NodeId> servers)
    : options_(options),
      slots_(std::bit_ceil(2 * options.limits_max)),
      random_(options.seed ^ ToUint(options.client) * 0x9e3779b97f4a7c15u) {
  SetServers(servers);
}

GacClient::~GacClient() = default;

// ---- The request path ----

GacClient::Entry* GacClient::Find(LimitId limit) const {
  const uint64_t id = ToUint(limit);
  if (id == kEmpty || id == kRemoved) return nullptr;
  const size_t mask = slots_.size() - 1;
  size_t at = HashOf(id) & mask;
  for (size_t i = 0; i < slots_.size(); ++i, at = (at + 1) & mask) {
    const uint64_t found = slots_[at].id.load(std::memory_order_acquire);
    // A slot that is given to another limit right now costs that one a token.
    if (found == id) return slots_[at].entry.load(std::memory_order_acquire);
    if (found == kEmpty) return nullptr;
  }
  return nullptr;
}

GacDecision GacClient::TryAdmit(LimitId limit, int64_t units, Instant now) {
  using Outcome = GacDecision::Outcome;
  Entry* const entry = Find(limit);
  if (entry == nullptr) return {.outcome = Outcome::kUnknown};
  if (entry->unlimited.load(std::memory_order_relaxed)) return {};
  const int64_t ends_ns = entry->ends_ns.load(std::memory_order_acquire);
  if (now.nanos() >= ends_ns) [[unlikely]]
    EndGrant(*entry, ends_ns, now);
  if (entry->TryTake(units, now)) return {};
  entry->refused.fetch_add(units, std::memory_order_relaxed);
  const std::optional<Duration> wait = entry->bucket.RetryAfter(units, now);
  if (!wait.has_value()) return {.outcome = Outcome::kTooLarge};
  return {.outcome = Outcome::kThrottled, .retry_after = *wait};
}

// By whoever sees it first. A new grant that arrives at this moment may be overtaken by the safe
// rate; the next one puts that right.
void GacClient::EndGrant(Entry& entry, int64_t ends_ns, Instant now) {
  if (ends_ns == kNoGrant) return;
  if (!entry.ends_ns.compare_exchange_strong(ends_ns, kNoGrant, std::memory_order_acq_rel)) return;
  entry.SetRate(RateOf(entry.safe.load(std::memory_order_relaxed)), now);
}

void GacClient::GiveBack(LimitId limit, int64_t units, Instant now) {
  Entry* const entry = Find(limit);
  if (entry == nullptr || entry->unlimited.load(std::memory_order_relaxed)) return;
  entry->bucket.GiveBack(units, now);
  entry->taken.fetch_sub(units, std::memory_order_relaxed);
}

void GacClient::TakeMore(LimitId limit, int64_t units, Instant now) {
  Entry* const entry = Find(limit);
  if (entry == nullptr || entry->unlimited.load(std::memory_order_relaxed)) return;
  entry->bucket.TakeAnyway(units, now);
  entry->taken.fetch_add(units, std::memory_order_relaxed);
}

// A small share must not go to waste while its bucket waits, full, for the next request.
BucketRate GacClient::RateOf(double units_per_second) const {
  const double saved = std::ceil(units_per_second * options_.saved_seconds);
  return BucketRate::Clamped(units_per_second,
                             2 * options_.request_units_max + static_cast<int64_t>(saved));
}

// ---- Limits and servers ----

absl::Status GacClient::SetLimit(LimitId id, const Limit& value, Instant now) {
  DYNLIB_RETURN_IF_ERROR(Validate(value));
  if (ToUint(id) == kEmpty || ToUint(id) == kRemoved) {
    return absl::InvalidArgumentError(Cat("limit is ", id, "; allowed are 1 to 2^64 - 2"));
  }
  const std::lock_guard lock(mutex_);
  auto found = entries_.find(id);
  const bool added = found == entries_.end();
  if (added) {
    if (entries_.size() >= options_.limits_max) {
      return absl::ResourceExhaustedError(
          Cat("limits_max (", options_.limits_max, ") limits are known already"));
    }
    std::unique_ptr<Entry> entry;
    if (spare_entries_.empty()) {
      entry = std::make_unique<Entry>(RateOf(value.safe_units_per_second), now);
    } else {
      entry = std::move(spare_entries_.back());
      spare_entries_.pop_back();
    }
    found = entries_.emplace(id, std::move(entry)).first;
  }
  Entry& entry = *found->second;
  const LimitRate rate = value.limit.value_or(LimitRate{});
  if (!added && value.limit.has_value() && rate.version < entry.limit.version) {
    return absl::OkStatus();
  }
  entry.changed = added || entry.limit != rate;
  entry.limit = rate;
  entry.safe.store(value.safe_units_per_second, std::memory_order_relaxed);
  if (entry.ends_ns.load(std::memory_order_acquire) == kNoGrant) {
    entry.SetRate(RateOf(value.safe_units_per_second), now);
  }
  entry.unlimited.store(!value.limit.has_value(), std::memory_order_relaxed);
  if (added) {
    entry.last_report = now;
    Slot* const slot = SlotToFill(id);
    slot->entry.store(&entry, std::memory_order_release);
    slot->id.store(ToUint(id), std::memory_order_release);
  }
  return absl::OkStatus();
}

// There is one: at most half the slots are in use.
GacClient::Slot* GacClient::SlotToFill(LimitId limit) {
  const size_t mask = slots_.size() - 1;
  size_t at = HashOf(ToUint(limit)) & mask;
  for (;; at = (at + 1) & mask) {
    const uint64_t id = slots_[at].id.load(std::memory_order_relaxed);
    if (id == kEmpty || id == kRemoved) return &slots_[at];
  }
}

void GacClient::RemoveLimit(LimitId limit) {
  const std::lock_guard lock(mutex_);
  const auto found = entries_.find(limit);
  if (found == entries_.end()) return;
  const size_t mask = slots_.size() - 1;
  size_t at = HashOf(ToUint(limit)) & mask;
  while (slots_[at].id.load(std::memory_order_relaxed) != ToUint(limit)) at = (at + 1) & mask;
  slots_[at].id.store(kRemoved, std::memory_order_release);
  // Searches must go on past a removed slot, unless none can lie behind it.
  if (slots_[(at + 1) & mask].id.load(std::memory_order_relaxed) == kEmpty) {
    while (slots_[at].id.load(std::memory_order_relaxed) == kRemoved) {
      slots_[at].id.store(kEmpty, std::memory_order_release);
      at = (at + mask) & mask;
    }
  }
  Entry& entry = *found->second;
  entry.ends_ns.store(kNoGrant, std::memory_order_release);
  for (Entry::Stripe& stripe : entry.stripes) stripe.ahead.store(0, std::memory_order_relaxed);
  entry.some_ahead.store(false, std::memory_order_relaxed);
  entry.taken.store(0, std::memory_order_relaxed);
  entry.unreported = 0;
  entry.refused.store(0, std::memory_order_relaxed);
  entry.claim = {};
  entry.grant_end = Instant();
  entry.scarce = false;
  entry.idle_reports = 0;
  spare_entries_.push_back(std::move(found->second));
  entries_.erase(found);
}

void GacClient::SetServers(std::span<const NodeId> servers) {
  const std::lock_guard lock(mutex_);
  ring_ = HashRing(servers);
  std::map<NodeId, Server> kept;
  for (const NodeId server : ring_.servers()) kept[server] = std::move(servers_[server]);
  servers_ = std::move(kept);
}

NodeId GacClient::ServerOf(LimitId limit, Instant now) const {
  const auto usable = [&](NodeId node) { return servers_.at(node).avoid_until <= now; };
  return ring_.ServerFor(ToUint(limit), usable).value_or(NodeId{});
}

// ---- Reports and grants ----

std::vector<GacClient::Outgoing> GacClient::Poll(Instant now) {
  const std::lock_guard lock(mutex_);
  ExpireCalls(now);
  std::vector<Outgoing> out;
  if (servers_.empty()) return out;
  std::map<NodeId, size_t> open;  // the message that a server's entries are put into
  for (auto& [id, entry] : entries_) {
    if (entry->unlimited.load(std::memory_order_relaxed)) continue;
    if (!entry->Asked() && !(entry->Granted(now) && entry->idle_reports < kIdleReports)) {
      entry->last_report = now;  // Idle: what comes next is counted from here.
      continue;
    }
    const NodeId server = ServerOf(id, now);
    if (!Due(*entry, servers_.at(server), now)) continue;
    const auto [at, first] = open.emplace(server, out.size());
    if (first || out[at->second].report.entries.size() >= kGacEntriesMax) {
      at->second = out.size();
      out.push_back({.server = server,
                     .report = {.client = options_.client,
                                .incarnation = options_.incarnation,
                                .sequence = ++sequence_}});
    }
    GacReportEntry report = ReportOf(*entry, now);
    report.limit = id;
    out[at->second].report.entries.push_back(std::move(report));
  }
  for (const Outgoing& outgoing : out) {
    Server& server = servers_.at(outgoing.server);
    server.in_flight.push_back({outgoing.report.sequence, now});
    server.last_report = now;
    server.next_report = now + options_.report_after;
    ++counters_.reports;
  }
  return out;
}

bool GacClient::Due(const Entry& entry, const Server& server, Instant now) const {
  if (server.next_report <= now) return true;
  if (now < server.last_report + options_.report_min || !server.in_flight.empty()) return false;
  if (entry.changed || !entry.Granted(now)) return true;
  if (entry.scarce) return false;
  const int64_t refused = entry.refused.load(std::memory_order_relaxed);
  if (refused > 0) return true;
  const auto asked = static_cast<double>(entry.Admitted());
  const double share = entry.claim.units_per_second * Seconds(now - entry.last_report);
  return asked > kBusy * share && entry.bucket.Remaining(now) < entry.bucket.burst_units() / 4;
}

GacReportEntry GacClient::ReportOf(Entry& entry, Instant now) {
  // GiveBack may have put back what an earlier report counted: then it is negative, and the next
  // report makes up for it.
  entry.unreported += entry.taken.exchange(0);
  const int64_t admitted = std::max<int64_t>(0, entry.Admitted());
  entry.unreported -= admitted;
  const int64_t refused = entry.refused.exchange(0);
  GacReportEntry report{.rate = entry.limit,
                        .asked_units = static_cast<uint64_t>(admitted + refused),
                        .admitted_units = static_cast<uint64_t>(admitted),
                        .period = now - entry.last_report};
  if (entry.Granted(now)) {
    report.claim = entry.claim;
    report.claim.valid_for = entry.grant_end - now;
  }
  entry.last_report = now;
  entry.changed = false;
  entry.idle_reports = report.asked_units > 0 ? 0 : entry.idle_reports + 1;
  return report;
}

void GacClient::ExpireCalls(Instant now) {
  for (auto& [node, server] : servers_) {
    while (!server.in_flight.empty() &&
           (server.in_flight.front().at + options_.reply_timeout <= now ||
            server.in_flight.size() > kInFlightMax)) {
      server.in_flight.pop_front();
      ++counters_.timeouts;
      Fail(server, now);
    }
  }
}

void GacClient::OnFailure(NodeId node, uint64_t sequence, Instant now) {
  const std::lock_guard lock(mutex_);
  const auto found = servers_.find(node);
  if (found == servers_.end()) return;
  Server& server = found->second;
  const size_t erased =
      std::erase_if(server.in_flight, [&](const Sent& sent) { return sent.sequence == sequence; });
  if (erased > 0) Fail(server, now);
}

// One more failure moves the limits again when the time of avoidance is over and it is still dead.
void GacClient::Fail(Server& server, Instant now) {
  const Duration soon = options_.report_after / 4;
  server.next_report = now + soon + Duration(random_.Between(0, soon.count()));
  if (++server.failures < options_.failures_to_move) return;
  server.failures = options_.failures_to_move - 1;
  const Duration jitter(random_.Between(0, options_.avoid_for.count() / 4));
  server.avoid_until = now + options_.avoid_for + jitter;
  server.next_report = now;
  ++counters_.moves;
}

void GacClient::OnGrants(NodeId from, const GacGrants& grants, Instant now) {
  const std::lock_guard lock(mutex_);
  const auto found = servers_.find(from);
  if (found == servers_.end() || grants.client != options_.client ||
      grants.incarnation != options_.incarnation) {
    ++counters_.late_grants;
    return;
  }
  Server& server = found->second;
  const auto sent = std::find_if(server.in_flight.begin(), server.in_flight.end(),
                                 [&](const Sent& s) { return s.sequence == grants.sequence; });
  if (sent == server.in_flight.end()) {
    ++counters_.late_grants;
    return;
  }
  const Instant sent_at = sent->at;
  server.in_flight.erase(sent);
  if (grants.generation == 0 || grants.generation < server.generation) {
    ++counters_.past_generation;
    return;
  }
  ++counters_.grants;
  server.generation = grants.generation;
  server.failures = 0;
  server.avoid_until = Instant();
  const Duration after =
      std::clamp(grants.report_after, options_.report_min, Duration(std::chrono::minutes(1)));
  server.next_report = sent_at + after - Duration(random_.Between(0, after.count() / 4));
  for (const GacGrantEntry& grant : grants.entries) {
    const auto entry = entries_.find(grant.limit);
    if (entry != entries_.end()) Apply(*entry->second, grants, grant, sent_at, now);
  }
}

void GacClient::Apply(Entry& entry, const GacGrants& grants, const GacGrantEntry& grant,
                      Instant sent, Instant now) {
  const bool granted = grant.answer == GacAnswer::kGranted || grant.answer == GacAnswer::kLearning;
  const Instant end = sent + std::min(grant.valid_for, kValidForMax);
  // An answer to an earlier report, from the server that the limit was at then.
  const bool older = entry.claim.sequence >= grants.sequence;
  if (!granted || older || end <= now) return;
  entry.claim = {.generation = grants.generation,
                 .sequence = grants.sequence,
                 .units_per_second = grant.units_per_second};
  entry.grant_end = end;
  entry.scarce = grant.scarce;
  double rate = grant.units_per_second;
  if (grant.answer == GacAnswer::kLearning) {
    rate = std::max(rate, entry.safe.load(std::memory_order_relaxed));
  }
  entry.SetRate(RateOf(rate), now);
  entry.ends_ns.store(end.nanos(), std::memory_order_release);
}

std::optional<GacClient::LimitStatus> GacClient::Status(LimitId limit, Instant now) const {
  const std::lock_guard lock(mutex_);
  const auto found = entries_.find(limit);
  if (found == entries_.end()) return std::nullopt;
  const Entry& entry = *found->second;
  const bool granted = entry.Granted(now);
  return LimitStatus{.granted = granted,
                     .units_per_second = granted ? entry.claim.units_per_second
                                                 : entry.safe.load(std::memory_order_relaxed),
                     .server = servers_.empty() ? NodeId{} : ServerOf(limit, now)};
}

GacClient::Counters GacClient::counters() const {
  const std::lock_guard lock(mutex_);
  return counters_;
}

}  // namespace dynlib::admission
