#include "dynlib/replication/slot_log.h"

#include <map>
#include <memory>
#include <string>

#include "dynlib/base/random.h"
#include "gtest/gtest.h"

namespace dynlib::replication {
namespace {

Ballot At(uint64_t round) { return Ballot(round, ReplicaId{1}); }
Payload Bytes(size_t n) { return std::make_shared<const std::string>(n, 'x'); }

TEST(SlotLogTest, HoldsWhatWasPut) {
  SlotLog log;
  EXPECT_EQ(log.Find(1), nullptr);
  log.Put(2, At(1), Bytes(3), false);
  EXPECT_EQ(log.last(), 2u);
  ASSERT_NE(log.Find(1), nullptr);  // A gap, not an end.
  EXPECT_FALSE(log.Find(1)->held());
  EXPECT_TRUE(log.Find(2)->held());
  EXPECT_EQ(log.Find(3), nullptr);
}

TEST(SlotLogTest, R4UnknownIsClearedByTheSameOrAHigherBallotOnly) {
  SlotLog log;
  log.MarkUnknown(1, At(5));
  log.Put(1, At(4), Bytes(1), true);
  EXPECT_EQ(log.Find(1)->unknown, At(5));
  log.Put(1, At(5), Bytes(1), true);
  EXPECT_EQ(log.Find(1)->unknown, Ballot());
}

TEST(SlotLogTest, R4UnknownBelowWhatIsHeldDoesNotMatter) {
  SlotLog log;
  log.Put(1, At(5), Bytes(1), true);
  log.MarkUnknown(1, At(5));
  EXPECT_EQ(log.Find(1)->unknown, Ballot());
  log.MarkUnknown(1, At(6));
  log.MarkUnknown(1, At(5));
  EXPECT_EQ(log.Find(1)->unknown, At(6));
}

TEST(SlotLogTest, ReleaseBeyondTheEndMovesTheStart) {
  SlotLog log;
  log.Put(1, At(1), Bytes(1), true);
  log.Release(10);
  EXPECT_EQ(log.released(), 10u);
  EXPECT_EQ(log.last(), 10u);
  EXPECT_EQ(log.bytes(), 0u);
  log.MarkUnknown(10, At(1));
  EXPECT_EQ(log.last(), 10u);
}

TEST(SlotLogTest, AgreesWithAMapUnderRandomUse) {
  Random random(3);
  SlotLog log;
  std::map<Slot, size_t> model;
  Slot released = 0;
  for (int i = 0; i < 20'000; ++i) {
    const Slot slot = released + 1 + random.Below(30);
    if (random.Chance(0.05)) {
      released += random.Below(20);
      log.Release(released);
      model.erase(model.begin(), model.upper_bound(released));
    } else {
      const size_t size = random.Below(100);
      log.Put(slot, At(1), Bytes(size), true);
      model[slot] = size;
    }
    size_t bytes = 0;
    for (const auto& [at, size] : model) bytes += size;
    ASSERT_EQ(log.bytes(), bytes);
    ASSERT_EQ(log.released(), released);
    for (Slot at = released; at <= log.last(); ++at) {
      const SlotLog::Cell* cell = log.Find(at);
      ASSERT_EQ(cell != nullptr && cell->held(), model.contains(at));
    }
  }
}

}  // namespace
}  // namespace dynlib::replication
