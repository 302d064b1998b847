// The counts that decide which segment may be freed, recounted after every step of random
// histories.
#include "dynlib/store/node_log_index.h"

#include <cstdint>
#include <vector>

#include "dynlib/base/ids.h"
#include "dynlib/base/random.h"
#include "dynlib/store/log_format.h"
#include "dynlib/store/node_log_record.h"
#include "gtest/gtest.h"

namespace dynlib::store {
namespace {

class IndexHistory {
 public:
  explicit IndexHistory(uint64_t seed) : random_(seed) { Begin(); }

  void Step() {
    if (random_.Chance(0.1)) Begin();
    BatchHeader header = {.life = {.generation = generation_}, .sequence = ++sequence_};
    const std::vector<uint64_t> dead = index.DeadSegments(generation_);
    for (uint64_t generation : dead) index.MoveMarksOut(generation);
    header.frames = index.TakeDirtyMarks(30);
    const bool all_marks = !index.has_dirty_marks();
    if (random_.Chance(0.05)) Add(header, FrameKind::kDrop, sequence_ - 1);
    for (uint64_t i = random_.Between(0, 4); i > 0; --i) Add(header, AnyRecord(), AnySlot());
    std::vector<bool> damaged(header.frames.size());
    for (size_t i = 0; i < damaged.size(); ++i) damaged[i] = CanBeDamaged(header.frames[i]);
    index.Apply(header, 4096 * sequence_, damaged);
    if (all_marks) {
      for (uint64_t generation : dead) {
        index.Free(generation);
        ++freed;
      }
    }
    if (random_.Chance(0.3)) index.Release(AnyStream(), sequence_ / 2);
    if (random_.Chance(0.01)) index.LoseBatch(sequence_);
  }

  LogIndex index;
  int freed = 0;

 private:
  void Begin() { index.AddSegment({.generation = ++generation_, .number = generation_}); }
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
  uint64_t generation_ = 0;
  uint64_t sequence_ = 0;
};

TEST(LogIndexTest, CountsAgreeWithARecountAfterEveryStep) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    IndexHistory history(seed);
    for (int step = 0; step < 300; ++step) {
      history.Step();
      ASSERT_TRUE(history.index.CheckInvariants()) << "seed " << seed << " step " << step;
    }
    EXPECT_GT(history.freed, 5);
  }
}

}  // namespace
}  // namespace dynlib::store
