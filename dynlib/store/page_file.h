// One file that holds many copy-on-write B-trees, checkpointed together.
//
// A storage node has one: each partition is a tree in it, found by a root in the directory that the
// superblock points to (rule L5). Pages are written nowhere but into free space, and a checkpoint
// becomes the truth when one of the two superblocks, overwritten in turn, names it (shadow paging:
// Lorie, 1977). A parent's reference to a page carries the page's checksum, so that the superblock
// vouches for every byte that is read.
//
//   DYNLIB_ASSIGN_OR_RETURN(std::unique_ptr<PageFile> file,
//                           PageFile::Open({}, disk, "node7/pages"));
//   DYNLIB_ASSIGN_OR_RETURN(Tree* tree, file->CreateTree(TreeId{7}));
//   DYNLIB_RETURN_IF_ERROR(tree->Apply(batch, 1));
//   DYNLIB_RETURN_IF_ERROR(file->Checkpoint());   // now position 1 is durable
//
// Durability: Checkpoint alone. After a crash Open finds the newest checkpoint that was durable, or
// the one that was being written: for each tree the version that Checkpoint captured, and its
// position. Creating and dropping a tree is durable with the next checkpoint.
//
// Space: an extent is used again only when no version in memory and neither checkpoint on disk
// holds it. So under steady overwriting the file settles at the live pages, what two checkpoints
// changed, and what snapshots pin. It does not shrink.
//
// Threads: all methods from any thread; Checkpoint, Verify and DropTree block on the disk, no lock
// is held meanwhile, and readers and writers of the trees go on. Destroy it when no call is
// running. One process at a time: the caller holds the folder's DiskLock.
//
// Metrics: store.checkpoint_pages, store.checkpoint_bytes, store.pages_read, store.page_damaged
// (with an event), store.file_growth_bytes.
#ifndef DYNLIB_STORE_PAGE_FILE_H_
#define DYNLIB_STORE_PAGE_FILE_H_

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/base/checksum.h"
#include "dynlib/base/metrics.h"
#include "dynlib/runtime/disk.h"
#include "dynlib/store/page.h"
#include "dynlib/store/superblock.h"
#include "dynlib/store/tree.h"
#include "dynlib/store/verify.h"

namespace dynlib::store {

class PageFile {
 public:
  struct Options {
    // False: an absent file is kNotFound.
    bool create_if_missing = true;
    // Identity of the file, kept in it. Zero: any when opening, zero when creating.
    Digest128 file_id;
    // The file grows by an eighth of itself, at least and at most this much (each a multiple of
    // 4,096, from 64 KiB to 1 GiB), or by what one page needs.
    uint64_t growth_bytes_min = 1 << 20;
    uint64_t growth_bytes_max = 64 << 20;
    // Bytes gathered into one write of a checkpoint; 4,096 to 16 MiB.
    uint64_t write_bytes_max = 1 << 20;
    // Breaks rule L5 on purpose, for tests of the tests (rule S3): what a checkpoint on disk holds
    // is given out again.
    bool reuse_pages_early_for_test = false;
  };

  struct Stats {
    uint64_t file_bytes = 0;
    uint64_t used_bytes = 0;  // held by a version in memory or by a checkpoint on disk
    uint64_t generation = 0;  // of the newest durable checkpoint
    uint64_t checkpoints = 0;
    uint64_t pages_written = 0;
    uint64_t bytes_written = 0;
    uint64_t pages_read = 0;
    uint64_t page_memory_bytes = 0;  // pages in memory, all versions; approximate
  };

  using VerifyReport = store::VerifyReport;

  // Opens or creates `path`, whose folder exists.
  //   kInvalidArgument     an option out of range, or not a page file
  //   kNotFound            absent, and create_if_missing is false
  //   kFailedPrecondition  written by a newer format, or its file_id is another
  //   kDataLoss            no superblock, or not the directory or bitmap it names, is intact; or
  //                        the file is shorter than it says
  // The file is not changed in these cases.
  static absl::StatusOr<std::unique_ptr<PageFile>> Open(Options options, Disk* disk,
                                                        std::string_view path,
                                                        MetricsSink* metrics = MetricsSink::None());
  ~PageFile();

  // kAlreadyExists when there is one of that id. Empty, at position 0.
  absl::StatusOr<Tree*> CreateTree(TreeId id);
  // Null when there is none.
  Tree* FindTree(TreeId id) const;
  // Removes the tree and gives its space back; kNotFound when there is none. Reads every page of
  // the tree. No Apply may be running on it; snapshots of it stay good. Extents below a damaged
  // page are not found, and stay used (counted by Verify).
  absl::Status DropTree(TreeId id);
  // In ascending order.
  std::vector<TreeId> Trees() const;

  // Makes durable the newest version of every tree as of some moment in this call. Does nothing
  // when nothing has changed.
  //   kUnavailable        another Checkpoint is running
  //   kResourceExhausted  no space: all is as it was, and a later call may succeed
  // Any other error is for good (rule L3): every later Checkpoint returns it, while trees can still
  // be read and written in memory. Open the file again to see what is in it.
  absl::Status Checkpoint();

  // Reads all pages of both checkpoints from disk and checks them: checksums, structure, key order,
  // that no two pages overlap and that all are marked as used. Returns the first fault found, after
  // having looked at everything that can be reached.
  absl::Status Verify(VerifyReport* report = nullptr);

  Stats stats() const;
  Digest128 file_id() const { return file_id_; }

 private:
  using RecordPtr = std::shared_ptr<const CheckpointRecord>;
  struct CapturedTree {
    std::shared_ptr<Tree> tree;
    NodeRef root;
    uint64_t position;
  };

  PageFile(const Options& options, std::shared_ptr<NodeStore> nodes,
           std::array<RecordPtr, 2> records, uint64_t generation);

  static absl::Status Create(const Options& options, Disk* disk, const std::string& path);
  static absl::StatusOr<std::unique_ptr<PageFile>> Load(const Options& options,
                                                        std::unique_ptr<File> file,
                                                        std::string_view path,
                                                        MetricsSink* metrics);

  void HoldCheckpoints();
  absl::Status RunCheckpoint();
  std::vector<CapturedTree> CaptureTrees();
  RecordPtr NewestRecord() const;
  absl::StatusOr<CheckpointRecord> WritePages(const std::vector<CapturedTree>& trees);
  absl::Status WriteSuperblock(const Superblock& superblock);
  void Install(RecordPtr record, const std::vector<CapturedTree>& trees);

  const Options options_;
  const std::shared_ptr<NodeStore> nodes_;
  Digest128 file_id_;
  // What the newest capture holds of what was written; touched by one running Checkpoint.
  UnitSet tree_units_;

  mutable std::mutex mutex_;  // guards what follows; never held across a file call
  std::map<TreeId, std::shared_ptr<Tree>> trees_;
  std::vector<std::vector<NodeRef>> dropped_;  // nodes of dropped trees, until the next capture
  std::array<RecordPtr, 2> records_;           // by superblock; null when damaged
  uint64_t generation_ = 0;                    // of the newest
  uint64_t checkpoints_ = 0;
  bool checkpointing_ = false;
  absl::Status broken_;  // rule L3: the error that closed the file for writing
};

}  // namespace dynlib::store

#endif  // DYNLIB_STORE_PAGE_FILE_H_
