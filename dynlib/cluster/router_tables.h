// What a router knows of tables, from metadata nodes: descriptors by name.
//
// A table that is not known is asked for at look_up_fan_out metadata nodes at once, by one question
// for all who wait. One that is known is asked for again every table_interval, at one metadata node
// after the other, however much or little it is used: the load is known tables / table_interval.
// What is known stays when no metadata node answers. It goes when as many answers in a row as there
// are metadata nodes, and two at least, say that there is no such table; and when it was not used
// for 10 minutes.
//
// Part of Router. Counted: "router.describes" (requests to metadata nodes), "router.malformed".
//
// Threads: one executor's. Ownership: what is given by pointer outlives it.
#ifndef DYNLIB_CLUSTER_ROUTER_TABLES_H_
#define DYNLIB_CLUSTER_ROUTER_TABLES_H_

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "dynlib/base/ids.h"
#include "dynlib/base/metrics.h"
#include "dynlib/base/time.h"
#include "dynlib/cluster/catalogue.h"
#include "dynlib/cluster/router_options.h"
#include "dynlib/runtime/clock.h"
#include "dynlib/runtime/executor.h"
#include "dynlib/runtime/rpc.h"

namespace dynlib::cluster {

class RouterTables : public std::enable_shared_from_this<RouterTables> {
 public:
  using TablePtr = std::shared_ptr<const TableInfo>;  // without partitions
  using Callback = absl::AnyInvocable<void(absl::StatusOr<TablePtr>)>;

  static constexpr Duration kIdleMax = std::chrono::minutes(10);
  static constexpr size_t kTablesMax = 10'000;  // the one used least recently goes first

  RouterTables(const RouterOptions& options, Rpc* rpc, Executor* executor, const Clock* clock,
               MetricsSink* metrics);

  // nullptr: not known.
  TablePtr Find(const std::string& name);
  // Asks, now and again until it is told: the table, or kNotFound. `done` is called by rpc's
  // callbacks, or not at all after `deadline`.
  void Ask(const std::string& name, Instant deadline, Callback done);
  void Forget() { tables_.clear(); }
  // No callback comes any more.
  void Close();

 private:
  struct Known {
    TablePtr table;
    Instant used;
    size_t denials = 0;  // in a row
  };
  struct Waiter {
    Instant deadline;
    Callback done;
  };
  // A name that is being asked for.
  struct Question {
    uint64_t number = 0;
    std::vector<Waiter> waiters;
    size_t unanswered = 0;
    TablePtr found;
    bool denied = false;
  };
  // A table, nullptr for "there is none", or why there is no answer.
  using Answer = absl::StatusOr<TablePtr>;

  void Describe(const std::string& name, absl::AnyInvocable<void(Answer)> done);
  static Answer ParseReply(const std::string& name, absl::StatusOr<std::string> result);
  void Send(const std::string& name);
  void OnAnswer(const std::string& name, uint64_t number, Answer answer);
  void AskLater(const std::string& name);
  void Refresh();
  void OnRefreshed(const std::string& name, Answer answer);
  void Keep(const std::string& name, TablePtr table);
  void DropIdle();

  const RouterOptions options_;
  Rpc* const rpc_;
  Executor* const executor_;
  const Clock* const clock_;
  MetricsSink* const metrics_;
  bool closed_ = false;
  size_t turn_;  // of the metadata nodes
  std::map<std::string, Known> tables_;
  std::map<std::string, Question> questions_;
  uint64_t questions_asked_ = 0;
  Executor::TimerId timer_ = Executor::kNoTimer;
};

}  // namespace dynlib::cluster

#endif  // DYNLIB_CLUSTER_ROUTER_TABLES_H_
