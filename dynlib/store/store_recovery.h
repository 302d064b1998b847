// Brings the trees of a Store to where its log ends.
//
// Internal to the store. Threads: one; blocks on the disk.
#ifndef DYNLIB_STORE_STORE_RECOVERY_H_
#define DYNLIB_STORE_STORE_RECOVERY_H_

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "dynlib/store/node_log.h"
#include "dynlib/store/node_log_reader.h"
#include "dynlib/store/page_file.h"
#include "dynlib/store/store.h"
#include "dynlib/store/store_record.h"
#include "dynlib/store/store_repair.h"
#include "dynlib/store/tree.h"
#include "dynlib/store/write_batch.h"

namespace dynlib::store {

inline constexpr StreamId kStoreStream{1};

class Store::Replay {
 public:
  // The catalogue and the default tree are there. Of the memory of the pages up to a quarter is
  // taken for writes that were read and wait to be applied.
  //
  // With a reader in the place of the log nothing is written, and damage to the log and to the
  // catalogue is no error: see damage().
  Replay(const Options& options, PageFile* pages, NodeLog* log, const LogReader* reader,
         NodeLog::Recovery* logged, Store::Recovery* found);

  // Told of bytes of the log's entries, about once for each mebibyte; false ends it.
  void SetProgress(std::function<bool(uint64_t applied)> progress) {
    progress_ = std::move(progress);
  }
  // Damaged pages that a write needs are replaced by what `fetch_rows` has. If it has nothing, what
  // is written to their keys is owed, and all else is applied; then no checkpoint may be made of
  // the trees.
  absl::Status Run();
  // Damage that the caller found: the error of who would write, and OK for who only reads.
  absl::Status Meet(const absl::Status& damage);
  OwedWrites TakeOwed() { return std::move(owed_); }
  // Of the log or the catalogue: the first that was met, and at which the replay ended, or without
  // which it went on. kDataLoss.
  const absl::Status& damage() const { return damage_; }
  // Of the trees, but for the default one.
  const std::map<TreeId, std::string>& names() const { return names_; }

 private:
  const std::string& FirstNote() const { return logged_.first_damage; }
  uint64_t CutAt(const NodeLog::RecoveredStream& stream);
  absl::Status FallBack();
  absl::Status LoadNames();
  absl::Status ReadLog();
  absl::Status ApplyEntry(const LogRecord& entry);
  absl::Status Tell(uint64_t bytes);
  absl::Status ApplyChange(LoggedChange& change, uint64_t slot);
  absl::Status Flush();
  absl::Status MendFor(const absl::Status& damage);
  absl::Status MendTree(TreeId id, WriteBatch& batch, bool* mended);
  NamedTree NameOf(TreeId id) const;
  absl::Status ForgetThrough(uint64_t last);
  absl::Status DropOrphans();

  const FetchRows& fetch_rows_;
  const uint64_t gather_bytes_;
  PageFile& pages_;
  Tree& catalogue_;
  NodeLog* const log_;
  const LogReader* const reader_;
  NodeLog::Recovery& logged_;
  Store::Recovery& found_;
  // What was read and not applied yet: large batches, sorted, are applied several times as fast.
  std::map<TreeId, WriteBatch> batches_;
  std::map<TreeId, std::string> names_;
  WriteBatch rows_;
  uint64_t gathered_bytes_ = 0;
  std::function<bool(uint64_t)> progress_;
  uint64_t applied_bytes_ = 0;
  uint64_t told_bytes_ = 0;
  uint64_t through_ = 0;
  uint64_t cut_ = UINT64_MAX;  // the first sequence that cannot be read
  uint64_t last_ = 0;          // of those in the log
  // The next group has to follow the one before: after a lost batch each; after a fallback of the
  // page file the first.
  bool count_ = false;
  absl::Status damage_;
  OwedWrites owed_;
  // What cannot be read while the store is open: writes to it are owed, one like the other.
  std::map<TreeId, std::vector<Snapshot::Unreadable>> lost_;
};

}  // namespace dynlib::store

#endif  // DYNLIB_STORE_STORE_RECOVERY_H_
