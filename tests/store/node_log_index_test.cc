// Random histories of batches, copying forward and freeing included. After every step the counts
// that decide which segment may be freed are recounted, and what is believed is compared with what
// a replay of the segments in use says.
#include "dynlib/store/node_log_index.h"

#include <algorithm>
#include <cstdint>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "absl/container/btree_map.h"
#include "dynlib/base/ids.h"
#include "dynlib/base/random.h"
#include "dynlib/store/log_format.h"
#include "dynlib/store/node_log_record.h"
#include "gtest/gtest.h"

namespace dynlib::store {
namespace {

class IndexHistory {
 public:
  explicit IndexHistory(uint64_t seed) : random_(seed), archive_(seed) {
    index.SetUnarchivedBound(500);
    Begin();
  }

  void Step() {
    if (random_.Chance(0.1)) Begin();
    if (random_.Chance(0.2)) return Copy();
    BatchHeader header = {.life = {.generation = generation_}, .sequence = ++sequence_};
    const std::vector<uint64_t> dead = index.DeadSegments(generation_);
    for (uint64_t generation : dead) index.MoveMarksOut(generation);
    header.frames = index.TakeDirtyMarks(30);
    const bool all_marks = !index.has_dirty_marks();
    if (random_.Chance(0.05)) Add(header, FrameKind::kDrop, sequence_ - 1);
    for (uint64_t i = random_.Between(0, 4); i > 0; --i) Add(header, AnyRecord(), AnySlot());
    std::vector<bool> damaged(header.frames.size());
    for (size_t i = 0; i < damaged.size(); ++i) damaged[i] = CanBeDamaged(header.frames[i]);
    Apply(header, damaged);
    if (all_marks) {
      for (uint64_t generation : dead) {
        index.Free(generation);
        batches_.erase(generation);
        ++freed;
      }
    }
    if (random_.Chance(0.3)) index.Release(AnyStream(), sequence_ / 2);
    if (random_.Chance(0.01)) index.LoseBatch(sequence_);
    if (archive_.Chance(0.1)) {
      index.SetArchived(StreamId{1 + archive_.Below(4)}, sequence_ / 2 + archive_.Below(8));
    }
    filled += static_cast<int>(index.full_streams().size());
  }

  // What the segments in use say.
  LogIndex Replay() const {
    LogIndex replayed;
    std::map<uint64_t, const Batch*> by_sequence;
    for (const auto& [generation, batches] : batches_) {
      replayed.AddSegment({.generation = generation, .number = generation});
      for (const Batch& batch : batches) by_sequence[batch.header.sequence] = &batch;
    }
    for (const auto& [sequence, batch] : by_sequence) replayed.ForetellDrops(batch->header);
    for (const auto& [sequence, batch] : by_sequence)
      replayed.Apply(batch->header, 4096 * sequence, batch->damaged);
    return replayed;
  }

  LogIndex index;
  int freed = 0;
  int copied = 0;
  int filled = 0;  // Steps after which a stream was full.

 private:
  struct Batch {
    BatchHeader header;
    std::vector<bool> damaged;
  };

  void Apply(const BatchHeader& header, const std::vector<bool>& damaged = {}) {
    index.Apply(header, 4096 * header.sequence, damaged);
    batches_[generation_].push_back({header, damaged});
  }
  // Some of what an older segment holds, in an order of its own.
  void Copy() {
    const uint64_t source = batches_.begin()->first;
    if (source == generation_) return;
    BatchHeader header = {
        .life = {.generation = generation_}, .sequence = ++sequence_, .copied_from = source};
    std::vector<LogIndex::LiveRecord> records = index.LiveRecordsOf(source);
    for (const LogIndex::LiveRecord& record : records) {
      if (random_.Chance(0.3)) continue;
      FrameInfo frame = {.stream = ToUint(record.stream),
                         .slot = record.slot,
                         .ballot = record.ref.ballot,
                         .payload_length = record.ref.length,
                         .kind = record.kind};
      if (record.kind == FrameKind::kEntry && random_.Chance(0.1)) {
        Damage(record);
        frame.kind = FrameKind::kUnknownEntry;
        frame.payload_length = 0;
      }
      header.frames.push_back(frame);
      if (const auto beside = index.UnknownBeside(record)) header.frames.push_back(*beside);
      ++copied;
    }
    Apply(header);
    for (const LogIndex::LiveRecord& record : records) {
      const bool taken =
          std::any_of(header.frames.begin(), header.frames.end(), [&](const FrameInfo& frame) {
            return frame.stream == ToUint(record.stream) && frame.slot == record.slot &&
                   frame.kind == record.kind;
          });
      ASSERT_FALSE(taken && index.StillLive(record)) << "copied, and needed where it was";
    }
  }
  // It cannot be read any more, which copying is the first to see.
  void Damage(const LogIndex::LiveRecord& record) {
    for (Batch& batch : batches_.at(record.ref.generation)) {
      if (batch.header.sequence != record.ref.sequence) continue;
      batch.damaged.resize(batch.header.frames.size());
      for (size_t i = 0; i < batch.damaged.size(); ++i) {
        const FrameInfo& frame = batch.header.frames[i];
        const bool same = frame.stream == ToUint(record.stream) && frame.slot == record.slot &&
                          frame.kind == record.kind;
        batch.damaged[i] = batch.damaged[i] || same;
      }
    }
  }
  void Begin() {
    batches_[generation_ + 1];
    index.AddSegment({.generation = ++generation_, .number = generation_});
  }
  void Add(BatchHeader& header, FrameKind kind, uint64_t slot) {
    header.frames.push_back({.stream = ToUint(AnyStream()),
                             .slot = slot,
                             .ballot = random_.Below(3),
                             .payload_length = static_cast<uint32_t>(random_.Below(100)),
                             .kind = kind});
  }
  StreamId AnyStream() { return StreamId{1 + random_.Below(4)}; }
  uint64_t AnySlot() { return sequence_ / 2 + random_.Below(10); }
  FrameKind AnyRecord() {
    constexpr FrameKind kKinds[] = {FrameKind::kEntry, FrameKind::kEntry, FrameKind::kState,
                                    FrameKind::kUnknownEntry, FrameKind::kUnknownState};
    return kKinds[random_.Below(5)];
  }
  bool CanBeDamaged(const FrameInfo& frame) {
    const bool record = frame.kind == FrameKind::kEntry || frame.kind == FrameKind::kState;
    return record && random_.Chance(0.1);
  }

  Random random_;
  Random archive_;
  std::map<uint64_t, std::vector<Batch>> batches_;  // in use, by generation
  uint64_t generation_ = 0;
  uint64_t sequence_ = 0;
};

using Refs = std::map<uint64_t, std::pair<uint64_t, uint64_t>>;  // slot; generation, ballot

Refs Needed(const absl::btree_map<uint64_t, LogIndex::Ref>& refs, uint64_t released) {
  Refs needed;
  for (const auto& [slot, ref] : refs) {
    if (slot > released) needed[slot] = {ref.generation, ref.ballot};
  }
  return needed;
}

Refs Needed(const std::optional<LogIndex::StateRef>& state) {
  if (!state.has_value()) return {};
  return {{state->slot, {state->ref.generation, state->ref.ballot}}};
}

// Releases that no batch says yet are known to the running log alone.
void ExpectSame(const LogIndex& running, const LogIndex& replayed) {
  for (const auto& [id, stream] : running.streams()) {
    const LogIndex::Stream* found = replayed.FindStream(id);
    const LogIndex::Stream other = found == nullptr ? LogIndex::Stream() : *found;
    const uint64_t released = stream.released_through;
    const Refs unknown = Needed(stream.unknown_entries, released);
    EXPECT_EQ(unknown, Needed(other.unknown_entries, released));
    Refs entries = Needed(stream.entries, released);
    Refs replayed_entries = Needed(other.entries, released);
    // Of a slot that is unknown, one of them may have what was there before.
    for (const auto& [slot, ref] : unknown) {
      entries.erase(slot);
      replayed_entries.erase(slot);
    }
    EXPECT_EQ(entries, replayed_entries);
    EXPECT_EQ(Needed(stream.state), Needed(other.state));
    EXPECT_EQ(Needed(stream.unknown_state), Needed(other.unknown_state));
  }
}

TEST(LogIndexTest, CountsAndReplayAgreeAfterEveryStep) {
  int filled = 0;
  for (uint64_t seed = 1; seed <= 100; ++seed) {
    IndexHistory history(seed);
    for (int step = 0; step < 300; ++step) {
      history.Step();
      ASSERT_TRUE(history.index.CheckInvariants()) << "seed " << seed << " step " << step;
      ExpectSame(history.index, history.Replay());
      ASSERT_FALSE(testing::Test::HasFailure()) << "seed " << seed << " step " << step;
    }
    EXPECT_GT(history.freed, 5);
    EXPECT_GT(history.copied, 10);
    filled += history.filled;
  }
  EXPECT_GT(filled, 100);
}

}  // namespace
}  // namespace dynlib::store
