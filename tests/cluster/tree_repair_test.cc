// Repairs of one tree: what is taken over from a good copy, and what is left alone.
#include "dynlib/cluster/tree_repair.h"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/base/time.h"
#include "dynlib/cluster/cluster.pb.h"
#include "dynlib/cluster/scrub_codec.h"
#include "dynlib/cluster/scrub_pins.h"
#include "dynlib/cluster/table_state_machine.h"
#include "dynlib/scrub/range_digester.h"
#include "dynlib/scrub/types.h"
#include "dynlib/sim/disk.h"
#include "dynlib/store/page_file.h"
#include "dynlib/store/tree.h"
#include "dynlib/store/write_batch.h"
#include "dynlib/testing/status_matchers.h"
#include "gtest/gtest.h"

namespace dynlib::cluster {
namespace {

std::string Id(int i) { return "i" + std::to_string(1000 + i); }

// A replica's tree with a few items beside its description, and a version pinned at a marker.
class RepairTest : public testing::Test {
 protected:
  static constexpr uint64_t kScrub = 9;

  RepairTest() : disk_(1) {
    Open();
    EXPECT_THAT(TableStateMachine::Initialise(*tree_, "the description"), IsOk());
    for (int i = 0; i < 20; ++i) Write(i, "right");
  }
  void Open() {
    pins_.ReleaseAll();
    pages_ = nullptr;
    pages_ = *store::PageFile::Open({}, &disk_, "pages");
    tree_ = pages_->FindTree(store::TreeId{7});
    if (tree_ == nullptr) tree_ = *pages_->CreateTree(store::TreeId{7});
  }
  // By the log.
  void Write(int i, std::optional<std::string> value) {
    const std::string key = TableStateMachine::ItemKey(Id(i));
    pins_.Written(key);
    store::WriteBatch batch;
    if (value.has_value()) {
      batch.Put(key, *value);
    } else {
      batch.Delete(key);
    }
    ASSERT_THAT(tree_->Apply(batch, tree_->position() + 1), IsOk());
  }
  std::optional<std::string> Read(int i) {
    return *tree_->snapshot().Get(TableStateMachine::ItemKey(Id(i)));
  }
  static void Ask(wire::RepairRequest& request, int i, std::string_view right) {
    wire::RepairRequest::Item& item = *request.add_items();
    item.set_key(Id(i));
    if (!right.empty()) item.set_digest(EncodeDigest(scrub::DigestItem(Id(i), right)));
  }
  // With everything that a good copy has: "right", but for what is to be absent.
  TreeRepair::Outcome Repair(wire::RepairRequest request, int absent = -1) {
    request.set_scrub(kScrub);
    absl::StatusOr<TreeRepair> repair = TreeRepair::Make(request, *pins_.Find(kScrub, Instant()));
    EXPECT_THAT(repair, IsOk());
    EXPECT_THAT(repair->Examine(), IsOk());
    for (const scrub::KeyRange& range : repair->wanted()) {
      for (int i = 0; i < 20; ++i) {
        if (i == absent || Id(i) < range.first || !scrub::IsBefore(Id(i), range.end)) continue;
        EXPECT_THAT(repair->AddRow(Id(i), "right"), IsOk());
      }
    }
    return repair->Apply(*tree_, pins_);
  }

  sim::SimDisk disk_;
  std::unique_ptr<store::PageFile> pages_;
  store::Tree* tree_ = nullptr;
  ScrubPins pins_;
};

TEST_F(RepairTest, WhatTheLogWroteSinceTheMarkerIsLeft) {
  Write(1, "wrong");
  Write(2, "wrong");
  Write(3, "extra");
  Write(4, "extra");
  pins_.Pin(kScrub, tree_->snapshot());
  // The same again, and by the log this time.
  Write(2, "wrong");
  Write(4, "extra");
  wire::RepairRequest request;
  Ask(request, 1, "right");
  Ask(request, 2, "right");
  const TreeRepair::Outcome outcome = Repair(request);
  EXPECT_THAT(outcome.status, IsOk());
  EXPECT_EQ(outcome.repaired, 1u);
  EXPECT_EQ(outcome.changed, 1u);
  EXPECT_EQ(Read(1), "right");
  EXPECT_EQ(Read(2), "wrong");
  wire::RepairRequest absent;
  Ask(absent, 3, "");
  EXPECT_EQ(Repair(absent, 3).repaired, 1u);
  EXPECT_EQ(Read(3), std::nullopt);
  wire::RepairRequest written;
  Ask(written, 4, "");
  EXPECT_EQ(Repair(written, 4).changed, 1u);
  EXPECT_EQ(Read(4), "extra");
}

TEST_F(RepairTest, ACopyThatIsNotWhatWasAgreedIsNotTaken) {
  Write(1, "wrong");
  pins_.Pin(kScrub, tree_->snapshot());
  wire::RepairRequest request;
  Ask(request, 1, "something else");
  EXPECT_THAT(Repair(request).status, StatusIs(absl::StatusCode::kDataLoss));
  EXPECT_EQ(Read(1), "wrong");
}

TEST_F(RepairTest, APageWithTheDescriptionThatIsLostMakesAReplicaToBeReplaced) {
  ASSERT_THAT(pages_->CheckpointTwice(), IsOk());
  const std::string bytes = disk_.ReadRaw("pages");
  for (size_t at = bytes.find("the description"); at != bytes.npos;
       at = bytes.find("the description", at + 1))
    disk_.FlipBit("pages", at * 8);
  // In memory it is whole.
  pins_.Pin(kScrub, tree_->snapshot());
  wire::RepairRequest request;
  Ask(request, 1, "right");
  TreeRepair::Outcome outcome = Repair(request);
  EXPECT_THAT(outcome.status, IsOk());
  EXPECT_EQ(outcome.repaired, 1u);
  Open();  // Without a checkpoint the repair is lost.
  pins_.Pin(kScrub, tree_->snapshot());
  outcome = Repair(request);
  EXPECT_TRUE(outcome.rebuild);
  EXPECT_EQ(outcome.repaired, 0u);
}

TEST(TreeRepairTest, ADamagedDescriptionUnderMemoryIsWrittenAnew) {
  sim::SimDisk disk(1);
  auto pages = *store::PageFile::Open({}, &disk, "pages");
  store::Tree* tree = *pages->CreateTree(store::TreeId{7});
  const std::string description = "the description of a replica";
  ASSERT_THAT(TableStateMachine::Initialise(*tree, description), IsOk());
  store::WriteBatch items;
  for (int i = 0; i < 20; ++i) items.Put(TableStateMachine::ItemKey(Id(i)), "item");
  ASSERT_THAT(tree->Apply(items, 5), IsOk());
  ASSERT_THAT(pages->Checkpoint(), IsOk());
  EXPECT_FALSE(TreeRepair::MetadataIsDamaged(tree->snapshot()));
  disk.FlipBit("pages", (disk.ReadRaw("pages").rfind(description) + 3) * 8);
  EXPECT_TRUE(TreeRepair::MetadataIsDamaged(tree->snapshot()));
  ASSERT_THAT(TreeRepair::RepairMetadata(*tree), IsOk());
  ASSERT_THAT(pages->Checkpoint(), IsOk());
  EXPECT_FALSE(TreeRepair::MetadataIsDamaged(tree->snapshot()));
  pages = nullptr;
  pages = *store::PageFile::Open({}, &disk, "pages");
  tree = pages->FindTree(store::TreeId{7});
  EXPECT_THAT(TableStateMachine::Describe(*tree), IsOkAndHolds(description));
  EXPECT_EQ(tree->position(), 5u);
  disk.FlipBit("pages", (disk.ReadRaw("pages").rfind(description) + 3) * 8);
  pages = nullptr;
  pages = *store::PageFile::Open({}, &disk, "pages");
  EXPECT_THAT(TreeRepair::RepairMetadata(*pages->FindTree(store::TreeId{7})),
              StatusIs(absl::StatusCode::kDataLoss));
}

}  // namespace
}  // namespace dynlib::cluster
