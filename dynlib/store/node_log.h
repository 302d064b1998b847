// NodeLog: the write-ahead log of a node, one for all of its replicas.
//
// Each replica is a stream in it. Appends of all streams are gathered into one batch, written by
// one WriteAt and made durable by one Sync (group commit across streams), so a node with a thousand
// replicas pays for one sync at a time. The log keeps two kinds of record: an entry at a slot, and
// the stream's latest small state (votes, promises, chosen watermark), of which a newer one
// supersedes the older. Segments are files of a fixed size, written once with zeros and recycled,
// so that a sync writes data alone. The bytes are described in docs/format/wal.md.
//
//   NodeLog::Recovery found;
//   DYNLIB_ASSIGN_OR_RETURN(auto log, NodeLog::Open({}, disk, "log", log_executor, clock,
//                                                   MetricsSink::None(), &found));
//   log->Append({{stream, RecordKind::kEntry, slot, ballot, bytes}}, executor,
//               [](absl::Status durable) { ... });
//   absl::Status durable = log->AppendAndWait({{stream, RecordKind::kEntry, slot, ballot, bytes}});
//   log->Release(stream, checkpointed_slot);
//   log->Close(executor, [](absl::Status closed) { ... });
//
// Durability (rules L1 to L4): an Append is durable when, and only when, its callback gets OK. All
// records of one Append are in one batch. A batch that was not acknowledged may be found at the
// next Open, whole or in part.
//
// What recovery says (rules R4, L2): a record comes back with the bytes that were written, or is
// listed as unknown, or its stream says lost_batch; an acknowledged record that is still needed is
// never silently absent and never another value. Torn bytes past the last acknowledged batch are
// listed as unknown where their listing can be read, since they cannot be told from a damaged
// acknowledged batch; where nothing of it can be read they are cut, with a note.
//
// Waiting for it: a thread that may block uses AppendAndWait, or its two halves. When nobody is
// writing, the waiting thread itself writes and syncs the batch that its append is in; when
// somebody is, one of those that wait for the next batch is handed the writing, and the others are
// woken together. The log's executor writes only when no thread waits, and does what takes longer
// than an append should. Not for a simulation, nor for tasks of executors that the log needs.
//
// Order: appends become durable in the order of the calls. For one slot of a stream, the higher
// ballot supersedes, and of equal ballots the later one; a lower ballot than what the log has is
// written but not kept.
//
// Space: a segment is free when none of its records is needed. When more segments are in use than
// Options::copy_forward_above, what a few streams still hold in the emptiest segment is copied
// forward and the segment freed (rule L6). Space runs out in one place, the making of a segment;
// the Append that needed it gets kResourceExhausted, nothing of it was written, and later ones
// succeed once space is back.
//
// Errors of Append, through its callback:
//   kInvalidArgument    a record or the whole call is larger than max_batch_bytes; an empty call
//   kResourceExhausted  the queue is full, no segment was to be had, or the stream has too much
//   that
//                       is not archived; nothing was written. The message names who is at fault
//   kUnknown            the write or the sync failed (rule L3). The log is closed for good: open it
//                       again to learn what is there
//   kUnavailable        the log was closed, or closed itself after such a failure; nothing was
//                       written
//   kCancelled          the log was destroyed before this was written
// Callbacks run on the executor given, exactly once, in the order of the appends; but an append
// that is refused at the door (bad argument, full queue, closed) is answered at once.
//
// Threads: all methods from any thread; they take a short lock and never wait for the disk, save
// Open, which does file calls and belongs where those are allowed, and what is called Wait.
//
// Ownership: threads that wait are answered, and leave, before the disk, clock and metrics go; the
// disk, clock and metrics outlive the last task that the log has on `log_executor`,
// so drain that executor before they go. A log destroyed without Close stops as a crash would: what
// is queued is cancelled, the batch that is being written finishes.
#ifndef DYNLIB_STORE_NODE_LOG_H_
#define DYNLIB_STORE_NODE_LOG_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/base/metrics.h"
#include "dynlib/base/time.h"
#include "dynlib/runtime/clock.h"
#include "dynlib/runtime/disk.h"
#include "dynlib/runtime/executor.h"
#include "dynlib/store/node_log_record.h"

namespace dynlib::store {

class NodeLog {
  class Impl;
  struct Batch;
  class Meanwhile;

 public:
  struct Options {
    // Of one segment file: a multiple of block_bytes, 64 KiB to 1 GiB.
    uint64_t segment_bytes = 64 << 20;
    // Batches start on multiples of this, so that no synced byte is ever written again: a power of
    // two, 512 to 4096. The device's atomic unit or larger.
    uint32_t block_bytes = 4096;
    // Bound of one batch, and so of one Append, counting kRecordOverheadBytes a record: 4 KiB to a
    // quarter of segment_bytes. 0 stands for the smaller of 4 MiB and a quarter of segment_bytes.
    uint64_t max_batch_bytes = 0;
    // Bound of what waits to be written; beyond it Append says kResourceExhausted. At least
    // MaxBatchBytes().
    uint64_t max_queued_bytes = 64 << 20;
    // Segments made ready before they are needed: 1 to 16. They are made at the pace of the
    // appends, since those wait for what the disk does for a spare.
    uint32_t spare_segments = 1;
    // So many of them, behind the first segment, are made at once after an open, as fast as the
    // disk can: 0 to spare_segments.
    uint32_t spares_at_open = 1;
    // Segments in use above which sparsely used ones are copied forward: 1 to max_segments - 3.
    uint32_t copy_forward_above = 16;
    // Bound on segment files, spares included: 4 to 4096. Each Open may need one more, for
    // what is logged at a start may be what it takes to free others.
    uint32_t max_segments = 64;
    // Bound of what an archived stream (SetArchived) has in the log and not in the archive; beyond
    // it appends of its entries get kResourceExhausted, those of states and of other streams do
    // not. May be exceeded by what is queued meanwhile. At least 4 KiB.
    uint64_t max_unarchived_bytes = 1 << 30;
    // Whose log this is; a log of another identity is refused. A node's id, say.
    uint64_t identity = 0;
    // Of an owner whose entries begin with a byte that says their version: the newest that it
    // knows. A log with one of a newer version is refused. 0: payloads are not looked at.
    uint8_t payload_version_max = 0;
  };
  // What a record takes in the log besides its payload.
  static constexpr uint64_t kRecordOverheadBytes = 80;

  struct RecoveredStream {
    std::optional<LogRecord> state;
    // In slot order, of each slot the highest ballot (of equals the latest), after what was
    // released; a few that were released may be among them. None with Entries::kLater.
    std::vector<LogRecord> entries;

    // Written once, perhaps acknowledged, no longer readable. `entries` or `state` may still hold
    // what the log had before it at the slot, of a lower ballot or older. It is reported again at
    // each Open until the slot is appended again (at a ballot that does not lose to an entry that
    // is there), or released, or (kState) a newer state is appended, or the stream is dropped.
    struct Unknown {
      uint64_t slot = 0;
      uint64_t ballot = 0;
      RecordKind kind = RecordKind::kEntry;
      friend bool operator==(const Unknown&, const Unknown&) = default;
    };
    std::vector<Unknown> unknown;

    // A batch is provably missing and so is its listing: anything of this stream may have been in
    // it. Said again at each Open until the stream is dropped.
    bool lost_batch = false;
  };

  struct Recovery {
    std::map<StreamId, RecoveredStream> streams;
    bool clean_close = false;
    // What was damaged or cut, for people: file, offset, and both checksums where there are two.
    std::vector<std::string> notes;  // At most 100; the counters go on.
    uint64_t last_batch = 0;         // The newest; they are numbered from 1 on. 0: none.
    std::string first_damage;        // The first note of a batch that is damaged or lost.
    uint64_t segments = 0;           // In use.
    uint64_t batches = 0;            // Read whole.
    uint64_t torn_batches = 0;       // Incomplete, above what is known to have been durable.
    uint64_t damaged_batches = 0;    // Incomplete, below it: corruption.
    uint64_t lost_batches = 0;       // Missing in the middle without a listing: corruption.
    uint64_t unreadable_bytes = 0;   // The device failed to read them.
    uint64_t read_bytes = 0;         // Of segment files.
    Duration took{};                 // From the lock to the last payload.
    // OK unless something that was known durable is damaged or missing: then kDataLoss with
    // first_damage. A stand-alone store fails its Open with it; a replica follows rule R4.
    absl::Status DataLoss() const;
  };

  // What becomes of the entries that the log has: all of them in the Recovery, or none, for who
  // reads them with ReadEntries, so that memory does not grow with the log.
  enum class Entries { kInRecovery, kLater };

  // Called with bytes of segment files, read and in all; false ends the reading.
  using ReadProgress = std::function<bool(uint64_t read, uint64_t total)>;

  // kInvalidArgument naming the field, its value and its range: what Open says before all else.
  static absl::Status Validate(const Options& options);
  // What Options::max_batch_bytes stands for.
  static uint64_t MaxBatchBytes(const Options& options);

  // Creates `dir` if needed, locks it (kAlreadyExists if another log has it), reads what is there.
  // Errors besides the disk's own: kInvalidArgument for an option, kFailedPrecondition for a
  // directory of a newer format version or of another identity, in which nothing was changed then.
  // Damage is not an error here: see Recovery. kCancelled: `progress`, called at least once for
  // each mebibyte read, said so. Holds a segment in memory while it runs.
  static absl::StatusOr<std::unique_ptr<NodeLog>> Open(const Options& options, Disk* disk,
                                                       std::string dir, Executor* log_executor,
                                                       const Clock* clock, MetricsSink* metrics,
                                                       Recovery* found,
                                                       Entries entries = Entries::kInRecovery,
                                                       const ReadProgress& progress = nullptr);
  ~NodeLog();

  // Calls `take` with the stream's durable entries after `after_slot`, in slot order, until it
  // returns an error, which this returns. Reads them from disk, a quarter of a megabyte at a time;
  // blocks. Any thread, while others append and release. kDataLoss for an entry that does not
  // verify.
  absl::Status ReadEntries(StreamId stream, uint64_t after_slot,
                           absl::FunctionRef<absl::Status(LogRecord)> take) const;

  // Reads the segments in use from disk, and checks all of each that was durable when this was
  // called: header, and of every batch header, trailer and payloads. Says what is wrong to `fault`,
  // which must not call the log: kDataLoss with file, offset and, where there are two, both
  // checksums. Any thread, while others append and release; blocks, and holds a segment in memory.
  // Returns how many batches are whole; kCancelled when `go_on`, told of each mebibyte or less that
  // was read, says false.
  absl::StatusOr<uint64_t> Verify(absl::FunctionRef<bool(uint64_t bytes)> go_on,
                                  absl::FunctionRef<void(const absl::Status&)> fault) const;

  void Append(std::vector<LogRecord> records, Executor* executor,
              absl::AnyInvocable<void(absl::Status)> done);

  // As Append, and waits for the answer, which it returns. A thread that writes its own append and
  // nobody else's waits for the disk as DiskWait::kPoll says.
  absl::Status AppendAndWait(std::vector<LogRecord> records);
  // The same, for who has something else to do that takes about as long as a write of the disk:
  // `meanwhile` is called once, on this thread, while the bytes are on their way, if that is
  // possible, and before this returns in any case. If others wait for the same batch, so do they
  // for `meanwhile`. It may call the log, but not wait for it. `wait`: kSleep if there are others
  // that want the processor.
  absl::Status AppendAndWait(std::vector<LogRecord> records, absl::FunctionRef<void()> meanwhile,
                             DiskWait wait);

  class PendingAppend;
  // Hears of appends a batch at a time.
  class Listener {
   public:
    virtual ~Listener() = default;
    // Those appends of a batch that name this listener, in the order of the calls, and what became
    // of them all. Batches come in their order, one call at a time, on whichever thread wrote one
    // of them, before those are woken who wait for this batch; the next batch may be written
    // meanwhile. The log no longer knows an append that was not to be waited for: it may be
    // destroyed here. To be short; it may call the log, but not wait for it.
    virtual void OnSettled(std::span<PendingAppend* const> appends, const absl::Status& status) = 0;
  };

  // An append under way, in the hands of its caller, who keeps it until it is settled.
  class PendingAppend {
   public:
    // One that is `waited_for` is written by whoever calls Wait, so Wait must be called, and soon.
    explicit PendingAppend(Listener* listener = nullptr, bool waited_for = true)
        : listener_(listener), waited_for_(waited_for) {}
    PendingAppend(const PendingAppend&) = delete;
    PendingAppend& operator=(const PendingAppend&) = delete;

    // Returns what became of it; any number of times, by one thread. The log may be destroyed
    // meanwhile.
    absl::Status Wait();

   private:
    friend class NodeLog;
    Listener* const listener_;
    const bool waited_for_;
    std::shared_ptr<Impl> log_;
    std::shared_ptr<Batch> batch_;
  };

  // The first half of AppendAndWait: takes its place in the order. An error says why it was refused
  // at the door; then nothing is pending, and the listener is not told.
  absl::Status Append(std::vector<LogRecord> records, PendingAppend* append);

  // Entries at or below `through_slot` are no longer needed: to be called for what is durable.
  // Remembered durably with a later batch; until then a crash may bring some of them back.
  void Release(StreamId stream, uint64_t through_slot);

  // Makes the stream an archived one, whose owner copies its entries elsewhere before they are
  // released, and says through which slot that is done; entries above it are counted against
  // max_unarchived_bytes. To be said again after each Open; Drop forgets it.
  void SetArchived(StreamId stream, uint64_t through_slot);

  // The stream's records appended so far are gone, state and all. Written soon, not waited for: a
  // crash before that brings the stream back. The id may be appended to again.
  void Drop(StreamId stream);

  // For an owner at rest: gives back what segments are made of in advance. Appends go on in a
  // segment of a megabyte, if nothing in the one before is needed, and there are no spares until
  // the next append. In the background.
  void ReleaseSpace();

  // Finishes what is queued, writes the marker of a clean close (rule L2), releases the directory,
  // then calls `done`. kUnavailable if it is closed already or closed itself.
  void Close(Executor* executor, absl::AnyInvocable<void(absl::Status)> done);

  // Since when the oldest append that is not yet durable waits: what rule R8 asks when it judges a
  // sync overdue.
  std::optional<Instant> OldestPendingSince() const;

  // Payload and overhead bytes of the stream's records that are still needed.
  uint64_t RetainedBytes(StreamId stream) const;
  // Of an archived stream, those of entries above what is archived; 0 for others.
  uint64_t UnarchivedBytes(StreamId stream) const;

  // OK while the log takes appends; else why it does not.
  absl::Status Health() const;
  // Batches up to this one are durable, and the log never ends before it again: who keeps the
  // number elsewhere can tell at the next Open (Recovery::last_batch) that segments are missing.
  uint64_t LastDurableBatch() const;

  struct Stats {
    uint64_t segments_in_use = 0;
    uint64_t segment_file_bytes = 0;  // Of those.
    uint64_t segments_spare = 0;
    uint64_t segments_recycled = 0;
    uint64_t batches = 0;
    uint64_t records = 0;
    uint64_t written_bytes = 0;  // Blocks, whole.
    uint64_t copied_forward_records = 0;
    uint64_t queued_bytes = 0;
    uint64_t refused_queue_full = 0;
    uint64_t refused_no_space = 0;
    uint64_t refused_unarchived = 0;
    // Who keeps the log from shrinking: the stream with the most retained bytes, and of those with
    // records in the oldest segment in use, the one with the most. 0: none.
    StreamId largest_stream{};
    uint64_t largest_stream_bytes = 0;
    StreamId oldest_stream{};
    uint64_t oldest_stream_bytes = 0;
    uint64_t full_streams = 0;  // At max_unarchived_bytes.
  };
  Stats GetStats() const;

 private:
  explicit NodeLog(std::shared_ptr<Impl> impl);
  std::shared_ptr<Impl> impl_;
};

}  // namespace dynlib::store

#endif  // DYNLIB_STORE_NODE_LOG_H_
