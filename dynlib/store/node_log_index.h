// What the node log has in memory of what it has on disk: for each stream where its needed records
// are, for each segment how much in it is needed. Payloads are not kept.
//
// A pure state machine: replaying the batches at Open and applying each batch once it is durable
// are the same function, so what a running log believes is what a recovery would find.
//
// Threads: one at a time.
#ifndef DYNLIB_STORE_NODE_LOG_INDEX_H_
#define DYNLIB_STORE_NODE_LOG_INDEX_H_

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/container/btree_set.h"
#include "dynlib/store/log_format.h"
#include "dynlib/store/node_log_record.h"

namespace dynlib::store {

class LogIndex {
 public:
  // Where a record is. Of an unknown one, where the listing is that names it.
  struct Ref {
    uint64_t generation = 0;
    uint64_t sequence = 0;
    uint64_t ballot = 0;
    uint64_t checksum = 0;
    uint32_t offset = 0;  // Of the payload, in its segment.
    uint32_t length = 0;
    friend bool operator==(const Ref&, const Ref&) = default;
  };
  struct StateRef {
    uint64_t slot = 0;
    Ref ref;
  };
  struct Stream {
    absl::btree_map<uint64_t, Ref> entries;  // By slot.
    absl::btree_map<uint64_t, Ref> unknown_entries;
    std::optional<StateRef> state;
    std::optional<StateRef> unknown_state;
    uint64_t retained_bytes = 0;
    // Of an archived stream: what its owner says is archived, and what is retained above it.
    std::optional<uint64_t> archived_through;
    uint64_t unarchived_bytes = 0;

    // The marks: what is not true of a record but of the stream. They must be on disk for as long
    // as a segment in use holds records that they outlaw.
    uint64_t released_through = 0;
    uint64_t drop_sequence = 0;  // What batches up to this one hold of the stream is dead.
    bool lost = false;
    uint64_t mark_generation = 0;  // The segment in which the marks stand; 0: in none.
    uint64_t segments = 0;         // In use that hold records of this stream, needed or not.
    uint64_t noted_segment = 0;    // The one that was last counted in.
  };
  struct Segment {
    uint64_t generation = 0;
    uint64_t number = 0;
    uint64_t segment_bytes = 0;
    uint32_t block_bytes = 0;
    uint64_t first_sequence = 0;
    uint64_t last_sequence = 0;
    bool torn = false;  // The last batch was found torn by a recovery.
    uint64_t live_records = 0;
    uint64_t live_bytes = 0;
    absl::btree_set<StreamId> streams;  // Of which it holds records, needed or not.
    absl::btree_set<StreamId> marks;    // Whose marks stand in it.
  };
  struct Gap {
    uint64_t first = 0;
    uint64_t last = 0;
  };
  static constexpr size_t kMaxGaps = 32;

  void AddSegment(const Segment& segment);
  void SetTorn(uint64_t generation);
  // A batch of that sequence, now missing, may have been in it.
  void ExtendSegment(uint64_t generation, uint64_t last_sequence);

  // For a replay, of each batch before the first is applied. A drop's mark may have moved to a
  // batch behind records that were appended after the drop: those must not lose to what it outlaws.
  void ForetellDrops(const BatchHeader& header);

  // A batch that is durable, at `offset` of its segment. `damaged` names the frames whose payload
  // does not verify: unknown, by the listing (rule R4); unless `damage_is_harmless`, that of a copy
  // whose original is there. Batches come in the order of sequences.
  void Apply(const BatchHeader& header, uint64_t offset, const std::vector<bool>& damaged = {},
             bool damage_is_harmless = false);

  // The caller of the log says that entries are no longer needed.
  void Release(StreamId stream, uint64_t through_slot);
  // Entries through this slot are archived; makes an archived stream of it. Kept in memory alone.
  void SetArchived(StreamId stream, uint64_t through_slot);
  // Streams whose unarchived bytes reach the bound are full. Once, before there are any.
  void SetUnarchivedBound(uint64_t bytes) { unarchived_bound_ = bytes; }
  const std::set<StreamId>& full_streams() const { return full_streams_; }
  // A batch of sequence `lost` is missing: every stream that may have had records in it is marked.
  void LoseBatch(uint64_t lost);
  void AddGap(Gap gap);
  // What was taken for readable is not.
  void MakeUnknown(StreamId stream, RecordKind kind, uint64_t slot, const Ref& ref);

  // Takes up to `max_frames` frames of marks that are not on disk yet, all of a stream or none.
  std::vector<FrameInfo> TakeDirtyMarks(size_t max_frames);
  bool has_dirty_marks() const { return !dirty_marks_.empty(); }
  // Marks of `frames` that were not written after all.
  void ReturnMarks(const std::vector<FrameInfo>& frames);

  // Closed segments (all but `active`) that hold nothing needed, but perhaps marks.
  std::vector<uint64_t> DeadSegments(uint64_t active) const;
  bool has_dead_segments(uint64_t active) const {
    return empty_segments_.size() > empty_segments_.count(active);
  }
  // Makes the marks that stand in the segment, and are still needed elsewhere, dirty. True if there
  // are none (left).
  bool MoveMarksOut(uint64_t generation);
  // The segment is no longer in use. It must be dead.
  Segment Free(uint64_t generation);

  // What copying the segment forward has to copy: needed records, then unknown ones.
  struct LiveRecord {
    StreamId stream{};
    FrameKind kind = FrameKind::kEntry;
    uint64_t slot = 0;
    Ref ref;
  };
  std::vector<LiveRecord> LiveRecordsOf(uint64_t generation) const;
  bool StillLive(const LiveRecord& record) const;
  // What is unknown of the record's slot, or of its stream's state, though the record is there. A
  // batch that copies the record says it again behind it, for any record settles what was unknown
  // before it.
  std::optional<FrameInfo> UnknownBeside(const LiveRecord& record) const;

  // Frames that open a new segment: all segments in use and the gaps that still matter.
  std::vector<FrameInfo> OpeningFrames() const;

  const std::map<StreamId, Stream>& streams() const { return streams_; }
  const std::map<uint64_t, Segment>& segments() const { return segments_; }  // By generation.
  const std::vector<Gap>& gaps() const { return gaps_; }
  const Stream* FindStream(StreamId stream) const;

  // Recounts everything from scratch and compares: for tests.
  bool CheckInvariants() const;

 private:
  void ApplyRecord(const FrameInfo& frame, const Ref& ref);
  void ApplyDamaged(const FrameInfo& frame, const Ref& ref);
  void ApplyMark(const BatchHeader& header, const FrameInfo& frame);
  void ApplyDrop(StreamId id, uint64_t through_sequence);
  void ApplyUnknown(const BatchHeader& header, const FrameInfo& frame, const Ref& ref);
  bool IsForetoldDead(StreamId id, uint64_t sequence) const;
  bool PlaceEntry(StreamId id, Stream& stream, uint64_t slot, const Ref& ref);
  void PlaceUnknown(StreamId id, Stream& stream, RecordKind kind, uint64_t slot, const Ref& ref);
  void DropReleased(StreamId id, Stream& stream, absl::btree_map<uint64_t, Ref>& refs);
  // `slot` is that of an entry; 0 for a state.
  void Hold(StreamId id, Stream& stream, uint64_t slot, const Ref& ref);
  void LetGo(StreamId id, Stream& stream, uint64_t slot, const Ref& ref);
  void LetGo(StreamId id, Stream& stream, std::optional<StateRef>& state);
  void NoteSegment(StreamId id, Stream& stream, uint64_t generation);
  void NoteFullness(StreamId id, const Stream& stream);
  void ForgetIfEmpty(StreamId id);

  std::map<StreamId, Stream> streams_;
  std::map<uint64_t, Segment> segments_;
  std::set<uint64_t> empty_segments_;  // Generations of those that hold nothing needed.
  std::vector<Gap> gaps_;
  std::set<StreamId> dirty_marks_;
  std::map<StreamId, uint64_t> foretold_drops_;  // As Stream::drop_sequence.
  uint64_t unarchived_bound_ = UINT64_MAX;
  std::set<StreamId> full_streams_;
};

}  // namespace dynlib::store

#endif  // DYNLIB_STORE_NODE_LOG_INDEX_H_
