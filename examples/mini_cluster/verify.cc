#include "examples/mini_cluster/verify.h"

#include <algorithm>
#include <cstdlib>
#include <utility>

#include "absl/status/status.h"
#include "dynlib/base/checksum.h"
#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"
#include "dynlib/cluster/item.h"
#include "dynlib/cluster/key.h"
#include "examples/mini_cluster/names.h"
#include "examples/mini_cluster/window.h"

namespace dynlib::mini_cluster {
namespace {

constexpr size_t kExamplesMax = 5;
constexpr Duration kCatchUpLimit = std::chrono::seconds(60);

uint64_t ToUint64(const cluster::Value& value) {
  return std::strtoull(value.number().ToString().c_str(), nullptr, 10);
}

class Verifier {
 public:
  Verifier(Client& client, const DataSet& data, VerifyOptions options)
      : client_(client), data_(data), options_(std::move(options)) {}

  absl::StatusOr<VerifyResult> Run() {
    const Instant start = client_.clock().Now();
    rows_.resize(data_.rows());
    DYNLIB_RETURN_IF_ERROR(ReadStrongly());
    DYNLIB_ASSIGN_OR_RETURN(const cluster::TableInfo table,
                            client_.WaitUntilWhole(kRecordsTable, kCatchUpLimit));
    for (const cluster::PartitionInfo& partition : table.partitions) {
      for (const cluster::PartitionMember& member : partition.members)
        DYNLIB_RETURN_IF_ERROR(ReadReplica(partition, member.node));
    }
    DYNLIB_RETURN_IF_ERROR(ReadCounters());
    Judge();
    result_.took = client_.clock().Now() - start;
    return std::move(result_);
  }

 private:
  // What is known of a row of the data set.
  struct Row {
    Digest128 wanted;  // without its generation
    Digest128 found;   // by the strong read, if `read`
    uint64_t generation = 0;
    uint8_t copies = 0;      // replicas that have what was found
    uint8_t unreadable = 0;  // replicas of its partition that cannot be read whole
    bool read = false;       // strongly, whole
    bool different = false;
  };

  // The least generation that must be there; nothing: it may be missing.
  std::optional<uint64_t> MustBeThere(uint64_t row) const {
    if (!options_.rows.has_value()) return 0;
    const auto found = options_.rows->find(row);
    if (found == options_.rows->end()) return std::nullopt;
    return found->second;
  }

  void Example(std::string what) {
    if (result_.examples.size() < kExamplesMax) result_.examples.push_back(std::move(what));
  }

  absl::Status ReadStrongly() {
    Window window(options_.in_flight);
    Instant next_progress = client_.clock().Now() + std::chrono::seconds(1);
    absl::Status failed;
    const absl::Status read = data_.ForEach([&](uint64_t row, cluster::Item item) {
      absl::StatusOr<std::string> storage_key = cluster::EncodeItemKey(data_.schema(), item);
      if (failed.Update(storage_key.status()); !failed.ok()) return false;
      item.erase(kGeneration);
      rows_[row].wanted = Digest(cluster::EncodeItem(item));
      by_key_[*std::move(storage_key)] = row;
      cluster::PrimaryKey key = *cluster::KeyOf(data_.schema(), item);
      if (!window.Enter()) return false;
      client_.executor().Post(
          [&, row, key = std::move(key)]() mutable { ReadRow(row, std::move(key), window); });
      if (const Instant now = client_.clock().Now(); now >= next_progress) {
        next_progress = now + std::chrono::seconds(1);
        if (options_.progress) options_.progress(row);
      }
      return true;
    });
    DYNLIB_RETURN_IF_ERROR(window.Drain());
    DYNLIB_RETURN_IF_ERROR(failed);
    return read;
  }

  // On the client's executor, as is its callback.
  void ReadRow(uint64_t row, cluster::PrimaryKey key, Window& window) {
    client_.router().Get(kRecordsTable, std::move(key), cluster::Consistency::kStrong,
                         [this, row, &window, begin = client_.clock().Now()](
                             absl::StatusOr<std::optional<cluster::Item>> found) {
                           result_.read_latencies.Add(client_.clock().Now() - begin);
                           if (found.ok() && found->has_value()) NoteFound(row, **std::move(found));
                           window.Leave(found.status());
                         });
  }

  void NoteFound(uint64_t number, cluster::Item item) {
    result_.present++;
    Row& row = rows_[number];
    row.found = Digest(cluster::EncodeItem(item));
    if (const auto generation = item.find(kGeneration); generation != item.end()) {
      row.generation = ToUint64(generation->second);
      item.erase(generation);
    }
    row.read = Digest(cluster::EncodeItem(item)) == row.wanted;
    if (row.read) return;
    row.different = true;
    Example(Cat("item ", number, " read strongly has other contents"));
  }

  absl::Status ReadReplica(const cluster::PartitionInfo& partition, NodeId node) {
    result_.replicas++;
    absl::Status scanned =
        client_.ScanReplica(partition, node, [&](const std::string& key, const std::string& item) {
          const auto found = by_key_.find(key);
          if (found == by_key_.end()) {
            result_.unexpected++;
            return Example(Cat("node ", node, " has an item that is not in ", data_.path(),
                               ", at storage key ", Escape(key)));
          }
          Row& row = rows_[found->second];
          row.copies++;
          if (!row.read || Digest(item) == row.found) return;
          row.different = true;
          Example(Cat("item ", found->second, " on node ", node, " has other contents"));
        });
    if (scanned.ok()) return scanned;
    if (absl::IsDataLoss(scanned)) {
      result_.damaged++;
      const auto end = partition.end.empty() ? by_key_.end() : by_key_.lower_bound(partition.end);
      for (auto it = by_key_.lower_bound(partition.first); it != end; ++it)
        rows_[it->second].unreadable++;
      Example(Cat("the replica of partition ", partition.id, " on node ", node,
                  " cannot be read: ", ToStd(scanned.message())));
      return absl::OkStatus();
    }
    return absl::Status(scanned.code(), Cat("reading partition ", partition.id, " from node ", node,
                                            ": ", ToStd(scanned.message())));
  }

  absl::Status ReadCounters() {
    for (const auto& [name, range] : options_.counters) {
      DYNLIB_ASSIGN_OR_RETURN(
          std::optional<cluster::Item> item,
          client_.Get(kCountersTable, {.partition = cluster::Value::String(name), .sort = {}}));
      uint64_t value = 0;
      if (item.has_value()) value = ToUint64(item->at(kCounterValue));
      if (value >= range.low && value <= range.high) {
        result_.counters++;
        continue;
      }
      result_.counters_wrong++;
      Example(Cat(name, " is ", value, "; it must be from ", range.low, " to ", range.high));
    }
    return absl::OkStatus();
  }

  void Judge() {
    for (uint64_t i = 0; i < rows_.size(); ++i) {
      const Row& row = rows_[i];
      const std::optional<uint64_t> must = MustBeThere(i);
      if (must.has_value()) result_.expected++;
      if (row.different) {
        result_.different++;
      } else if (row.read && row.generation < must.value_or(0)) {
        result_.lost++;
        Example(Cat("item ", i, " is of generation ", row.generation, "; ", *must,
                    " was acknowledged"));
      } else if (row.read && row.copies + row.unreadable >= kReplicas) {
        if (must.has_value()) result_.verified++;
      } else if (must.has_value() || row.read || row.copies > 0) {
        // There or not: but the same everywhere.
        result_.lost++;
        Example(Cat("item ", i, " was ", row.read ? "" : "not ", "found by a strong read, and in ",
                    static_cast<int>(row.copies), " of ", kReplicas, " replicas"));
      }
    }
  }

  Client& client_;
  const DataSet& data_;
  VerifyOptions options_;
  std::vector<Row> rows_;
  std::map<std::string, uint64_t> by_key_;  // storage key to row
  VerifyResult result_;
};

}  // namespace

absl::StatusOr<VerifyResult> Verify(Client& client, const DataSet& data, VerifyOptions options) {
  return Verifier(client, data, std::move(options)).Run();
}

}  // namespace dynlib::mini_cluster
