// A load on one table that goes as fast as it is let, through several routers: strong reads, or
// overwrites, of a few large items. What is throttled waits as long as the answer says and tries
// again.
//
//   Hammer hammer(clients, {.table = "hot", .items = 200, .item_bytes = 32 << 10});
//   DYNLIB_RETURN_IF_ERROR(hammer.Fill());
//   hammer.Start();
//   ... hammer.counts() now and then ...
//   hammer.Stop();
//
// The table's partition key is the string "id"; it has no sort key.
//
// Threads: one that may block, beside the clients'; counts() from any.
#ifndef DYNLIB_EXAMPLES_MINI_CLUSTER_HAMMER_H_
#define DYNLIB_EXAMPLES_MINI_CLUSTER_HAMMER_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "dynlib/base/time.h"
#include "dynlib/cluster/item.h"
#include "dynlib/cluster/table_schema.h"
#include "examples/mini_cluster/client.h"
#include "examples/mini_cluster/window.h"

namespace dynlib::mini_cluster {

class Hammer {
 public:
  struct Options {
    std::string table;
    size_t items = 200;
    size_t item_bytes = 1000;
    bool write = false;
    size_t workers = 8;  // of each client
  };
  struct Counts {
    uint64_t served = 0;
    uint64_t throttled = 0;
    Duration retry_after_max{};  // the longest time to wait that an answer said
  };

  static cluster::TableSchema Schema();

  Hammer(const std::vector<Client*>& clients, const Options& options);
  ~Hammer();

  // Writes the items.
  absl::Status Fill();
  void Start();
  Counts counts() const;
  // Waits for what is under way. The first answer that was neither served nor throttled.
  absl::Status Stop();

 private:
  cluster::Item MakeItem(size_t number) const;
  void Next(Client* client, size_t number);
  void OnAnswer(Client* client, size_t number, const absl::Status& status);

  const std::vector<Client*> clients_;
  const Options options_;
  std::atomic<bool> stopping_{false};
  std::atomic<uint64_t> served_{0};
  std::atomic<uint64_t> throttled_{0};
  std::atomic<int64_t> retry_after_max_ns_{0};
  std::unique_ptr<Window> window_;  // of the workers
};

}  // namespace dynlib::mini_cluster

#endif  // DYNLIB_EXAMPLES_MINI_CLUSTER_HAMMER_H_
