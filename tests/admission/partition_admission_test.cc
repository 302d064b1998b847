#include "dynlib/admission/partition_admission.h"

#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "dynlib/admission/node_admission.h"
#include "dynlib/admission/request_units.h"
#include "dynlib/base/random.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace dynlib::admission {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::HasSubstr;

constexpr Instant kStart = Instant::FromNanos(5'000'000'000);

TEST(RequestUnits, FollowSizeAndConsistency) {
  EXPECT_EQ(ReadUnits(0, Consistency::kStrong).units(), 1);
  EXPECT_EQ(ReadUnits(4096, Consistency::kStrong).units(), 1);
  EXPECT_EQ(ReadUnits(4097, Consistency::kStrong).units(), 2);
  EXPECT_EQ(ReadUnits(4096, Consistency::kEventual).units(), 0.5);
  EXPECT_EQ(ReadUnits(9000, Consistency::kEventual).units(), 1.5);
  EXPECT_EQ(ReadUnits(4096, Consistency::kTransaction).units(), 2);
  EXPECT_EQ(WriteUnits(0).units(), 1);
  EXPECT_EQ(WriteUnits(1024).units(), 1);
  EXPECT_EQ(WriteUnits(1025).units(), 2);
  EXPECT_EQ(WriteUnits(1025, /*in_transaction=*/true).units(), 4);
  EXPECT_EQ(WriteUnits(400 * 1024).units(), 400);
}

class PartitionAdmissionTest : public ::testing::Test {
 protected:
  void SetUpWith(NodeAdmission::Options node, PartitionAdmission::Options partition) {
    node_ = *NodeAdmission::Create(node, kStart);
    partition_ = *PartitionAdmission::Create(partition, node_.get(), kStart);
  }
  // 100 reads and 10 writes a second; saves 300 seconds; a node with plenty.
  void SetUp() override {
    SetUpWith({}, {.read_units_per_second = 100, .write_units_per_second = 10});
  }
  Admission Read(int64_t units, Instant now) {
    return partition_->AdmitRead(RequestUnits::Whole(units), now);
  }
  Admission Write(int64_t units, Instant now) {
    return partition_->AdmitWrite(RequestUnits::Whole(units), now);
  }

  std::unique_ptr<NodeAdmission> node_;
  std::unique_ptr<PartitionAdmission> partition_;
};

TEST_F(PartitionAdmissionTest, AllocatedFirst) {
  const Admission first = Read(100, kStart);
  EXPECT_TRUE(first.admitted());
  EXPECT_EQ(first.level, Level::kAllocated);
  const Admission second = Read(1, kStart);
  EXPECT_FALSE(second.admitted());
  EXPECT_EQ(second.reason, Reason::kPartition);
  EXPECT_EQ(second.retry_after, Duration(milliseconds(10)));
  EXPECT_TRUE(Read(1, kStart + second.retry_after).admitted());
}

TEST_F(PartitionAdmissionTest, ReadsAndWritesHaveTheirOwn) {
  ASSERT_TRUE(Read(100, kStart).admitted());
  EXPECT_TRUE(Write(10, kStart).admitted());
  EXPECT_FALSE(Write(1, kStart).admitted());
}

TEST_F(PartitionAdmissionTest, SavesUnusedCapacityForThreeHundredSeconds) {
  const Instant later = kStart + seconds(1000);
  ASSERT_EQ(Read(100, later).level, Level::kAllocated);
  int64_t burst = 0;
  for (Admission a = Read(100, later); a.admitted(); a = Read(100, later)) {
    EXPECT_EQ(a.level, Level::kBurst);
    burst += 100;
  }
  // The allocated hundred came out of the saved ones too.
  EXPECT_EQ(burst, 300 * 100 - 100);
}

// What is used is not saved.
TEST_F(PartitionAdmissionTest, ABusyPartitionSavesNothing) {
  Instant now = kStart;
  for (int i = 0; i < 1000; ++i, now = now + milliseconds(100)) {
    ASSERT_EQ(Read(10, now).level, Level::kAllocated) << i;
  }
  EXPECT_LE(partition_->Remaining(Operation::kRead, Level::kBurst, now).units(), 10);
}

TEST_F(PartitionAdmissionTest, ABurstNeedsTheNode) {
  SetUpWith({.read_units_per_second = 150}, {.read_units_per_second = 100});
  const Instant later = kStart + seconds(100);
  ASSERT_TRUE(Read(100, later).admitted());
  ASSERT_EQ(Read(50, later).level, Level::kBurst);
  const auto saved = partition_->Remaining(Operation::kRead, Level::kBurst, later);
  const Admission refused = Read(30, later);
  EXPECT_EQ(refused.reason, Reason::kNode);
  EXPECT_NEAR(static_cast<double>(refused.retry_after.count()), 200e6, 1);
  EXPECT_EQ(partition_->Remaining(Operation::kRead, Level::kBurst, later), saved);
}

// It was promised; the node goes into debt for it.
TEST_F(PartitionAdmissionTest, TheAllocatedIsAdmittedOnABusyNode) {
  SetUpWith({.read_units_per_second = 50}, {.read_units_per_second = 100});
  EXPECT_EQ(Read(100, kStart).level, Level::kAllocated);
  EXPECT_EQ(node_->bucket(Operation::kRead).Remaining(kStart), -100);  // halves
}

class PeersTest : public PartitionAdmissionTest {
 protected:
  void SetUp() override {
    PartitionAdmissionTest::SetUp();
    a_ = node_->Peer(NodeId{2});
    b_ = node_->Peer(NodeId{3});
    PeerNode* const peers[] = {a_, b_};
    partition_->SetPeers(peers);
    now_ = kStart + seconds(100);
    ASSERT_EQ(Write(10, now_).level, Level::kAllocated);
  }
  PeerNode* a_ = nullptr;
  PeerNode* b_ = nullptr;
  Instant now_;
};

TEST_F(PeersTest, ABurstWriteNeedsEveryPeer) {
  EXPECT_EQ(Write(1, now_).reason, Reason::kPeers);  // Not heard of.
  a_->Report(RequestUnits::Whole(100), now_);
  EXPECT_EQ(Write(1, now_).reason, Reason::kPeers);
  b_->Report(RequestUnits::Whole(3), now_);
  EXPECT_EQ(Write(1, now_).level, Level::kBurst);
  EXPECT_EQ(Write(3, now_).reason, Reason::kPeers);
  EXPECT_EQ(Write(2, now_).level, Level::kBurst);
  const Admission refused = Write(1, now_);
  EXPECT_EQ(refused.reason, Reason::kPeers);
  EXPECT_GT(refused.retry_after, Duration(0));
  EXPECT_LE(refused.retry_after, Duration(seconds(1)));
}

TEST_F(PeersTest, ARefusalLeavesNoTrace) {
  a_->Report(RequestUnits::Whole(5), now_);
  b_->Report(RequestUnits::Whole(0), now_);
  const auto saved = partition_->Remaining(Operation::kWrite, Level::kBurst, now_);
  const auto node = node_->WriteRemaining(now_);
  for (int i = 0; i < 100; ++i) ASSERT_EQ(Write(1, now_).reason, Reason::kPeers);
  EXPECT_EQ(partition_->Remaining(Operation::kWrite, Level::kBurst, now_), saved);
  EXPECT_EQ(node_->WriteRemaining(now_), node);
  b_->Report(RequestUnits::Whole(5), now_);
  EXPECT_TRUE(Write(5, now_).admitted());
}

TEST_F(PeersTest, AnOldFigureCountsAsNone) {
  a_->Report(RequestUnits::Whole(1000), now_);
  b_->Report(RequestUnits::Whole(1000), now_);
  const Instant later = now_ + seconds(3);
  ASSERT_TRUE(Write(10, later).admitted());
  EXPECT_EQ(Write(1, later).level, Level::kBurst);
  EXPECT_EQ(Write(20, later + Duration(1)).reason, Reason::kPeers);
}

TEST_F(PeersTest, ReadsAndAllocatedWritesAskNoPeer) {
  EXPECT_TRUE(Write(10, now_ + seconds(1)).admitted());
  EXPECT_TRUE(Read(3000, now_).admitted());
}

TEST_F(PeersTest, UndoPutsEverythingBack) {
  a_->Report(RequestUnits::Whole(5), now_);
  b_->Report(RequestUnits::Whole(5), now_);
  const auto saved = partition_->Remaining(Operation::kWrite, Level::kBurst, now_);
  const auto node = node_->WriteRemaining(now_);
  for (int i = 0; i < 10; ++i) {
    const Admission admission = Write(5, now_);
    ASSERT_EQ(admission.level, Level::kBurst);
    partition_->Undo(admission, now_);
  }
  EXPECT_EQ(partition_->Remaining(Operation::kWrite, Level::kBurst, now_), saved);
  EXPECT_EQ(node_->WriteRemaining(now_), node);
}

TEST_F(PartitionAdmissionTest, UndoOfAnAllocatedOne) {
  const Admission admission = Read(100, kStart);
  partition_->Undo(admission, kStart);
  EXPECT_EQ(Read(100, kStart).level, Level::kAllocated);
}

TEST_F(PartitionAdmissionTest, AdjustsToWhatItReallyCost) {
  Admission admission = Read(10, kStart);
  partition_->Adjust(admission, RequestUnits::Whole(130), kStart);
  EXPECT_EQ(admission.units, RequestUnits::Whole(130));
  EXPECT_EQ(Read(1, kStart).retry_after, Duration(milliseconds(310)));
  partition_->Adjust(admission, RequestUnits::Whole(40), kStart);
  EXPECT_EQ(partition_->Remaining(Operation::kRead, Level::kAllocated, kStart),
            RequestUnits::Whole(60));
}

TEST_F(PartitionAdmissionTest, TooLargeIsNever) {
  SetUpWith({}, {.read_units_per_second = 1, .request_units_max = 400});
  const Admission refused = Read(401, kStart);
  EXPECT_EQ(refused.reason, Reason::kTooLarge);
  EXPECT_EQ(refused.retry_after, Duration::max());
  EXPECT_EQ(Read(400, kStart).reason, Reason::kPartition);
}

TEST_F(PartitionAdmissionTest, CapacityChangesAtOnce) {
  ASSERT_TRUE(Read(100, kStart).admitted());
  ASSERT_TRUE(partition_->SetCapacity(1000, 10, kStart).ok());
  EXPECT_EQ(Read(1, kStart).retry_after, Duration(milliseconds(1)));
  const absl::Status bad = partition_->SetCapacity(0, 10, kStart);
  EXPECT_EQ(bad.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(bad.message()), HasSubstr("read_units_per_second"));
}

TEST_F(PartitionAdmissionTest, OptionsAreChecked) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const std::pair<PartitionAdmission::Options, const char*> bad[] = {
      {{.read_units_per_second = -1}, "read_units_per_second"},
      {{.write_units_per_second = nan}, "write_units_per_second"},
      {{.allocated_seconds = 0}, "allocated_seconds"},
      {{.burst_seconds = 1e9}, "burst_seconds"},
      {{.request_units_max = 0}, "request_units_max"},
      {{.peers_retry = Duration(0)}, "peers_retry"}};
  for (const auto& [options, field] : bad) {
    const auto made = PartitionAdmission::Create(options, node_.get(), kStart);
    EXPECT_EQ(made.status().code(), absl::StatusCode::kInvalidArgument) << field;
    EXPECT_THAT(std::string(made.status().message()), HasSubstr(field));
  }
  EXPECT_EQ(NodeAdmission::Create({.read_units_per_second = nan}, kStart).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST_F(PartitionAdmissionTest, PeersAreBounded) {
  SetUpWith({.peers_max = 2}, {});
  EXPECT_NE(node_->Peer(NodeId{1}), nullptr);
  EXPECT_NE(node_->Peer(NodeId{2}), nullptr);
  EXPECT_EQ(node_->Peer(NodeId{3}), nullptr);
  EXPECT_EQ(node_->Peer(NodeId{1}), node_->Peer(NodeId{1}));
}

// Over any time: capacity * (time + allocated_seconds) and what the burst bucket holds.
TEST_F(PartitionAdmissionTest, NeverMoreThanCapacityAndSavings) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    Random random(seed);
    SetUpWith({}, {.read_units_per_second = 50,
                   .allocated_seconds = 2,
                   .burst_seconds = 60,
                   .request_units_max = 1,
                   .burst_starts_full = random.Chance(0.5)});
    Instant now = kStart, latest = kStart;
    double admitted = 0;
    for (int i = 0; i < 3000; ++i) {
      now = random.Chance(0.05) ? kStart + Duration(random.Between(0, 600'000'000'000))
                                : now + Duration(random.Between(0, 50'000'000));
      latest = std::max(latest, now);
      Admission a = Read(random.Between(1, 60), now);
      if (!a.admitted()) continue;
      if (random.Chance(0.2)) {
        partition_->Undo(a, now);
      } else {
        admitted += a.units.units();
      }
      const double time = static_cast<double>((latest - kStart).count()) / 1e9;
      ASSERT_LE(admitted, 50 * (time + 2 + 60) + 1e-6) << "seed " << seed;
    }
  }
}

}  // namespace
}  // namespace dynlib::admission
