// The client of global admission control: decides on the spot, from the rate that a GAC server
// granted it, and keeps that rate up to date in the background.
//
// Each limit has a local token bucket. TryAdmit takes from it and counts what was asked. Now and
// then the driver calls Poll, which hands it reports to send (what was asked, and which grant is in
// use); the answer goes to OnGrants. Grants end: without an answer the last share goes on until its
// end, then the limit's safe rate applies, until a server answers again. A table's server follows
// from a hash ring; a server that does not answer is left alone for a while, and its limits move to
// the next one.
//
//   GacClient client = **GacClient::Create(options, servers);
//   client.SetLimit(LimitOf(table, Operation::kRead), {.limit = {version, 10'000},
//                                                      .safe_units_per_second = 500}, now);
//   if (auto d = client.TryAdmit(id, units, now); !d.admitted()) return Throttled(d.retry_after);
//   // every 50 ms or so:
//   for (auto& out : client.Poll(now)) rpc.Call(out.server, kGac, Encode(out.report), ...);
//
// Reports are due after what the server said, less up to a quarter by chance, so that clients do
// not march in step; earlier when a bucket runs low while its limit is not scarce.
//
// Threads: any. TryAdmit takes no lock, allocates nothing and calls nobody; when a grant has ended
// it changes the bucket's rate, under the bucket's own short lock, once. The others share a mutex.
//
// Threads do not wait for each other's cache lines: of a limit with plenty saved, each of up to
// eight groups of threads takes an eighth of a millisecond's units ahead. They go back when the
// bucket would refuse a request, so no request is refused for them; over any one interval up to a
// millisecond's units more than the bucket's rate * time + burst are admitted.
//
// Limits: limits_max; SetLimit refuses more with kResourceExhausted. A limit takes about 1 KiB.
#ifndef DYNLIB_ADMISSION_GAC_CLIENT_H_
#define DYNLIB_ADMISSION_GAC_CLIENT_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/admission/gac_message.h"
#include "dynlib/admission/hash_ring.h"
#include "dynlib/admission/token_bucket.h"
#include "dynlib/base/ids.h"
#include "dynlib/base/random.h"
#include "dynlib/base/time.h"

namespace dynlib::admission {

struct GacDecision {
  enum class Outcome : uint8_t {
    kAdmitted,
    kThrottled,  // try again after retry_after
    kTooLarge,   // more than the bucket ever holds (see Options::request_units_max)
    kUnknown,    // SetLimit was not called for this limit; nothing was counted
  };
  Outcome outcome = Outcome::kAdmitted;
  Duration retry_after{0};

  bool admitted() const { return outcome == Outcome::kAdmitted; }
};

class GacClient {
 public:
  struct Options {
    ClientId client{};         // not 0; unlike that of every other client
    uint64_t incarnation = 0;  // higher after each restart
    uint64_t seed = 1;         // for the jitter
    // What a bucket saves up, as time at its rate: [0.01, 10] seconds.
    double saved_seconds = 1;
    // A bucket saves up two requests of this size besides: [1, 1e9] units.
    int64_t request_units_max = 1;
    Duration report_after = std::chrono::seconds(1);          // until a server says; [10 ms, 1 min]
    Duration report_min = std::chrono::milliseconds(100);     // between two; [1 ms, report_after]
    Duration reply_timeout = std::chrono::milliseconds(500);  // > 0
    int failures_to_move = 2;                                 // reports without answer; >= 1
    Duration avoid_for = std::chrono::seconds(10);            // a server that did not answer; > 0
    size_t limits_max = 4096;                                 // [1, 1,000,000]
  };

  struct Limit {
    // Nothing: no limit, everything passes (and nobody is asked).
    std::optional<LimitRate> limit;
    // What to admit when no server can be heard; such as the limit divided by the clients.
    // [0.0001, 1e9].
    double safe_units_per_second = 1;
  };

  struct Outgoing {
    NodeId server{};
    GacReport report;
  };

  // kInvalidArgument naming field, value and range.
  static absl::StatusOr<std::unique_ptr<GacClient>> Create(const Options& options,
                                                           std::span<const NodeId> servers);
  ~GacClient();

  // May `units` (>= 0) be used now?
  GacDecision TryAdmit(LimitId limit, int64_t units, Instant now);
  // Admitted units that were not used after all, or more that were: takes them, into debt if need
  // be.
  void GiveBack(LimitId limit, int64_t units, Instant now);
  void TakeMore(LimitId limit, int64_t units, Instant now);

  // Adds or changes a limit, at once. A version lower than the known one changes nothing.
  absl::Status SetLimit(LimitId limit, const Limit& value, Instant now);
  void RemoveLimit(LimitId limit);
  // Which servers there are.
  void SetServers(std::span<const NodeId> servers);

  // Reports that are due, at most one a server and kGacEntriesMax limits each. To be called every
  // report_min / 2 or so.
  std::vector<Outgoing> Poll(Instant now);
  void OnGrants(NodeId from, const GacGrants& grants, Instant now);
  // The report could not be sent, or was refused; without this a timeout finds out.
  void OnFailure(NodeId server, uint64_t sequence, Instant now);

  struct LimitStatus {
    bool granted = false;  // a grant holds; otherwise the safe rate
    double units_per_second = 0;
    NodeId server{};
  };
  std::optional<LimitStatus> Status(LimitId limit, Instant now) const;

  struct Counters {
    uint64_t reports = 0;
    uint64_t grants = 0;
    uint64_t late_grants = 0;      // repeated, late, or not an answer to us; dropped
    uint64_t past_generation = 0;  // of an earlier life of the server; dropped
    uint64_t timeouts = 0;
    uint64_t moves = 0;  // servers given up for a while
  };
  Counters counters() const;

 private:
  struct Entry;
  struct Slot {
    std::atomic<uint64_t> id{0};  // kEmpty, kRemoved, or a limit's number
    std::atomic<Entry*> entry{nullptr};
  };
  struct Sent {
    uint64_t sequence = 0;
    Instant at;
  };
  struct Server {
    std::deque<Sent> in_flight;
    uint64_t generation = 0;
    int failures = 0;
    Instant avoid_until;
    Instant last_report;
    Instant next_report;
  };

  GacClient(const Options& options, std::span<const NodeId> servers);

  Entry* Find(LimitId limit) const;
  Slot* SlotToFill(LimitId limit);
  BucketRate RateOf(double units_per_second) const;
  void EndGrant(Entry& entry, int64_t end_ns, Instant now);
  void ExpireCalls(Instant now);
  void Fail(Server& server, Instant now);
  void Apply(Entry& entry, const GacGrants& grants, const GacGrantEntry& grant, Instant sent,
             Instant now);
  bool Due(const Entry& entry, const Server& server, Instant now) const;
  GacReportEntry ReportOf(Entry& entry, Instant now);
  NodeId ServerOf(LimitId limit, Instant now) const;

  const Options options_;
  std::vector<Slot> slots_;  // Open addressing; found without a lock.

  mutable std::mutex mutex_;  // Guards what follows, and the parts of entries that say so.
  HashRing ring_;
  Random random_;
  std::map<LimitId, std::unique_ptr<Entry>> entries_;
  std::vector<std::unique_ptr<Entry>> spare_entries_;  // Of removed limits, to be used again.
  std::map<NodeId, Server> servers_;
  uint64_t sequence_ = 0;
  Counters counters_;
};

}  // namespace dynlib::admission

#endif  // DYNLIB_ADMISSION_GAC_CLIENT_H_
