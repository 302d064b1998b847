// A global admission control server (USENIX ATC '22, "DynamoDB", section 4.2): divides each limit
// among the clients that ask for it, as rates that hold for a few seconds.
//
// Clients report what they were asked for; the server estimates each one's demand and grants its
// max-min fair share (fair_share.h), so that a client that overstates its demand gets the fair
// level at most. A grant is a rate with an end: tokens that trickle in and expire. Per limit, a
// ledger of the grants that may still be in use is kept, and a grant is made only of what is not in
// it: a client that was lowered counts as having the old rate until it says that it took the new
// one, or the old one ended. So the rates in use never exceed the limit, save that a client whose
// share the others have not released yet gets `transition_share` of it at once.
//
// Nothing is kept on disk. A limit that a server hears of for the first time (it was restarted, or
// the clients moved to it from another) is in its learning phase for one grant lifetime: grants
// that it does not know may be in use. Meanwhile a client gets no more than the unexpired grant
// that it says it holds, and clients without one share `learning_share` of the limit. So with
// clients that tell the truth, what is admitted in that time exceeds the limit by at most
// learning_share + transition_share of it and the safe rates of clients without a grant. When it
// ends, all grants in use are in the ledger.
//
//   GacServer server = **GacServer::Create({.generation = restarts});
//   StatusOr<GacGrants> grants = server.HandleReport(report, now);   // reply with it
//   server.Expire(now);                                              // every second
//
// A pure core. Threads: one at a time.
// Limits: limits_max, clients_per_limit_max, entries_max (pairs of both); beyond, the answer is
// kFull and the client stays at its safe rate. Silent clients are forgotten when their grants end.
#ifndef DYNLIB_ADMISSION_GAC_SERVER_H_
#define DYNLIB_ADMISSION_GAC_SERVER_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/admission/fair_share.h"
#include "dynlib/admission/gac_message.h"
#include "dynlib/base/ids.h"
#include "dynlib/base/time.h"

namespace dynlib::admission {

class GacServer {
 public:
  struct Options {
    // Tells this life of the server from earlier ones: higher each time it starts (wall time in
    // nanoseconds will do), never 0.
    uint64_t generation = 0;
    // How long a grant holds: [100 ms, 1 h]. The learning phase is a little longer.
    Duration grant_lifetime = std::chrono::seconds(5);
    // When clients are to report next: [10 ms, grant_lifetime / 2].
    Duration report_after = std::chrono::seconds(1);
    // Of a share, what is granted although others hold it still: [0, 0.5].
    double transition_share = 0.05;
    // Of a limit, what clients without a grant share in a learning phase: [0, 0.5].
    double learning_share = 0.05;
    // Clients' clocks may run slower than ours by this much: [0, 0.1].
    double clock_drift_max = 0.01;
    // Whether a report may bring a limit that is not known, or newer than the known one. The
    // clients are then trusted to know the limits, as routers that read the catalogue are.
    bool limits_from_reports = true;
    size_t limits_max = 20'000;             // >= 1
    size_t clients_per_limit_max = 20'000;  // >= 1
    size_t entries_max = 2'000'000;         // >= 1
  };

  // kInvalidArgument naming field, value and range.
  static absl::StatusOr<std::unique_ptr<GacServer>> Create(const Options& options);

  // Sets a limit; with a version lower than the known one nothing happens. kInvalidArgument for a
  // rate outside [0.0001, 1e9]; kResourceExhausted at limits_max.
  absl::Status SetLimit(LimitId limit, const LimitRate& rate, Instant now);

  // kAlreadyExists: late or repeated, dropped. kInvalidArgument: no client, sequence or entries.
  absl::StatusOr<GacGrants> HandleReport(const GacReport& report, Instant now);

  // Forgets clients whose grants ended and limits that nobody asks for.
  void Expire(Instant now);

  struct LimitStatus {
    double limit = 0;
    double asked_per_second = 0;     // as estimated from the reports
    double admitted_per_second = 0;  // as reported
    double granted_per_second = 0;   // the ledger: rates that may be in use
    size_t clients = 0;
    bool learning = false;
  };
  std::optional<LimitStatus> Status(LimitId limit, Instant now) const;

  struct Counters {
    uint64_t reports = 0;
    uint64_t late_reports = 0;    // late or repeated, or of an earlier life of the client
    uint64_t unknown_limits = 0;  // entries answered kUnknown
    uint64_t full = 0;            // entries answered kFull
    uint64_t foreign_claims = 0;  // grants of another server or generation, outside of learning
  };
  const Counters& counters() const { return counters_; }
  size_t entries() const { return entries_; }

 private:
  struct Grant {
    uint64_t sequence = 0;
    double rate = 0;
    Instant end;
  };
  struct Client {
    ClientId id{};
    uint64_t incarnation = 0;
    uint64_t sequence = 0;
    double asked = 0;     // units a second, smoothed
    double admitted = 0;  // units a second, smoothed
    // Grants that may be in use, oldest first; the oldest are merged when there are more.
    static constexpr size_t kGrantsMax = 3;
    std::array<Grant, kGrantsMax> grants;
    size_t grant_count = 0;
    double held = 0;         // the highest rate among them, as counted in the limit's sum
    bool claimless = false;  // came without a grant in the learning phase
    bool counted_claimless = false;
    bool seen = false;  // reported before
  };
  struct Limit {
    LimitRate rate;
    bool configured = false;  // by SetLimit: not forgotten
    bool used = false;        // reported at least once, which starts the learning phase
    Instant learning_until;
    Instant last_used;
    std::vector<Client> clients;
    absl::flat_hash_map<ClientId, size_t> index;  // into clients; looked up only
    double held = 0;                              // sum over the clients
    double claimless_held = 0;                    // sum over the claimless ones
    size_t claimless = 0;                         // how many there are
    FairShares shares;
    size_t reports_since = 0;  // since the shares were computed
    Instant divided;
  };

  explicit GacServer(const Options& options);

  Limit* FindLimit(const GacReportEntry& entry, Instant now);
  Client* FindClient(Limit& limit, const GacReport& report);
  bool IsLate(const GacReport& report) const;
  GacGrantEntry Answer(const GacReport& report, const GacReportEntry& entry, Instant now,
                       bool& held_back);
  static void Observe(Client& client, const GacReportEntry& entry);
  void Acknowledge(Client& client, const GacClaim& claim);
  void DivideIfDue(Limit& limit, Instant now);
  double RateFor(const Limit& limit, const Client& client, double share) const;
  double RateWhileLearning(const Limit& limit, Client& client, const GacClaim& claim,
                           double share) const;
  static void AddGrant(Client& client, const Grant& grant);
  static void DropEnded(Client& client, Instant now);
  // Brings the sums up to the client's grants.
  static void CountHeld(Limit& limit, Client& client);
  void ForgetSilent(Limit& limit, Instant now);
  static bool Learning(const Limit& limit, Instant now) { return now < limit.learning_until; }

  const Options options_;
  const Duration ledger_lifetime_;  // a grant's, on our clock
  std::map<LimitId, Limit> limits_;
  size_t entries_ = 0;
  std::vector<double> demands_;  // scratch
  Counters counters_;
};

}  // namespace dynlib::admission

#endif  // DYNLIB_ADMISSION_GAC_SERVER_H_
