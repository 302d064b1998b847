// Replicas as maps in memory, with damage; a scrub of them over a network that may lose messages;
// and what a scrub should find, worked out item by item.
#ifndef DYNLIB_TESTS_SCRUB_MODEL_H_
#define DYNLIB_TESTS_SCRUB_MODEL_H_

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "dynlib/base/ids.h"
#include "dynlib/base/random.h"
#include "dynlib/base/time.h"
#include "dynlib/scrub/options.h"
#include "dynlib/scrub/range_digester.h"
#include "dynlib/scrub/scrub_session.h"
#include "dynlib/scrub/types.h"

namespace dynlib::scrub {

struct ModelReplica {
  ReplicaId id{};
  std::map<std::string, std::string> items;
  std::vector<std::pair<std::string, std::string>> unreadable;  // ranges, in order
  bool knows_range = true;                                      // after an unreadable range
  Instant silent_from = Instant::Infinite();

  bool Unreadable(const std::string& key) const;
  ScanEnd Scan(std::string_view first, std::string_view end, Visitor visit) const;
};

std::string Key(uint64_t number);

// Three equal replicas, 1 to 3, with `items` items.
std::vector<ModelReplica> MakeReplicas(Random& random, uint64_t items);
// Changes, drops or adds an item. Returns its key.
std::string Damage(Random& random, ModelReplica* replica);
// Makes some keys' range unreadable, and returns it.
std::pair<std::string, std::string> MakeUnreadable(Random& random, ModelReplica* replica);

// The findings about items, by comparing all items of all replicas.
std::map<std::string, Finding> Expected(const std::vector<ModelReplica>& replicas,
                                        ReplicaId reference);

struct Network {
  double loss = 0;  // of a request or its answer
  Duration delay_max = std::chrono::milliseconds(20);
};

// Runs sessions over replicas.
class Scrubber {
 public:
  Scrubber(std::vector<ModelReplica> replicas, uint64_t seed, Network network = {})
      : replicas_(std::move(replicas)), random_(seed), network_(network) {}

  // Until it is finished, or until `stop_after` answers have come.
  void Run(ScrubSession& session, const ScrubOptions& options, uint64_t stop_after = UINT64_MAX);

  ScrubSubject Subject(ReplicaId reference = {}) const;

  Instant now = Instant::FromNanos(1'000'000'000);
  std::vector<Finding> findings;
  std::map<ReplicaId, uint64_t> bytes_read;
  uint64_t requests = 0;
  // A changed answer, for replicas that lie.
  std::function<void(Answer*)> corrupt;

 private:
  struct Delivery {
    uint64_t request;
    absl::StatusOr<Answer> answer;
  };
  const ModelReplica& Find(ReplicaId id) const;
  void Send(const Request& request);

  const std::vector<ModelReplica> replicas_;
  Random random_;
  const Network network_;
  std::multimap<Instant, Delivery> deliveries_;
};

// gtest assertions: item findings are those expected, in order and once each; range findings are
// about ranges that cannot be read, and no such range is missed.
void Verify(const std::vector<ModelReplica>& replicas, const std::vector<Finding>& findings,
            ReplicaId reference = {});

}  // namespace dynlib::scrub

#endif  // DYNLIB_TESTS_SCRUB_MODEL_H_
