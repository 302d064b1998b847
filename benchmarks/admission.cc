// Admission: what a decision costs, and how good the decisions are.
//
//   take/N, take_full/N   TryTake of one unit, N threads on one bucket, each passing in a time that
//   advances with what it takes; take_full: the bucket overflows all the while
//   take_credit/2         the same with a credit for each thread
//   take_with_clock/1     reads the clock for each
//   reject/4              an empty bucket
//   partition_admit/1, partition_admit_burst/1   allocated, burst and node bucket
//   gac_client/N          GacClient::TryAdmit on sixteen granted limits
//   gac_server_reports    decode, HandleReport, encode: one limit a report, 10,000 limits
//   memory_per_partition  PartitionAdmission and PartitionHeat with 20-byte keys
//   admitted_over_limit, throttled_below_limit, split_balance   see admission_quality.cc
#include <malloc.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "benchmarks/admission_quality.h"
#include "benchmarks/bucket_peers.h"
#include "benchmarks/harness.h"
#include "benchmarks/stats.h"
#include "benchmarks/tight_loop.h"
#include "dynlib/admission/gac_client.h"
#include "dynlib/admission/gac_message.h"
#include "dynlib/admission/gac_server.h"
#include "dynlib/admission/heat.h"
#include "dynlib/admission/node_admission.h"
#include "dynlib/admission/partition_admission.h"
#include "dynlib/admission/request_units.h"
#include "dynlib/admission/token_bucket.h"
#include "dynlib/admission/token_credit.h"
#include "dynlib/base/ids.h"
#include "dynlib/base/random.h"
#include "dynlib/base/strings.h"
#include "dynlib/base/time.h"
#include "dynlib/runtime/posix/system_clock.h"

namespace dynlib::bench {
namespace {

using namespace dynlib::admission;  // What is measured.

constexpr int64_t kStartNs = 1'000'000'000;
constexpr Instant kStart = Instant::FromNanos(kStartNs);
// A unit a nanosecond, and an hour of it ahead: no run uses that up.
constexpr int64_t kBurst = int64_t{3600} * 1'000'000'000;
const FigureUnit kNs{"ns", false};

// A run is the median of so many short loops, so that what else the machine does in one of them
// does not count. They need no more time than this to be steady.
constexpr int kLoops = 5;
double LoopSeconds(const RunContext& context) { return context.seconds / 25; }

// A system whose `make(thread)` gives what is called with the number of the call; it returns
// whether the answer was the expected one.
template <typename Setup>
FigureSystem Loop(std::string name, int threads, Setup setup) {
  return {std::move(name), [threads, setup](const RunContext& context) -> absl::StatusOr<double> {
            std::atomic<bool> wrong{false};
            std::vector<double> loops(kLoops);
            for (double& ns : loops) {
              auto make = setup();
              ns = NsPerCall(threads, LoopSeconds(context), [&](int thread) {
                return [&wrong, call = make(thread)](int64_t i) mutable {
                  if (!call(i)) [[unlikely]]
                    wrong = true;
                };
              });
            }
            if (wrong) return absl::InternalError("a call gave the wrong answer");
            return Median(loops);
          }};
}

FigureSystem FetchSub(int threads) {
  return Loop("limit:fetch_sub", threads, [] {
    struct alignas(64) Line {
      std::atomic<int64_t> value{0};
    };
    return [owner = std::make_shared<Line>()](int) {
      return [line = owner.get()](int64_t) {
        line->value.fetch_sub(1, std::memory_order_relaxed);
        return true;
      };
    };
  });
}

// What each call passes in: a nanosecond later than the last one, in which one unit is made; or
// ten, so that a full bucket overflows.
enum class Pace { kEven, kOverflowing, kEmpty };
constexpr bool Admits(Pace pace) { return pace != Pace::kEmpty; }
template <Pace pace>
constexpr int64_t TimeOf(int64_t i) {
  return kStartNs + (pace == Pace::kOverflowing ? 10 * i : i);
}

template <typename Bucket, Pace pace, typename... Arguments>
FigureSystem PeerLoop(std::string name, int threads, Arguments... arguments) {
  return Loop(std::move(name), threads, [arguments...] {
    return [owner = std::make_shared<Bucket>(arguments...)](int) {
      return [bucket = owner.get()](int64_t i) {
        return bucket->TryTake(1, TimeOf<pace>(i)) == Admits(pace);
      };
    };
  });
}

std::shared_ptr<TokenBucket> MakeBucket(bool full) {
  // Empty: a rate at which no unit is made while we measure.
  const BucketRate rate = full ? *BucketRate::Make(1e9, kBurst) : *BucketRate::Make(1e-4, 100);
  return std::make_shared<TokenBucket>(
      rate, full ? TokenBucket::Fill::kFull : TokenBucket::Fill::kEmpty, kStart);
}

template <Pace pace>
std::vector<FigureSystem> BucketSystems(int threads) {
  constexpr int64_t kTokens = Admits(pace) ? kBurst : 0;
  constexpr int64_t kMost = Admits(pace) ? kBurst : 100;
  constexpr int64_t kNsPerUnit = Admits(pace) ? 1 : 10'000'000'000'000;
  constexpr double kPerNs = 1.0 / static_cast<double>(kNsPerUnit);
  return {Loop(kOurs, threads,
               [] {
                 return [owner = MakeBucket(Admits(pace))](int) {
                   return [bucket = owner.get()](int64_t i) {
                     return bucket->TryTake(1, Instant::FromNanos(TimeOf<pace>(i))) == Admits(pace);
                   };
                 };
               }),
          PeerLoop<MutexBucket, pace>("mutex", threads, kPerNs, static_cast<double>(kMost),
                                      static_cast<double>(kTokens), kStartNs),
          PeerLoop<DoubleBucket, pace>("cas_double", threads, kPerNs, static_cast<double>(kMost),
                                       static_cast<double>(kTokens), kStartNs),
          PeerLoop<GcraBucket, pace>("gcra", threads, kNsPerUnit, kMost, kTokens, kStartNs),
          FetchSub(threads)};
}

FigureSystem CreditLoop(int threads) {
  return Loop(kOurs, threads, [] {
    return [bucket = MakeBucket(true)](int) {
      return [bucket, credit = std::make_shared<TokenCredit>(bucket.get(), 1000)](int64_t i) {
        return credit->TryTake(1, kStart + Duration(i));
      };
    };
  });
}

std::vector<FigureSystem> ClockSystems() {
  return {
      Loop(kOurs, 1,
           [] {
             auto clock = std::make_shared<SystemClock>();
             auto bucket = std::make_shared<TokenBucket>(*BucketRate::Make(1e9, kBurst),
                                                         TokenBucket::Fill::kFull, clock->Now());
             return [clock, bucket](int) {
               return [clock, bucket](int64_t) { return bucket->TryTake(1, clock->Now()); };
             };
           }),
      Loop("gcra", 1,
           [] {
             auto clock = std::make_shared<SystemClock>();
             auto bucket = std::make_shared<GcraBucket>(1, kBurst, kBurst, clock->Now().nanos());
             return [clock, bucket](int) {
               return [clock, bucket](int64_t) { return bucket->TryTake(1, clock->Now().nanos()); };
             };
           }),
      Loop("limit:clock_read", 1, [] {
        return [clock = std::make_shared<SystemClock>()](int) {
          return [clock](int64_t) { return clock->Now().nanos() != 0; };
        };
      })};
}

// ---- Partitions ----

struct PartitionFixture {
  explicit PartitionFixture(bool on_burst) {
    node = *NodeAdmission::Create({.read_units_per_second = 400e6, .saved_seconds = 60}, kStart);
    // On burst: the allocated bucket is used up at once, and the hour that was saved is not.
    partition = *PartitionAdmission::Create({.read_units_per_second = on_burst ? 1e6 : 400e6,
                                             .allocated_seconds = on_burst ? 0.01 : 60,
                                             .burst_seconds = on_burst ? 3600.0 : 300.0,
                                             .burst_starts_full = true},
                                            node.get(), kStart);
  }
  std::unique_ptr<NodeAdmission> node;
  std::unique_ptr<PartitionAdmission> partition;
};

FigureSystem PartitionLoop() {
  return Loop(kOurs, 1, [] {
    return [fixture = std::make_shared<PartitionFixture>(false)](int) {
      return [partition = fixture->partition.get()](int64_t i) {
        return partition->AdmitRead({1}, kStart + Duration(i)).level == Level::kAllocated;
      };
    };
  });
}

// Time stands still, so that the allocated bucket stays empty once the warm-up has used it up.
FigureSystem BurstLoop() {
  return Loop(kOurs, 1, [] {
    return [fixture = std::make_shared<PartitionFixture>(true)](int) {
      return [partition = fixture->partition.get()](int64_t) {
        return partition->AdmitRead({1}, kStart).admitted();
      };
    };
  });
}

template <typename Bucket, typename... Arguments>
FigureSystem ThreePeers(std::string name, Arguments... arguments) {
  return Loop(std::move(name), 1, [arguments...] {
    struct Three {
      Bucket allocated, burst, node;
    };
    return [buckets = std::shared_ptr<Three>(
                new Three{Bucket(arguments...), Bucket(arguments...), Bucket(arguments...)})](int) {
      return [buckets = buckets.get()](int64_t i) {
        return buckets->allocated.TryTake(1, kStartNs + i) &&
               buckets->burst.TryTake(1, kStartNs + i) && buckets->node.TryTake(1, kStartNs + i);
      };
    };
  });
}

std::vector<FigureSystem> PartitionPeers() {
  const auto burst = static_cast<double>(kBurst);
  return {ThreePeers<MutexBucket>("mutex", 1.0, burst, burst, kStartNs),
          ThreePeers<DoubleBucket>("cas_double", 1.0, burst, burst, kStartNs),
          ThreePeers<GcraBucket>("gcra", int64_t{1}, kBurst, kBurst, kStartNs), FetchSub(1)};
}

// ---- Global admission control ----

constexpr uint64_t kLimits = 16;

std::shared_ptr<GacClient> GrantedClient() {
  static constexpr NodeId kServer{1};
  auto server = *GacServer::Create({.generation = 1, .grant_lifetime = std::chrono::hours(1)});
  std::shared_ptr<GacClient> client =
      *GacClient::Create({.client = ClientId{1}, .saved_seconds = 10}, {&kServer, 1});
  for (uint64_t id = 1; id <= kLimits; ++id) {
    const GacClient::Limit limit{.limit = LimitRate{1, 1e9}, .safe_units_per_second = 1e9};
    if (!client->SetLimit(LimitId{id}, limit, kStart).ok()) return nullptr;
    client->TryAdmit(LimitId{id}, 1, kStart);
  }
  for (const GacClient::Outgoing& out : client->Poll(kStart)) {
    const auto grants = server->HandleReport(out.report, kStart);
    if (!grants.ok()) return nullptr;
    client->OnGrants(out.server, *grants, kStart);
  }
  return client;
}

FigureSystem ClientLoop(int threads) {
  return Loop(kOurs, threads, [] {
    return [owner = GrantedClient()](int thread) {
      return [client = owner.get(), thread](int64_t i) {
        const LimitId limit{1 +
                            (static_cast<uint64_t>(i) + static_cast<uint64_t>(thread)) % kLimits};
        return client->TryAdmit(limit, 1, kStart + Duration(i)).admitted();
      };
    };
  });
}

// Both threads on one limit.
FigureSystem HotClientLoop(int threads) {
  return Loop("dynlib_one_limit", threads, [] {
    return [owner = GrantedClient()](int) {
      return [client = owner.get()](int64_t i) {
        return client->TryAdmit(LimitId{1}, 1, kStart + Duration(i)).admitted();
      };
    };
  });
}

// `clients` routers that each use all the tables, and report on one table at a time.
absl::StatusOr<double> ServerReports(const RunContext& context) {
  constexpr uint64_t kTables = 10'000;
  constexpr uint64_t kClients = 20;
  auto server = *GacServer::Create({.generation = 1});
  Random random(1);
  Instant now = kStart;
  std::vector<std::string> messages;
  std::vector<uint64_t> sequences(kClients + 1);
  constexpr uint64_t kEntries = kTables * kClients;
  // In each round every client reports on every table once, in an order that mixes both.
  const auto report_of = [&](uint64_t i) {
    const uint64_t at = (i * 7'919) % kEntries;
    GacReport report{.client = ClientId{1 + at / kTables},
                     .incarnation = 1,
                     .sequence = ++sequences[1 + at / kTables]};
    report.entries.push_back({.limit = LimitId{1 + at % kTables},
                              .rate = {1, 1000},
                              .asked_units = 40 + random.Below(40),
                              .admitted_units = 30 + random.Below(10),
                              .period = std::chrono::seconds(1)});
    return report;
  };
  constexpr size_t kBatch = 20'000;
  uint64_t i = 0;
  double measured_ns = 0;
  uint64_t measured = 0;
  while (measured_ns < context.seconds * 0.5e9) {
    messages.clear();
    for (size_t k = 0; k < kBatch; ++k, ++i) messages.push_back(Encode(report_of(i)));
    const double start = ThreadCpuNs();
    size_t bytes = 0;
    for (const std::string& message : messages) {
      now = now + Duration(1'000'000'000 / kEntries);
      const auto report = DecodeGacReport(message);
      if (!report.ok()) return report.status();
      const auto grants = server->HandleReport(*report, now);
      if (!grants.ok()) return grants.status();
      bytes += Encode(*grants).size();
    }
    if (bytes == 0) return absl::InternalError("no answers");
    if (i < kEntries) continue;  // The server learns the clients.
    measured_ns += ThreadCpuNs() - start;
    measured += kBatch;
  }
  return static_cast<double>(measured) / measured_ns * 1e9;
}

// ---- Memory ----

absl::StatusOr<double> MemoryPerPartition(const RunContext&) {
  constexpr size_t kPartitions = 500;
  auto node = *NodeAdmission::Create({}, kStart);
  Random random(1);
  std::vector<std::unique_ptr<PartitionAdmission>> partitions(kPartitions);
  std::vector<std::unique_ptr<PartitionHeat>> heats(kPartitions);
  const size_t before = mallinfo2().uordblks;
  for (size_t p = 0; p < kPartitions; ++p) {
    partitions[p] = *PartitionAdmission::Create({}, node.get(), kStart);
    heats[p] = std::make_unique<PartitionHeat>(HeatOptions{}, p);
    for (int i = 0; i < 3000; ++i) {
      std::string key(20, '\0');
      for (char& c : key) c = static_cast<char>('a' + random.Below(26));
      heats[p]->Record(key, 2, kStart + Duration(int64_t{i} * 10'000'000));
    }
  }
  return static_cast<double>(mallinfo2().uordblks - before) / kPartitions;
}

void MeasureDecisions(Harness& harness) {
  harness.MeasureFigures("take/1", kNs, BucketSystems<Pace::kEven>(1));
  harness.MeasureFigures("take/2", kNs, BucketSystems<Pace::kEven>(2));
  harness.MeasureFigures("take_full/1", kNs, BucketSystems<Pace::kOverflowing>(1), false);
  harness.MeasureFigures("take_full/2", kNs, BucketSystems<Pace::kOverflowing>(2), false);
  std::vector<FigureSystem> credit = BucketSystems<Pace::kEven>(2);
  credit[0] = CreditLoop(2);
  harness.MeasureFigures("take_credit/2", kNs, std::move(credit));
  harness.MeasureFigures("take_with_clock/1", kNs, ClockSystems(), false);
  harness.MeasureFigures("reject/4", kNs, BucketSystems<Pace::kEmpty>(4), false);
  std::vector<FigureSystem> partition = PartitionPeers();
  partition.insert(partition.begin(), PartitionLoop());
  harness.MeasureFigures("partition_admit/1", kNs, std::move(partition), false);
  harness.MeasureFigures("partition_admit_burst/1", kNs, {BurstLoop()}, false);
  for (const int threads : {1, 2}) {
    harness.MeasureFigures(Cat("gac_client/", threads), kNs,
                           {ClientLoop(threads), HotClientLoop(threads), FetchSub(threads)}, false);
  }
  harness.MeasureFigures("gac_server_reports", {"reports/s", true}, {{kOurs, ServerReports}},
                         false);
  harness.MeasureFigures("memory_per_partition", {"bytes", false}, {{kOurs, MemoryPerPartition}},
                         false);
}

}  // namespace
}  // namespace dynlib::bench

int main(int argc, char** argv) {
  dynlib::bench::Harness harness("admission", argc, argv);
  dynlib::bench::MeasureDecisions(harness);
  dynlib::bench::MeasureAdmissionQuality(harness);
  return harness.Finish();
}
