#include "dynlib/admission/gac_server.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "dynlib/admission/token_bucket.h"
#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"

namespace dynlib::admission {
namespace {

// A limit that nobody asks for is kept so long, since forgetting it means to learn again.
constexpr Duration kLimitKept = std::chrono::minutes(10);
// How much the latest report weighs in a client's estimated demand. One that differs from the
// estimate by more than chance explains (so many standard deviations of a Poisson process) replaces
// it.
constexpr double kLatestWeight = 0.2;
constexpr double kBeyondChance = 4;
// A client that got less than this part of its share is asked to report again soon.
constexpr double kHeldBack = 0.9;
// As is one that is to go down to less than this part of what it has.
constexpr double kReleased = 0.7;

absl::Status OutOfRange(const char* field, double value, double low, double high) {
  return absl::InvalidArgumentError(Cat(field, " is ", value, "; allowed are ", low, " to ", high));
}

absl::Status CheckRange(const char* field, double value, double low, double high) {
  return value >= low && value <= high ? absl::OkStatus() : OutOfRange(field, value, low, high);
}

double Seconds(Duration duration) { return static_cast<double>(duration.count()) / 1e9; }

absl::Status Validate(const GacServer::Options& options) {
  if (options.generation == 0) {
    return absl::InvalidArgumentError("generation is 0; it must be at least 1");
  }
  const double lifetime = Seconds(options.grant_lifetime);
  DYNLIB_RETURN_IF_ERROR(CheckRange("grant_lifetime (s)", lifetime, 0.1, 3600));
  DYNLIB_RETURN_IF_ERROR(
      CheckRange("report_after (s)", Seconds(options.report_after), 0.01, lifetime / 2));
  DYNLIB_RETURN_IF_ERROR(CheckRange("transition_share", options.transition_share, 0, 0.5));
  DYNLIB_RETURN_IF_ERROR(CheckRange("learning_share", options.learning_share, 0, 0.5));
  DYNLIB_RETURN_IF_ERROR(CheckRange("clock_drift_max", options.clock_drift_max, 0, 0.1));
  for (const auto& [field, value] :
       {std::pair("limits_max", options.limits_max),
        std::pair("clients_per_limit_max", options.clients_per_limit_max),
        std::pair("entries_max", options.entries_max)}) {
    if (value == 0) return absl::InvalidArgumentError(Cat(field, " is 0; it must be at least 1"));
  }
  return absl::OkStatus();
}

bool IsRate(double units_per_second) {
  return units_per_second >= BucketRate::kUnitsPerSecondMin &&
         units_per_second <= BucketRate::kUnitsPerSecondMax;
}

}  // namespace

absl::StatusOr<std::unique_ptr<GacServer>> GacServer::Create(const Options& options) {
  DYNLIB_RETURN_IF_ERROR(Validate(options));
  return std::unique_ptr<GacServer>(new GacServer(options));
}

// A grant ends, on our clock, later than on the client's: that counts from when it asked, and its
// clock may be slow.
GacServer::GacServer(const Options& options)
    : options_(options),
      ledger_lifetime_(static_cast<int64_t>(static_cast<double>(options.grant_lifetime.count()) *
                                            (1 + options.clock_drift_max)) +
                       1) {}

absl::Status GacServer::SetLimit(LimitId id, const LimitRate& rate, Instant now) {
  if (!IsRate(rate.units_per_second)) {
    return OutOfRange("units_per_second", rate.units_per_second, BucketRate::kUnitsPerSecondMin,
                      BucketRate::kUnitsPerSecondMax);
  }
  auto found = limits_.find(id);
  if (found == limits_.end()) {
    if (limits_.size() >= options_.limits_max) {
      return absl::ResourceExhaustedError(
          Cat("limits_max (", options_.limits_max, ") limits are known already"));
    }
    found = limits_.emplace(id, Limit{.rate = rate, .last_used = now}).first;
  }
  Limit& limit = found->second;
  limit.configured = true;
  if (rate.version < limit.rate.version) return absl::OkStatus();
  limit.rate = rate;
  limit.divided = Instant();
  return absl::OkStatus();
}

bool GacServer::IsLate(const GacReport& report) const {
  for (const GacReportEntry& entry : report.entries) {
    const auto limit = limits_.find(entry.limit);
    if (limit == limits_.end()) continue;
    const auto at = limit->second.index.find(report.client);
    if (at == limit->second.index.end()) continue;
    const Client& client = limit->second.clients[at->second];
    if (report.incarnation < client.incarnation) return true;
    if (report.incarnation == client.incarnation && report.sequence <= client.sequence) return true;
  }
  return false;
}

absl::StatusOr<GacGrants> GacServer::HandleReport(const GacReport& report, Instant now) {
  if (ToUint(report.client) == 0 || report.sequence == 0 || report.entries.empty() ||
      report.entries.size() > kGacEntriesMax) {
    return absl::InvalidArgumentError("a report has a client, a sequence from 1, and entries");
  }
  if (IsLate(report)) {
    ++counters_.late_reports;
    return absl::AlreadyExistsError(
        Cat("report ", report.sequence, " of client ", report.client, " is late or repeated"));
  }
  ++counters_.reports;
  GacGrants grants{.generation = options_.generation,
                   .client = report.client,
                   .incarnation = report.incarnation,
                   .sequence = report.sequence,
                   .report_after = options_.report_after};
  bool held_back = false;
  grants.entries.reserve(report.entries.size());
  for (const GacReportEntry& entry : report.entries) {
    grants.entries.push_back(Answer(report, entry, now, held_back));
  }
  if (held_back) grants.report_after = options_.report_after / 4;
  return grants;
}

GacGrantEntry GacServer::Answer(const GacReport& report, const GacReportEntry& entry, Instant now,
                                bool& held_back) {
  GacGrantEntry answer{.limit = entry.limit};
  Limit* const limit = FindLimit(entry, now);
  if (limit == nullptr) {
    const bool full = options_.limits_from_reports && entry.rate.version != 0;
    ++(full ? counters_.full : counters_.unknown_limits);
    answer.answer = full ? GacAnswer::kFull : GacAnswer::kUnknown;
    return answer;
  }
  Client* const client = FindClient(*limit, report);
  if (client == nullptr) {
    ++counters_.full;
    answer.answer = GacAnswer::kFull;
    return answer;
  }
  DropEnded(*client, now);
  Acknowledge(*client, entry.claim);
  Observe(*client, entry);
  ++limit->reports_since;
  DivideIfDue(*limit, now);
  CountHeld(*limit, *client);

  const double share = limit->shares.Of(client->asked);
  double rate = 0;
  if (Learning(*limit, now)) {
    rate = RateWhileLearning(*limit, *client, entry.claim, share);
    if (client->claimless) answer.answer = GacAnswer::kLearning;
  } else {
    client->claimless = false;
    if (entry.claim.generation != 0 && entry.claim.generation != options_.generation) {
      ++counters_.foreign_claims;
    }
    rate = RateFor(*limit, *client, share);
    held_back |= rate < kHeldBack * share;
  }
  AddGrant(*client, {.sequence = report.sequence, .rate = rate, .end = now + ledger_lifetime_});
  CountHeld(*limit, *client);
  // What it no longer gets is free for others once it says so.
  held_back |= rate < kReleased * client->held;
  answer.scarce = limit->shares.scarce;
  answer.units_per_second = rate;
  answer.valid_for = options_.grant_lifetime;
  return answer;
}

GacServer::Limit* GacServer::FindLimit(const GacReportEntry& entry, Instant now) {
  auto found = limits_.find(entry.limit);
  const bool told = options_.limits_from_reports && entry.rate.version != 0 &&
                    IsRate(entry.rate.units_per_second);
  if (found == limits_.end()) {
    if (!told || limits_.size() >= options_.limits_max) return nullptr;
    found = limits_.emplace(entry.limit, Limit{.rate = entry.rate}).first;
  }
  Limit& limit = found->second;
  if (told && entry.rate.version > limit.rate.version) {
    limit.rate = entry.rate;
    limit.divided = Instant();
  }
  if (!limit.used) limit.learning_until = now + ledger_lifetime_;
  limit.used = true;
  limit.last_used = now;
  return &limit;
}

GacServer::Client* GacServer::FindClient(Limit& limit, const GacReport& report) {
  const auto found = limit.index.find(report.client);
  if (found == limit.index.end()) {
    if (limit.clients.size() >= options_.clients_per_limit_max ||
        entries_ >= options_.entries_max) {
      return nullptr;
    }
    limit.index.emplace(report.client, limit.clients.size());
    limit.clients.push_back({.id = report.client});
    ++entries_;
  }
  Client& client = limit.clients[limit.index.find(report.client)->second];
  // What an earlier life of the client was granted ended with it.
  if (client.incarnation != report.incarnation) client.grant_count = 0;
  client.incarnation = report.incarnation;
  client.sequence = report.sequence;
  return &client;
}

void GacServer::Observe(Client& client, const GacReportEntry& entry) {
  const double seconds = Seconds(entry.period);
  if (seconds < 1e-3) return;
  const double most = BucketRate::kUnitsPerSecondMax;
  const double asked = std::min(static_cast<double>(entry.asked_units) / seconds, most);
  const double admitted = std::min(static_cast<double>(entry.admitted_units) / seconds, most);
  const double expected = client.asked * seconds;
  const bool changed =
      std::abs(asked - client.asked) * seconds > kBeyondChance * std::sqrt(expected + 1);
  const double weight = client.seen && !changed ? kLatestWeight : 1;
  client.seen = true;
  client.asked += weight * (asked - client.asked);
  client.admitted += weight * (admitted - client.admitted);
}

// The client works with the grant that it names, so with none before it.
void GacServer::Acknowledge(Client& client, const GacClaim& claim) {
  if (claim.generation != options_.generation) return;
  const auto begin = client.grants.begin();
  const auto end = begin + static_cast<std::ptrdiff_t>(client.grant_count);
  const auto named =
      std::find_if(begin, end, [&](const Grant& g) { return g.sequence == claim.sequence; });
  if (named == end) return;
  client.grant_count = static_cast<size_t>(std::move(named, end, begin) - begin);
}

void GacServer::DropEnded(Client& client, Instant now) {
  const auto begin = client.grants.begin();
  const auto end = begin + static_cast<std::ptrdiff_t>(client.grant_count);
  client.grant_count = static_cast<size_t>(
      std::remove_if(begin, end, [&](const Grant& g) { return g.end <= now; }) - begin);
}

void GacServer::AddGrant(Client& client, const Grant& grant) {
  if (client.grant_count == Client::kGrantsMax) {
    Grant& second = client.grants[1];
    second.rate = std::max(second.rate, client.grants[0].rate);
    second.end = std::max(second.end, client.grants[0].end);
    std::move(client.grants.begin() + 1, client.grants.end(), client.grants.begin());
    --client.grant_count;
  }
  client.grants[client.grant_count++] = grant;
}

void GacServer::CountHeld(Limit& limit, Client& client) {
  double held = 0;
  for (size_t i = 0; i < client.grant_count; ++i) held = std::max(held, client.grants[i].rate);
  limit.held += held - client.held;
  if (client.counted_claimless) {
    limit.claimless_held -= client.held;
    --limit.claimless;
  }
  if (client.claimless) {
    limit.claimless_held += held;
    ++limit.claimless;
  }
  client.counted_claimless = client.claimless;
  client.held = held;
}

// Costs as much as there are clients, so once for every quarter of them, and when time has passed.
// Sums are formed anew, so that rounding does not gather in them.
void GacServer::DivideIfDue(Limit& limit, Instant now) {
  if (limit.reports_since * 4 < limit.clients.size() &&
      now < limit.divided + options_.report_after / 4) {
    return;
  }
  limit.reports_since = 0;
  limit.divided = now;
  demands_.clear();
  limit.held = 0;
  limit.claimless_held = 0;
  limit.claimless = 0;
  for (Client& client : limit.clients) {
    DropEnded(client, now);
    client.held = 0;
    client.counted_claimless = false;
    CountHeld(limit, client);
    demands_.push_back(client.asked);
  }
  limit.shares = DivideFairly(demands_, limit.rate.units_per_second);
}

double GacServer::RateFor(const Limit& limit, const Client& client, double share) const {
  const double held_by_others = limit.held - client.held;
  const double free = std::max(0.0, limit.rate.units_per_second - held_by_others);
  return std::max(std::min(share, free), share * options_.transition_share);
}

double GacServer::RateWhileLearning(const Limit& limit, Client& client, const GacClaim& claim,
                                    double share) const {
  if (client.grant_count > 0 && !client.claimless) {
    return std::min(share, client.grants[client.grant_count - 1].rate);
  }
  const bool foreign = claim.generation != 0 && claim.generation != options_.generation;
  if (foreign && claim.valid_for > Duration(0) && client.grant_count == 0) {
    client.claimless = false;
    return std::min(share, claim.units_per_second);
  }
  client.claimless = true;
  const double pool = options_.learning_share * limit.rate.units_per_second;
  const double others = limit.claimless_held - (client.counted_claimless ? client.held : 0);
  const size_t count = limit.claimless + (client.counted_claimless ? 0 : 1);
  return std::max(0.0, std::min({share, pool / static_cast<double>(count), pool - others}));
}

void GacServer::ForgetSilent(Limit& limit, Instant now) {
  for (size_t i = 0; i < limit.clients.size();) {
    Client& client = limit.clients[i];
    DropEnded(client, now);
    CountHeld(limit, client);
    if (client.grant_count > 0) {
      ++i;
      continue;
    }
    client.claimless = false;
    CountHeld(limit, client);
    limit.index.erase(client.id);
    if (i + 1 < limit.clients.size()) {
      client = limit.clients.back();
      limit.index[client.id] = i;
    }
    limit.clients.pop_back();
    --entries_;
    limit.divided = Instant();
  }
}

void GacServer::Expire(Instant now) {
  for (auto it = limits_.begin(); it != limits_.end();) {
    Limit& limit = it->second;
    ForgetSilent(limit, now);
    const bool idle = limit.clients.empty() && limit.last_used + kLimitKept <= now;
    it = idle && !limit.configured ? limits_.erase(it) : std::next(it);
  }
}

std::optional<GacServer::LimitStatus> GacServer::Status(LimitId id, Instant now) const {
  const auto found = limits_.find(id);
  if (found == limits_.end()) return std::nullopt;
  const Limit& limit = found->second;
  LimitStatus status{.limit = limit.rate.units_per_second,
                     .granted_per_second = limit.held,
                     .clients = limit.clients.size(),
                     .learning = Learning(limit, now)};
  for (const Client& client : limit.clients) {
    status.asked_per_second += client.asked;
    status.admitted_per_second += client.admitted;
  }
  return status;
}

}  // namespace dynlib::admission
