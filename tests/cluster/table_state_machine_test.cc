#include "dynlib/cluster/table_state_machine.h"

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "dynlib/base/random.h"
#include "dynlib/cluster/cluster.pb.h"
#include "dynlib/cluster/condition.h"
#include "dynlib/cluster/item.h"
#include "dynlib/sim/disk.h"
#include "dynlib/store/page.h"
#include "dynlib/store/page_file.h"
#include "dynlib/store/tree.h"
#include "dynlib/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace dynlib::cluster {
namespace {

using replication::AppliedCommand;
using replication::SessionRecord;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Pair;

std::string MakeItem(int version) { return EncodeItem({{"version", Value::Number(version)}}); }

std::string Put(std::string_view key, int version, const Condition& condition = {}) {
  wire::WriteCommand command;
  command.set_key(std::string(key));
  command.set_put(MakeItem(version));
  if (!condition.empty()) command.set_condition(EncodeCondition(condition));
  return command.SerializeAsString();
}

std::string Erase(std::string_view key) {
  wire::WriteCommand command;
  command.set_key(std::string(key));
  command.set_erase(true);
  return command.SerializeAsString();
}

Condition VersionIs(int version) {
  return {{{"version", Clause::Op::kEqual, Value::Number(version)}}};
}
Condition Absent() { return {{{"version", Clause::Op::kNotExists, {}}}}; }

class TableStateMachineTest : public testing::Test {
 protected:
  TableStateMachineTest() { Open(); }

  void Open() {
    store::PageFile::Options options;
    options.growth_bytes_min = 64 << 10;
    pages_ = *store::PageFile::Open(options, &disk_, "pages");
    tree_ = pages_->FindTree(store::TreeId{1});
    if (tree_ == nullptr) tree_ = *pages_->CreateTree(store::TreeId{1});
    machine_ = std::make_unique<TableStateMachine>(tree_);
  }

  // Whether each command took effect, in one step.
  std::vector<bool> Evaluate(const std::vector<std::string>& commands) {
    std::vector<AppliedCommand> applied;
    Slot slot = machine_->applied();
    for (const std::string& command : commands) applied.push_back({++slot, command});
    std::vector<std::string> results;
    DYNLIB_EXPECT_OK(machine_->Evaluate(applied, &results));
    EXPECT_EQ(results.size(), commands.size());
    std::vector<bool> took;
    for (const std::string& result : results) {
      wire::WriteResult told;
      EXPECT_TRUE(told.ParseFromString(result));
      took.push_back(!told.condition_failed());
    }
    return took;
  }
  std::vector<bool> Apply(const std::vector<std::string>& commands,
                          const std::vector<SessionRecord>& sessions = {}) {
    std::vector<bool> took = Evaluate(commands);
    DYNLIB_EXPECT_OK(machine_->Publish(
        {.sessions = sessions, .through = machine_->applied() + commands.size()}));
    return took;
  }

  std::vector<std::pair<std::string, std::string>> Items(std::string_view first = "",
                                                         std::string_view end = "",
                                                         bool reverse = false, size_t max = 100) {
    std::vector<std::pair<std::string, std::string>> items;
    DYNLIB_EXPECT_OK(
        machine_->Scan(first, end, reverse, [&](std::string_view key, std::string_view item) {
          items.emplace_back(key, item);
          return items.size() < max;
        }));
    return items;
  }
  std::vector<std::string> Keys(std::string_view first = "", std::string_view end = "",
                                bool reverse = false, size_t max = 100) {
    std::vector<std::string> keys;
    for (auto& [key, item] : Items(first, end, reverse, max)) keys.push_back(key);
    return keys;
  }
  std::map<std::string, std::string> Sessions() {
    std::map<std::string, std::string> sessions;
    DYNLIB_EXPECT_OK(machine_->LoadSessions(
        [&](std::string_view key, std::string_view value) { sessions.emplace(key, value); }));
    return sessions;
  }

  sim::SimDisk disk_{1};
  std::unique_ptr<store::PageFile> pages_;
  store::Tree* tree_ = nullptr;
  std::unique_ptr<TableStateMachine> machine_;
};

TEST_F(TableStateMachineTest, PutsAndErases) {
  EXPECT_THAT(Apply({Put("a", 1), Put("b", 2)}), ElementsAre(true, true));
  EXPECT_THAT(machine_->Get("a"), IsOkAndHolds(MakeItem(1)));
  EXPECT_EQ(machine_->applied(), 2u);
  EXPECT_THAT(Apply({Erase("a"), Erase("never there")}), ElementsAre(true, true));
  EXPECT_THAT(machine_->Get("a"), IsOkAndHolds(std::nullopt));
  EXPECT_THAT(Items(), ElementsAre(Pair("b", MakeItem(2))));
}

TEST_F(TableStateMachineTest, EachCommandOfAStepSeesThoseBeforeIt) {
  EXPECT_THAT(Apply({Put("k", 1, Absent()), Put("k", 2, Absent()), Put("k", 3, VersionIs(1)),
                     Put("k", 4, VersionIs(1)), Erase("k"), Put("k", 5, VersionIs(3)),
                     Put("k", 6, Absent()), Put("other", 7, VersionIs(6))}),
              ElementsAre(true, false, true, false, true, false, true, false));
  EXPECT_THAT(Items(), ElementsAre(Pair("k", MakeItem(6))));
}

TEST_F(TableStateMachineTest, StepsOfAnySizeGiveTheSame) {
  std::vector<std::string> commands;
  Random random(4);
  for (int i = 0; i < 300; ++i) {
    const std::string key(1, static_cast<char>('a' + random.Below(4)));
    switch (random.Below(3)) {
      case 0:
        commands.push_back(Put(key, static_cast<int>(random.Below(3)),
                               VersionIs(static_cast<int>(random.Below(3)))));
        break;
      case 1:
        commands.push_back(Put(key, static_cast<int>(random.Below(3)), Absent()));
        break;
      default:
        commands.push_back(Erase(key));
    }
  }
  std::vector<bool> one_by_one;
  for (const std::string& command : commands) one_by_one.push_back(Apply({command})[0]);
  const auto items = Items();
  pages_ = nullptr;
  DYNLIB_ASSERT_OK(disk_.Remove("pages"));
  Open();
  EXPECT_EQ(Apply(commands), one_by_one);
  EXPECT_EQ(Items(), items);
}

TEST_F(TableStateMachineTest, EvaluatedEffectsShowOnlyWhenPublished) {
  Apply({Put("k", 1)});
  EXPECT_THAT(Evaluate({Put("k", 2, VersionIs(1)), Put("new", 3)}), ElementsAre(true, true));
  EXPECT_THAT(Items(), ElementsAre(Pair("k", MakeItem(1))));
  EXPECT_EQ(machine_->applied(), 1u);
  // A step that was evaluated and never published leaves nothing to the next one.
  EXPECT_THAT(Evaluate({Put("k", 4, VersionIs(1))}), ElementsAre(true));
  DYNLIB_ASSERT_OK(machine_->Publish({.sessions = {}, .through = 2}));
  EXPECT_THAT(Items(), ElementsAre(Pair("k", MakeItem(4))));
}

TEST_F(TableStateMachineTest, AStepWithoutCommandsMovesThePosition) {
  DYNLIB_ASSERT_OK(machine_->Publish({.sessions = {}, .through = 9}));
  EXPECT_EQ(machine_->applied(), 9u);
  EXPECT_THAT(Items(), IsEmpty());
}

TEST_F(TableStateMachineTest, SessionsAreStoredWithTheStepAndAreNoItems) {
  DYNLIB_ASSERT_OK(TableStateMachine::Initialise(*tree_, "description"));
  Apply({Put("k", 1)}, {{"c1", "one"}, {"c2", "two"}});
  EXPECT_THAT(Sessions(), ElementsAre(Pair("c1", "one"), Pair("c2", "two")));
  Apply({Put("k", 2)}, {{"c1", ""}, {"c2", "three"}, {std::string("\xff\xff", 2), "last"}});
  EXPECT_THAT(Sessions(),
              ElementsAre(Pair("c2", "three"), Pair(std::string("\xff\xff", 2), "last")));
  EXPECT_THAT(Keys(), ElementsAre("k"));
}

// Command, result and position stand or fall together, wherever the power fails.
TEST_F(TableStateMachineTest, SessionsItemsAndPositionAreDurableTogether) {
  bool done = false;
  for (uint64_t call = 1; !done; ++call) {
    pages_ = nullptr;
    disk_.Remove("pages").IgnoreError();
    Open();
    for (int i = 1; i <= 3; ++i) {
      Apply({Put("k", i)}, {{"c1", std::to_string(i)}});
      if (i == 2) {
        DYNLIB_ASSERT_OK(pages_->Checkpoint());
      }
    }
    disk_.FailCall(call, sim::DiskFault::kPowerOff, sim::UnsyncedFate::kTorn);
    done = pages_->Checkpoint().ok();
    disk_.ClearFailCall();
    pages_ = nullptr;
    disk_.PowerOff(sim::UnsyncedFate::kTorn);
    disk_.Restart();
    Open();
    const int found = static_cast<int>(machine_->applied());
    EXPECT_TRUE(found == 3 || (found == 2 && !done)) << found;
    EXPECT_THAT(Items(), ElementsAre(Pair("k", MakeItem(found))));
    EXPECT_THAT(Sessions(), ElementsAre(Pair("c1", std::to_string(found))));
  }
}

TEST_F(TableStateMachineTest, TheDescriptionIsKept) {
  EXPECT_THAT(TableStateMachine::Describe(*tree_),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("no description")));
  DYNLIB_ASSERT_OK(TableStateMachine::Initialise(*tree_, "who I am"));
  EXPECT_THAT(TableStateMachine::Describe(*tree_), IsOkAndHolds("who I am"));
  Apply({Put("k", 1)});
  DYNLIB_ASSERT_OK(pages_->Checkpoint());
  pages_ = nullptr;
  Open();
  EXPECT_THAT(TableStateMachine::Describe(*tree_), IsOkAndHolds("who I am"));
  EXPECT_THAT(Keys(), ElementsAre("k"));
}

TEST_F(TableStateMachineTest, ScansBothWays) {
  const std::string low("\0", 1), high("\xff\xff", 2);
  Apply({Put("b", 1), Put("a", 1), Put("c", 1), Put(low, 1), Put(high, 1)});
  EXPECT_THAT(Keys(), ElementsAre(low, "a", "b", "c", high));
  EXPECT_THAT(Keys("", "", true), ElementsAre(high, "c", "b", "a", low));
  EXPECT_THAT(Keys("a", "c"), ElementsAre("a", "b"));
  EXPECT_THAT(Keys("a", "c", true), ElementsAre("b", "a"));
  EXPECT_THAT(Keys("b"), ElementsAre("b", "c", high));
  EXPECT_THAT(Keys("", "", true, 2), ElementsAre(high, "c"));
  EXPECT_THAT(Keys("c", "a"), IsEmpty());
  EXPECT_THAT(Keys("b", "b"), IsEmpty());
}

TEST_F(TableStateMachineTest, MalformedCommandsChangeNothing) {
  Apply({Put("k", 1)});
  wire::WriteCommand no_change;
  no_change.set_key("k");
  wire::WriteCommand bad_condition;
  bad_condition.set_key("k");
  bad_condition.set_erase(true);
  bad_condition.set_condition("no condition");
  wire::WriteCommand long_key;
  long_key.set_key(std::string(store::kMaxKeyBytes, 'k'));
  long_key.set_put(MakeItem(1));
  wire::WriteCommand long_item;
  long_item.set_key("long");
  long_item.set_put(std::string(store::kMaxValueBytes + 1, 'x'));
  EXPECT_THAT(Apply({no_change.SerializeAsString(), bad_condition.SerializeAsString(),
                     long_key.SerializeAsString(), long_item.SerializeAsString(), "\xff\xff", "",
                     Put("k", 2, VersionIs(1))}),
              ElementsAre(false, false, false, false, false, false, true));
  EXPECT_THAT(Items(), ElementsAre(Pair("k", MakeItem(2))));
}

TEST_F(TableStateMachineTest, RandomCommandsNeverFailAStep) {
  Random random(8);
  const std::string good = Put("k", 1, VersionIs(1));
  for (int i = 0; i < 5'000; ++i) {
    std::string bytes = good;
    if (random.Below(2) == 0) bytes.resize(random.Below(bytes.size()));
    for (uint64_t flips = random.Below(4); flips > 0 && !bytes.empty(); --flips)
      bytes[random.Below(bytes.size())] = static_cast<char>(random.Below(256));
    wire::WriteCommand command;
    // An item that is none is for the proposer to refuse.
    const bool puts_junk = command.ParseFromString(bytes) &&
                           command.change_case() == wire::WriteCommand::kPut &&
                           !DecodeItem(command.put()).ok();
    if (!puts_junk) Apply({bytes});
  }
}

}  // namespace
}  // namespace dynlib::cluster
