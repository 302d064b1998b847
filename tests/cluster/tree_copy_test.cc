// Copies of trees between simulated nodes: TreeCopyService on the one side, TreeCopier on the
// other.

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/base/random.h"
#include "dynlib/cluster/cluster.pb.h"
#include "dynlib/cluster/service.h"
#include "dynlib/cluster/table_state_machine.h"
#include "dynlib/cluster/tree_chunk.h"
#include "dynlib/cluster/tree_copier.h"
#include "dynlib/cluster/tree_copy_service.h"
#include "dynlib/runtime/rpc.h"
#include "dynlib/sim/executor.h"
#include "dynlib/sim/world.h"
#include "dynlib/store/page.h"
#include "dynlib/store/page_file.h"
#include "dynlib/store/tree.h"
#include "dynlib/store/write_batch.h"
#include "dynlib/testing/status_matchers.h"
#include "gtest/gtest.h"
#include "tests/runtime/counting_sink.h"

namespace dynlib::cluster {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::HasSubstr;
using Rows = std::map<std::string, std::string>;

constexpr PartitionId kPartition{20};
constexpr store::TreeId kTree{20};
constexpr uint64_t kTarget = 9;

std::string ItemKey(int i) {
  std::string digits = std::to_string(i);
  return TableStateMachine::ItemKey(std::string(8 - digits.size(), '0') + digits);
}

// What the replicas of a partition share, in the given version.
Rows Contents(int items, int version) {
  Random random(static_cast<uint64_t>(version));
  Rows rows;
  for (int i = 0; i < items; ++i) {
    if (random.Chance(0.1)) continue;  // others are missing in each version
    size_t length = 20 + random.Below(100);
    if (random.Chance(0.01)) length = 5'000 + random.Below(50'000);
    rows[ItemKey(i)] = "v" + std::to_string(version) + std::string(length, 'x');
  }
  rows[ItemKey(items / 2)] = std::string(store::kMaxValueBytes, static_cast<char>('a' + version));
  for (int i = 0; i < 20; ++i)
    rows[std::string("\0s", 2) + std::to_string(i)] = "session " + std::to_string(version);
  rows[std::string("\0c", 2)] = "configuration " + std::to_string(version);
  return rows;
}

class TreeCopyTest : public testing::Test {
 protected:
  struct Server {
    sim::Node* node = nullptr;
    sim::SimExecutor* main = nullptr;
    sim::SimExecutor* file = nullptr;
    CountingSink metrics;
    std::unique_ptr<store::PageFile> pages;
    store::Tree* tree = nullptr;
    std::unique_ptr<Rpc> rpc;
    std::unique_ptr<TreeCopyService> service;
    std::unique_ptr<TreeCopier> copier;
    absl::Status refusal;
  };

  ~TreeCopyTest() override { world_.CrashAll(); }

  Server& AddServer(uint64_t id) {
    Server& server = servers_[id];
    server.node = world_.AddNode(NodeId{id});
    Start(server);
    return server;
  }
  void Start(Server& server) {
    server.main = server.node->NewExecutor("main");
    server.file = server.node->NewBlockingExecutor("file");
    server.pages = *store::PageFile::Open({}, server.node->disk(), "pages");
    server.tree = server.pages->FindTree(kTree);
    if (server.tree == nullptr) server.tree = *server.pages->CreateTree(kTree);
    server.rpc = std::make_unique<Rpc>(Rpc::Options{}, server.node->transport(), kRpcChannel,
                                       server.main, server.node->clock());
    server.service = std::make_unique<TreeCopyService>(
        service_options_,
        [&server](PartitionId partition) -> absl::StatusOr<store::Tree*> {
          if (!server.refusal.ok()) return server.refusal;
          if (partition != kPartition) return absl::NotFoundError("not here");
          return server.tree;
        },
        server.main, server.file, server.node->clock(), &server.metrics);
    server.service->Register(server.rpc.get());
    server.copier =
        std::make_unique<TreeCopier>(copier_options_, server.rpc.get(), server.main, server.file,
                                     server.node->clock(), &server.metrics);
  }
  void Crash(uint64_t id) {
    Server& server = servers_[id];
    server.node->Crash();
    server.copier = nullptr;
    server.service = nullptr;
    server.rpc = nullptr;
    server.pages = nullptr;
    server.tree = nullptr;
  }
  void Restart(uint64_t id) {
    Crash(id);
    servers_[id].node->Restart();
    Start(servers_[id]);
  }
  // A source whose replica has applied `position`.
  Server& AddSource(uint64_t id, const Rows& rows, uint64_t position) {
    Server& server = AddServer(id);
    store::WriteBatch batch;
    for (const auto& [key, value] : rows) batch.Put(key, value);
    batch.Put(std::string("\0d", 2), "description of " + std::to_string(id));
    DYNLIB_EXPECT_OK(server.tree->Apply(batch, position));
    return server;
  }
  Server& AddTarget() {
    Server& server = AddServer(kTarget);
    DYNLIB_EXPECT_OK(TableStateMachine::BeginCopy(*server.tree, "description of the target"));
    return server;
  }

  using Result = std::shared_ptr<std::optional<absl::StatusOr<uint64_t>>>;
  Result Copy(std::vector<uint64_t> from, TreeCopier::CopyId* id = nullptr) {
    Server& target = servers_[kTarget];
    std::vector<NodeId> sources;
    for (const uint64_t source : from) sources.push_back(NodeId{source});
    auto result = std::make_shared<std::optional<absl::StatusOr<uint64_t>>>();
    world_.RunAs(target.main, [&] {
      const TreeCopier::CopyId copy = target.copier->Copy(
          kPartition, std::move(sources), target.tree, [result](absl::StatusOr<uint64_t> position) {
            EXPECT_FALSE(result->has_value()) << "called twice";
            *result = std::move(position);
          });
      if (id != nullptr) *id = copy;
    });
    EXPECT_FALSE(result->has_value()) << "called inline";
    return result;
  }
  absl::StatusOr<uint64_t> Await(const Result& result, Duration limit = seconds(120)) {
    if (!world_.RunUntil([&] { return result->has_value(); }, limit))
      return absl::DeadlineExceededError("the copy did not end");
    return **result;
  }
  bool AwaitChunks(int64_t chunks) {
    const int64_t goal = servers_[kTarget].metrics["copy.chunks"] + chunks;
    return world_.RunUntil([&] { return servers_[kTarget].metrics["copy.chunks"] >= goal; },
                           seconds(60));
  }
  // All shared rows; the others are checked here.
  Rows TargetRows() {
    Rows rows;
    DYNLIB_EXPECT_OK(servers_[kTarget].tree->snapshot().Scan(
        "", "", store::ScanOrder::kForward, [&](std::string_view key, std::string_view value) {
          rows.emplace(key, value);
          return true;
        }));
    EXPECT_EQ(rows[std::string("\0d", 2)], "description of the target");
    EXPECT_THAT(TableStateMachine::IsCopying(*servers_[kTarget].tree), IsOkAndHolds(true));
    rows.erase(std::string("\0d", 2));
    rows.erase(std::string("\0i", 2));
    return rows;
  }

  // One request, as a copier sends it.
  wire::CopyTreeReply Ask(uint64_t from, uint64_t source, uint64_t pin, const std::string& after,
                          Duration timeout = seconds(5)) {
    wire::CopyTreeRequest request;
    request.set_partition(ToUint(kPartition));
    request.set_pin(pin);
    request.set_after(after);
    wire::CopyTreeReply reply;
    const std::string bytes = Call(from, source, kCopyTree, request.SerializeAsString(), timeout);
    EXPECT_TRUE(reply.ParseFromString(bytes));
    return reply;
  }
  std::string Call(uint64_t from, uint64_t to, Rpc::Method method, const std::string& request,
                   Duration timeout = seconds(5)) {
    auto reply = std::make_shared<std::optional<absl::StatusOr<std::string>>>();
    servers_[from].rpc->Call(NodeId{to}, method, request, timeout,
                             [reply](absl::StatusOr<std::string> got) { *reply = std::move(got); });
    world_.RunUntil([&] { return reply->has_value(); }, timeout + seconds(1));
    if (!reply->has_value() || !(*reply)->ok()) {
      ADD_FAILURE() << "no reply";
      return "";
    }
    return ***reply;
  }
  bool AwaitNoPins() {
    return world_.RunUntil(
        [&] {
          return std::all_of(servers_.begin(), servers_.end(), [](const auto& entry) {
            return entry.second.service == nullptr || entry.second.service->pins() == 0;
          });
        },
        seconds(1));
  }

  TreeCopyService::Options service_options_;
  TreeCopier::Options copier_options_{.attempt_timeout = milliseconds(500),
                                      .retry_delay = milliseconds(50),
                                      .chunk_bytes = 64 << 10};
  sim::World world_{11};
  std::map<uint64_t, Server> servers_;
};

absl::StatusCode CodeOf(const wire::CopyTreeReply& reply) {
  return static_cast<absl::StatusCode>(reply.outcome().code());
}

TEST_F(TreeCopyTest, ACopyIsOneVersionWhileTheSourceGoesOnAndTheNetworkMisbehaves) {
  copier_options_.attempts_max = 20;
  Rows rows = Contents(4000, 1);
  Server& source = AddSource(1, rows, 100);
  AddTarget();
  world_.SetFaults({.network_loss = 0.1,
                    .network_repeat = 0.2,
                    .network_reorder = 0.3,
                    .network_reorder_us_max = 700'000,
                    .disk_latency_us_max = 2'000});
  std::map<uint64_t, Rows> versions = {{100, rows}};
  const Result result = Copy({1});
  Random random(5);
  for (uint64_t position = 101; !result->has_value() && position < 2'000; ++position) {
    store::WriteBatch batch;
    for (int i = 0; i < 20; ++i) {
      const std::string key = ItemKey(static_cast<int>(random.Below(4000)));
      if (random.Chance(0.5)) {
        batch.Put(key, std::to_string(position));
        rows[key] = std::to_string(position);
      } else {
        batch.Delete(key);
        rows.erase(key);
      }
    }
    DYNLIB_ASSERT_OK(source.tree->Apply(batch, position));
    if (position < 120) versions[position] = rows;
    world_.RunFor(milliseconds(20));
  }
  DYNLIB_ASSERT_OK_AND_ASSIGN(const uint64_t position, Await(result));
  ASSERT_TRUE(versions.contains(position)) << position;
  EXPECT_EQ(TargetRows(), versions[position]);
  EXPECT_EQ(servers_[kTarget].metrics["copy.restarts"], 0);
  EXPECT_GT(servers_[kTarget].metrics["copy.chunks"], 20);
  EXPECT_GT(servers_[kTarget].metrics["copy.bytes"], 1'500'000);
  EXPECT_GT(world_.FaultCounts().at("network.loss"), 2u);

  DYNLIB_ASSERT_OK(TableStateMachine::FinishCopy(*servers_[kTarget].tree, position));
  EXPECT_EQ(servers_[kTarget].tree->position(), position);
}

TEST_F(TreeCopyTest, TheNextSourceHasTheLastWordWhenOneDies) {
  AddSource(1, Contents(3000, 1), 100);
  const Rows want = Contents(2500, 2);
  AddSource(2, want, 70);
  AddTarget();
  const Result result = Copy({1, 2});
  ASSERT_TRUE(AwaitChunks(10));
  Crash(1);
  EXPECT_THAT(Await(result), IsOkAndHolds(70u));
  EXPECT_EQ(TargetRows(), want);
  EXPECT_EQ(servers_[kTarget].metrics["copy.restarts"], 1);
  EXPECT_TRUE(AwaitNoPins());
}

TEST_F(TreeCopyTest, ARestartedSourceIsCopiedAnewForItsPinsAreGone) {
  const Rows first = Contents(3000, 1);
  AddSource(1, first, 100);
  DYNLIB_ASSERT_OK(servers_[1].pages->Checkpoint());
  AddTarget();
  const Result result = Copy({1});
  ASSERT_TRUE(AwaitChunks(10));
  Restart(1);
  store::WriteBatch batch;
  Rows want = first;
  want.erase(want.upper_bound(ItemKey(0)));
  batch.Delete(first.upper_bound(ItemKey(0))->first);
  DYNLIB_ASSERT_OK(servers_[1].tree->Apply(batch, 101));
  EXPECT_THAT(Await(result), IsOkAndHolds(101u));
  EXPECT_EQ(TargetRows(), want);
  EXPECT_EQ(servers_[kTarget].metrics["copy.restarts"], 1);
}

// A copy that is cut in the middle, while the source is written to all the time.
class CutTreeCopyTest : public TreeCopyTest {
 protected:
  static constexpr int kRows = 8000;
  static constexpr int64_t kRowBytes = 109;

  void SetUp() override {
    service_options_.pin_seed = 1000;
    for (int i = 0; i < kRows; ++i) rows_[ItemKey(i)] = std::string(100, 'x');
    AddSource(1, rows_, position_);
    DYNLIB_ASSERT_OK(servers_[1].pages->Checkpoint());
    versions_[position_] = rows_;
    AddTarget();
    DYNLIB_ASSERT_OK(servers_[kTarget].pages->Checkpoint());
    result_ = Copy({1}, &copy_);
    KeepWritingUntil([&] { return CopiedBytes() > kRows * kRowBytes * 2 / 3; });
  }
  int64_t CopiedBytes() { return servers_[kTarget].metrics["copy.bytes"]; }
  void Write() {
    const std::string key = ItemKey(static_cast<int>(random_.Below(kRows)));
    store::WriteBatch batch;
    if (random_.Chance(0.3)) {
      batch.Delete(key);
      rows_.erase(key);
    } else {
      rows_[key] = std::to_string(++position_) + std::string(90, 'y');
      batch.Put(key, rows_[key]);
    }
    DYNLIB_ASSERT_OK(servers_[1].tree->Apply(batch, ++position_));
    versions_[position_] = rows_;
    ++writes_;
  }
  void KeepWritingUntil(const std::function<bool()>& condition) {
    for (int i = 0; i < 10'000 && !condition(); ++i) {
      if (i % 10 == 0) Write();
      world_.RunFor(std::chrono::microseconds(200));
    }
    ASSERT_TRUE(condition());
  }
  // What is left, and a part for each row that was written.
  void ExpectOneVersionForTheRest(int64_t bytes_before) {
    KeepWritingUntil([&] { return result_->has_value(); });
    DYNLIB_ASSERT_OK_AND_ASSIGN(const uint64_t position, Await(result_));
    ASSERT_TRUE(versions_.contains(position));
    EXPECT_EQ(TargetRows(), versions_[position]);
    const int64_t rest = kRows * kRowBytes - bytes_before;
    const auto part = static_cast<int64_t>(kHeldPartBytes + 200);
    ASSERT_LT(writes_ * part, kRows * kRowBytes / 3) << "too many writes to tell";
    EXPECT_LE(CopiedBytes() - bytes_before, rest + writes_ * part);
    EXPECT_GT(servers_[kTarget].metrics["copy.bytes_same"], bytes_before / 3);
  }

  Random random_{3};
  Rows rows_;
  uint64_t position_ = 100;
  std::map<uint64_t, Rows> versions_;
  int64_t writes_ = 0;
  TreeCopier::CopyId copy_{};
  Result result_;
};

TEST_F(CutTreeCopyTest, TheRestAndWhatChangedIsSentWhenTheSourceRestarts) {
  const int64_t bytes = CopiedBytes();
  DYNLIB_ASSERT_OK(servers_[1].pages->Checkpoint());
  Restart(1);
  ExpectOneVersionForTheRest(bytes);
  EXPECT_EQ(servers_[kTarget].metrics["copy.restarts"], 1);
}

TEST_F(CutTreeCopyTest, TheRestAndWhatChangedIsSentWhenThePinIsLetGo) {
  const int64_t bytes = CopiedBytes();
  for (uint64_t pin = 1; servers_[1].service->pins() > 0; ++pin) {
    wire::UnpinRequest unpin;
    unpin.set_pin(service_options_.pin_seed + pin);
    Call(kTarget, 1, kUnpin, unpin.SerializeAsString());
    ASSERT_LT(pin, 10u);
  }
  ExpectOneVersionForTheRest(bytes);
  EXPECT_EQ(servers_[kTarget].metrics["copy.restarts"], 1);
}

TEST_F(CutTreeCopyTest, TheRestAndWhatChangedIsSentWhenTheTargetRestarts) {
  DYNLIB_ASSERT_OK(servers_[kTarget].pages->Checkpoint());
  const int64_t bytes = CopiedBytes();
  Restart(kTarget);
  result_ = Copy({1});
  ExpectOneVersionForTheRest(bytes);
}

TEST_F(CutTreeCopyTest, TheRestAndWhatChangedIsSentByAnotherSourceOfAnOlderVersion) {
  const int64_t bytes = CopiedBytes();
  AddSource(2, versions_[100], 100);
  world_.RunAs(servers_[kTarget].main, [&] { servers_[kTarget].copier->Cancel(copy_, [] {}); });
  ASSERT_THAT(Await(result_), StatusIs(absl::StatusCode::kCancelled));
  result_ = Copy({2});
  ExpectOneVersionForTheRest(bytes);
}

TEST_F(TreeCopyTest, ACopyThatIsTakenUpAgainWritesTheDifferenceAlone) {
  Rows rows = Contents(3000, 1);
  AddSource(1, rows, 100);
  AddTarget();
  EXPECT_THAT(Await(Copy({1})), IsOkAndHolds(100u));
  const int64_t before = servers_[kTarget].metrics["copy.rows_changed"];
  EXPECT_EQ(before, static_cast<int64_t>(rows.size()));
  rows[ItemKey(77)] = "changed or new";
  rows["\1zzz"] = "new";
  rows.erase(rows.lower_bound(ItemKey(1000)));
  AddSource(2, rows, 90);
  EXPECT_THAT(Await(Copy({2})), IsOkAndHolds(90u));
  EXPECT_EQ(TargetRows(), rows);
  EXPECT_EQ(servers_[kTarget].metrics["copy.rows_changed"] - before, 3);
  EXPECT_EQ(servers_[kTarget].metrics["copy.restarts"], 0);
}

TEST_F(TreeCopyTest, ACancelledCopyLeavesTheTreeAlone) {
  AddSource(1, Contents(3000, 1), 100);
  Server& target = AddTarget();
  EXPECT_THAT(Await(Copy({1})), IsOkAndHolds(100u));
  DYNLIB_ASSERT_OK(target.pages->Checkpoint());
  Restart(kTarget);  // so that comparing the two takes time on the disk
  world_.SetFaults({.disk_latency_us_min = 20, .disk_latency_us_max = 200});
  int while_working = 0;
  for (int moment = 0; moment < 60; ++moment) {
    TreeCopier::CopyId id{};
    const Result result = Copy({1}, &id);
    ASSERT_TRUE(AwaitChunks(1 + moment % 3));
    world_.RunFor(std::chrono::microseconds(moment * 37));
    while_working += target.file->idle() ? 0 : 1;
    bool cancelled = false;
    world_.RunAs(target.main, [&] {
      target.copier->Cancel(id, [&] {
        EXPECT_TRUE(result->has_value());
        EXPECT_TRUE(target.file->idle());
        cancelled = true;
      });
    });
    EXPECT_FALSE(cancelled);
    ASSERT_TRUE(world_.RunUntil([&] { return cancelled; }, seconds(1)));
    EXPECT_THAT(**result, StatusIs(absl::StatusCode::kCancelled));
    EXPECT_EQ(target.copier->copies(), 0u);
    EXPECT_TRUE(AwaitNoPins());
  }
  EXPECT_GT(while_working, 10);
  EXPECT_LT(while_working, 60);
  bool again = false;
  world_.RunAs(target.main,
               [&] { target.copier->Cancel(TreeCopier::CopyId{1}, [&] { again = true; }); });
  EXPECT_TRUE(world_.RunUntil([&] { return again; }, seconds(1)));
  DYNLIB_ASSERT_OK(target.pages->DropTree(kTree));
  world_.RunFor(seconds(10));
}

TEST_F(TreeCopyTest, ACopyIsCancelledWhileItsSourceIsSilent) {
  Server& target = AddTarget();
  AddServer(1);
  Crash(1);
  TreeCopier::CopyId id{};
  const Result result = Copy({1}, &id);
  world_.RunFor(milliseconds(520));  // it waits to ask again
  bool stopped = false;
  world_.RunAs(target.main, [&] { target.copier->Stop([&] { stopped = true; }); });
  ASSERT_TRUE(world_.RunUntil([&] { return stopped; }, milliseconds(1)));
  EXPECT_THAT(**result, StatusIs(absl::StatusCode::kCancelled));
  EXPECT_THAT(Await(Copy({1})), StatusIs(absl::StatusCode::kCancelled));
}

TEST_F(TreeCopyTest, DamageAtASourceSendsTheCopyToTheNext) {
  Server& damaged = AddSource(1, Contents(3000, 1), 100);
  DYNLIB_ASSERT_OK(damaged.pages->Checkpoint());
  Crash(1);
  // In the middle of the great value, which begins at a page of its own.
  const size_t at = damaged.node->disk()->ReadRaw("pages").find(std::string(100'000, 'b'));
  ASSERT_NE(at, std::string::npos);
  damaged.node->disk()->FlipBit("pages", (at + 50'000) * 8);
  damaged.node->Restart();
  Start(damaged);
  const Rows want = Contents(3000, 2);
  AddSource(2, want, 99);
  AddTarget();
  EXPECT_THAT(Await(Copy({1, 2})), IsOkAndHolds(99u));
  EXPECT_EQ(TargetRows(), want);
  EXPECT_GT(servers_[kTarget].metrics["copy.chunks"],
            servers_[2].metrics["copy.chunks_served"]);  // the first half was had of the first
  EXPECT_EQ(servers_[kTarget].metrics["copy.restarts"], 1);
}

TEST_F(TreeCopyTest, ASourceThatAnswersWrongChangesNothingHere) {
  Server& liar = AddSource(1, Contents(300, 1), 100);
  int answers = 0;
  liar.rpc->Handle(kCopyTree, [&](NodeId, Instant, const std::string&, Rpc::Reply reply) {
    wire::CopyTreeReply chunk;
    chunk.set_pin(5);
    chunk.set_position(100);
    wire::CopyTreeReply::Row& row = *chunk.add_rows();
    row.set_key("\1key");
    row.set_value("value");
    chunk.set_checksum(TreeChunkChecksum(chunk) + 1);
    if (++answers == 2) chunk.mutable_outcome()->set_code(0);
    reply(answers == 3 ? "\xff" : chunk.SerializeAsString());
  });
  AddSource(2, {}, 50);
  AddTarget();
  EXPECT_THAT(Await(Copy({1, 2})), IsOkAndHolds(50u));
  EXPECT_EQ(answers, copier_options_.attempts_max);
  EXPECT_EQ(servers_[kTarget].metrics["copy.rows_changed"], 0);
}

TEST_F(TreeCopyTest, ACopyFailsWhenEachSourceHasFailedOftenEnough) {
  AddServer(1).refusal = absl::UnavailableError("still copying itself");
  AddServer(2).refusal = absl::NotFoundError("no such partition");
  AddTarget();
  EXPECT_THAT(Await(Copy({1, 2})),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("no such partition")));
  EXPECT_EQ(servers_[kTarget].metrics["copy.restarts"], 2 * copier_options_.rounds_max - 1);
  EXPECT_THAT(Await(Copy({})), StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST_F(TreeCopyTest, AnErrorOfTheTargetsTreeEndsTheCopy) {
  AddSource(1, Contents(300, 1), 100);
  Server& target = AddTarget();
  DYNLIB_ASSERT_OK(target.tree->Apply({}, 1));  // not a tree that a copy may write
  EXPECT_THAT(Await(Copy({1})), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("go back")));
  EXPECT_TRUE(AwaitNoPins());
}

TEST_F(TreeCopyTest, PinsAreFewAndGoWhenNobodyAsks) {
  service_options_.pins_max = 2;
  service_options_.pin_idle = seconds(10);
  Server& source = AddSource(1, Contents(3000, 1), 100);
  for (uint64_t id = 2; id <= 4; ++id) AddServer(id);

  const wire::CopyTreeReply first = Ask(2, 1, 0, "");
  EXPECT_EQ(CodeOf(first), absl::StatusCode::kOk);
  EXPECT_NE(first.pin(), 0u);
  EXPECT_EQ(first.position(), 100u);
  EXPECT_EQ(Ask(2, 1, 0, "").pin(), first.pin()) << "repeated before it went on";
  EXPECT_EQ(source.service->pins(), 1u);
  const std::string after = first.rows(first.rows_size() - 1).key();
  EXPECT_EQ(Ask(2, 1, first.pin(), after).rows_size() > 0, true);
  DYNLIB_ASSERT_OK(source.tree->Apply({}, 101));
  const wire::CopyTreeReply second = Ask(2, 1, 0, "");
  EXPECT_NE(second.pin(), first.pin()) << "a copy that begins anew gets the newest version";
  EXPECT_EQ(second.position(), 101u);
  EXPECT_EQ(CodeOf(Ask(3, 1, 0, "")), absl::StatusCode::kResourceExhausted);

  // One is asked about, the other is not.
  for (int i = 0; i < 6; ++i) {
    world_.RunFor(seconds(4));
    EXPECT_EQ(CodeOf(Ask(2, 1, first.pin(), after)), absl::StatusCode::kOk);
  }
  EXPECT_EQ(source.service->pins(), 1u);
  EXPECT_EQ(CodeOf(Ask(2, 1, second.pin(), "")), absl::StatusCode::kNotFound);
  EXPECT_EQ(source.metrics["copy.pins_expired"], 1);

  const wire::CopyTreeReply third = Ask(3, 1, 0, "");
  EXPECT_EQ(CodeOf(third), absl::StatusCode::kOk);
  wire::UnpinRequest unpin;
  unpin.set_pin(first.pin());
  for (int i = 0; i < 2; ++i) {
    wire::UnpinReply reply;
    EXPECT_TRUE(reply.ParseFromString(Call(2, 1, kUnpin, unpin.SerializeAsString())));
    EXPECT_EQ(reply.outcome().code(), 0);
  }
  EXPECT_EQ(CodeOf(Ask(2, 1, first.pin(), after)), absl::StatusCode::kNotFound);
  EXPECT_EQ(source.service->pins(), 1u);

  // Pins of before a restart mean nothing after it.
  Restart(1);
  EXPECT_EQ(CodeOf(Ask(3, 1, third.pin(), "")), absl::StatusCode::kNotFound);
  for (int i = 0; i < 2; ++i) {
    const uint64_t pin = Ask(2 + static_cast<uint64_t>(i), 1, 0, "").pin();
    EXPECT_NE(pin, first.pin());
    EXPECT_NE(pin, second.pin());
    EXPECT_NE(pin, third.pin());
  }
  world_.RunAs(servers_[1].main, [&] { servers_[1].service->Stop(); });
  EXPECT_EQ(servers_[1].service->pins(), 0u);
  EXPECT_EQ(CodeOf(Ask(2, 1, 0, "")), absl::StatusCode::kCancelled);
}

TEST_F(TreeCopyTest, CopiesTakeNoMoreThanTheThrottleAllows) {
  service_options_.bytes_per_second = 200'000;
  copier_options_.attempts_max = 1;  // a busy source is no failure
  service_options_.pin_idle = seconds(2);
  Rows rows;
  for (int i = 0; i < 5000; ++i) rows[ItemKey(i)] = std::string(100, 'x');
  int64_t bytes = 0;
  for (const auto& [key, value] : rows) bytes += static_cast<int64_t>(key.size() + value.size());
  Server& source = AddSource(1, rows, 100);
  AddTarget();
  // Others want their share: two nodes that ask as often as they may, to no end.
  std::vector<std::function<void()>> askers;
  for (uint64_t id = 5; id <= 6; ++id) {
    Server& other = AddServer(id);
    askers.emplace_back([&other, &askers, at = askers.size()] {
      wire::CopyTreeRequest request;
      request.set_partition(ToUint(kPartition));
      other.rpc->Call(NodeId{1}, kCopyTree, request.SerializeAsString(), seconds(30),
                      [&askers, at](const absl::StatusOr<std::string>&) { askers[at](); });
    });
  }
  for (const std::function<void()>& asker : askers) asker();
  const Instant begun = world_.Now();
  EXPECT_THAT(Await(Copy({1})), IsOkAndHolds(100u));
  EXPECT_EQ(TargetRows(), rows);
  EXPECT_EQ(servers_[kTarget].metrics["copy.restarts"], 0);
  const double took = static_cast<double>((world_.Now() - begun).count()) / 1e9;
  const auto served = static_cast<double>(source.metrics["copy.bytes_served"]);
  EXPECT_GT(served, 1.5 * static_cast<double>(bytes));
  EXPECT_LT(served / took, 200'000 * 1.5);
  EXPECT_GT(served / took, 200'000 * 0.6);
  world_.CrashAll();
}

TEST(TreeCopyOptionsTest, AreChecked) {
  DYNLIB_EXPECT_OK(TreeCopyService::Validate({}));
  DYNLIB_EXPECT_OK(TreeCopier::Validate({}));
  auto expect = [](const absl::Status& status, const std::string& field) {
    EXPECT_THAT(status, StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(field)));
  };
  expect(TreeCopyService::Validate({.pins_max = 0}), "pins_max is 0");
  expect(TreeCopyService::Validate({.pin_idle = Duration(1)}), "pin_idle");
  expect(TreeCopyService::Validate({.chunk_bytes_max = 20 << 20}), "chunk_bytes_max");
  expect(TreeCopyService::Validate({.bytes_per_second = 1}), "bytes_per_second");
  expect(TreeCopier::Validate({.attempt_timeout = Duration(0)}), "attempt_timeout");
  expect(TreeCopier::Validate({.retry_delay = seconds(4000)}), "retry_delay");
  expect(TreeCopier::Validate({.attempts_max = 0}), "attempts_max");
  expect(TreeCopier::Validate({.rounds_max = 0}), "rounds_max");
  expect(TreeCopier::Validate({.chunk_bytes = 1}), "chunk_bytes");
}

}  // namespace
}  // namespace dynlib::cluster
