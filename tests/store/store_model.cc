#include "tests/store/store_model.h"

#include <algorithm>
#include <iterator>
#include <string_view>

#include "absl/status/status.h"
#include "dynlib/base/strings.h"
#include "dynlib/sim/file_image.h"
#include "dynlib/store/cursor.h"
#include "dynlib/store/page_compression.h"
#include "dynlib/store/page_file.h"
#include "dynlib/store/tree.h"
#include "dynlib/testing/status_matchers.h"
#include "gtest/gtest.h"
#include "tests/store/model_keys.h"

namespace dynlib::store {
namespace {

using sim::DiskFault;
using sim::UnsyncedFate;

constexpr uint64_t kKeys = 5000;  // Several times the memory.
constexpr size_t kHeldMax = 4;
constexpr size_t kRemembered = 200;

UnsyncedFate AnyFate(Random& random) {
  constexpr UnsyncedFate kFates[] = {UnsyncedFate::kAllLost, UnsyncedFate::kAllKept,
                                     UnsyncedFate::kTorn, UnsyncedFate::kRandomSubset};
  return kFates[random.Below(4)];
}

std::string AnyValue(Random& random) {
  const uint64_t kind = random.Below(100);
  const size_t length = kind < 1   ? random.Below(20'000)
                        : kind < 6 ? random.Below(4000)
                                   : random.Below(150);
  std::string value(length, static_cast<char>('a' + random.Below(26)));
  for (size_t i = 0; i < length; i += 1 + random.Below(40)) {
    value[i] = static_cast<char>(random.Below(256));
  }
  return value;
}

}  // namespace

StoreModel::StoreModel(uint64_t seed) : random_(seed), disk_(seed) {
  forest_[""];
  Open();
}

StoreModel::~StoreModel() { held_.clear(); }

void StoreModel::Open() {
  h_ = std::make_unique<StoreHarness>(&disk_);
  h_->options.log.segment_bytes = 256 << 10;
  h_->options.log.max_batch_bytes = 64 << 10;
  h_->options.log.max_queued_bytes = 1 << 20;
  h_->options.checkpoint_after_bytes = 128 << 10;
  h_->options.pages.memory_bytes = 1 << 20;
  if (random_.Chance(0.5)) h_->options.pages.compression = Compression::kZstd;
  const absl::Status opened = h_->Open();
  if (!disk_.down()) {
    ASSERT_THAT(opened, IsOk());
  }
  changed_at_.clear();
  ranges_.clear();
  sequences_.clear();
}

void StoreModel::Run(uint64_t operations) {
  const uint64_t end = counts_.operations + operations;
  while (counts_.operations < end && !testing::Test::HasFailure()) {
    const uint64_t now = counts_.operations;
    Step();
    counts_.operations = std::max(counts_.operations, now + 1);
  }
  CountPages();
  CompareAll();
  CompareHeld();
}

void StoreModel::Step() {
  const uint64_t kind = random_.Below(10'000);
  if (kind < 3) return Reopen();
  if (kind < 7) return FailPower();
  if (kind < 20) return ChangeTrees();
  if (kind < 30) return CompareAll();
  if (kind < 35) return CompareHeld();
  if (kind < 40) return h_->Rest(static_cast<int>(random_.Below(30)));
  if (kind < 80) return TakeOrDropSnapshot();
  if (kind < 110) {
    EXPECT_THAT(h_->Checkpoint(), IsOk());
    return;
  }
  if (kind < 4500) return WriteSome();
  if (kind < 7500) return Get();
  if (kind < 8500) return Scan();
  MoveCursor();
}

std::string StoreModel::AnyKey() { return ModelKey(random_, kKeys); }

std::string StoreModel::AnyTree() {
  return std::next(forest_.begin(), static_cast<ptrdiff_t>(random_.Below(forest_.size())))->first;
}

NamedTree StoreModel::Handle(const std::string& tree) {
  return tree.empty() ? NamedTree() : h_->store->FindTree(tree).value_or(NamedTree());
}

std::optional<std::string> StoreModel::InModel(const Forest& forest, const std::string& tree,
                                               const std::string& key) const {
  const Contents& rows = forest.at(tree);
  const auto at = rows.find(key);
  if (at == rows.end()) return std::nullopt;
  return at->second;
}

StoreModel::Changes StoreModel::SomeChanges() {
  Changes changes;
  for (uint64_t n = random_.Chance(0.7) ? 1 : random_.Between(1, 12); n > 0; --n) {
    Change change{AnyTree(), AnyKey(), std::nullopt, std::nullopt};
    if (random_.Chance(0.02)) {
      const Contents& rows = forest_.at(change.tree);
      auto end = rows.lower_bound(change.key);
      for (uint64_t keys = random_.Below(60); keys > 0 && end != rows.end(); --keys) ++end;
      change.range_end = end == rows.end() ? "" : end->first;
      ++counts_.range_deletes;
    } else if (!random_.Chance(0.3)) {
      change.value = AnyValue(random_);
    }
    changes.push_back(std::move(change));
  }
  return changes;
}

StoreBatch StoreModel::BatchOf(const Changes& changes) {
  StoreBatch batch;
  for (const Change& change : changes) {
    const NamedTree tree = Handle(change.tree);
    if (change.range_end.has_value()) {
      batch.DeleteRange(tree, change.key, *change.range_end);
    } else if (change.value.has_value()) {
      batch.Put(tree, change.key, *change.value);
    } else {
      batch.Delete(tree, change.key);
    }
  }
  return batch;
}

void StoreModel::Apply(const Changes& changes, Forest& forest) {
  for (const Change& change : changes) {
    Contents& rows = forest.at(change.tree);
    if (change.range_end.has_value()) {
      const std::string& end = *change.range_end;
      if (!end.empty() && end <= change.key) continue;
      rows.erase(rows.lower_bound(change.key), end.empty() ? rows.end() : rows.lower_bound(end));
    } else if (change.value.has_value()) {
      rows[change.key] = *change.value;
    } else {
      rows.erase(change.key);
    }
  }
}

void StoreModel::Remember(const Changes& changes, uint64_t sequence) {
  for (const Change& change : changes) {
    if (change.range_end.has_value()) {
      ranges_.emplace_back(change, sequence);
    } else {
      changed_at_[{change.tree, change.key}] = sequence;
    }
  }
  sequences_.push_back(sequence);
  if (sequences_.size() > kRemembered) sequences_.erase(sequences_.begin());
  if (ranges_.size() > kRemembered) ranges_.erase(ranges_.begin());
}

// As far as is remembered.
bool StoreModel::ChangedSince(const std::string& tree, const std::string& key,
                              uint64_t sequence) const {
  const auto at = changed_at_.find({tree, key});
  if (at != changed_at_.end() && at->second > sequence) return true;
  return std::any_of(ranges_.begin(), ranges_.end(), [&](const auto& range) {
    const auto& [change, when] = range;
    return when > sequence && change.tree == tree && key >= change.key &&
           (change.range_end->empty() || key < *change.range_end);
  });
}

// `fails`: the condition that will not hold; `may_fail`: one might not, for all that is known here.
void StoreModel::AskConditions(StoreBatch& batch, std::optional<size_t>& fails, bool& may_fail) {
  for (uint64_t n = random_.Between(1, 3); n > 0; --n) {
    const std::string name = AnyTree();
    const std::string key = AnyKey();
    const NamedTree tree = Handle(name);
    const std::optional<std::string> value = InModel(forest_, name, key);
    bool holds = true;
    switch (random_.Below(4)) {
      case 0:
        batch.IfAbsent(tree, key);
        holds = !value.has_value();
        break;
      case 1:
        batch.IfPresent(tree, key);
        holds = value.has_value();
        break;
      case 2: {
        const std::string wanted = random_.Chance(0.8) ? value.value_or("x") : "else";
        batch.IfEquals(tree, key, wanted);
        holds = value == wanted;
        break;
      }
      default: {
        if (sequences_.empty()) continue;
        const uint64_t since = sequences_[random_.Below(sequences_.size())];
        batch.IfNotWrittenSince(tree, key, since);
        // It may have been written as far as the store can tell; if it was, it has to say so.
        holds = !ChangedSince(name, key, since);
        may_fail = true;
      }
    }
    if (!holds && !fails.has_value()) fails = batch.conditions().size() - 1;
  }
}

void StoreModel::WriteSome() {
  const Changes changes = SomeChanges();
  StoreBatch batch = BatchOf(changes);
  std::optional<size_t> fails;
  bool may_fail = false;
  const bool conditional = random_.Chance(0.15);
  if (conditional) AskConditions(batch, fails, may_fail);
  const WriteResult result = h_->Write(std::move(batch), {.durable = random_.Chance(0.7)});
  counts_.operations += changes.size();
  if (!result.ok()) {
    ASSERT_THAT(result.status, StatusIs(absl::StatusCode::kFailedPrecondition));
    ASSERT_TRUE(fails.has_value() || may_fail) << result.status;
    if (!may_fail) {
      ASSERT_EQ(result.failed_condition, fails);
    }
    ++counts_.conditions_failed;
    return;
  }
  ASSERT_FALSE(fails.has_value()) << "condition " << *fails << " does not hold";
  counts_.conditions_held += conditional;
  Apply(changes, forest_);
  Remember(changes, result.sequence);
}

void StoreModel::ChangeTrees() {
  const std::string name = Cat("tree", random_.Below(4));
  if (forest_.contains(name)) {
    if (random_.Chance(0.6)) return;
    ASSERT_THAT(h_->DropTree(Handle(name)), IsOk());
    forest_.erase(name);
    std::erase_if(changed_at_, [&](const auto& row) { return row.first.first == name; });
    std::erase_if(ranges_, [&](const auto& range) { return range.first.tree == name; });
  } else {
    ASSERT_THAT(h_->OpenTree(name).status(), IsOk());
    forest_[name];
  }
}

void StoreModel::TakeOrDropSnapshot() {
  if (held_.size() == kHeldMax || (!held_.empty() && random_.Chance(0.4))) {
    held_.erase(held_.begin() + static_cast<ptrdiff_t>(random_.Below(held_.size())));
    return;
  }
  held_.push_back({h_->store->snapshot("model"), forest_});
  ++counts_.snapshots;
}

void StoreModel::Get() {
  const std::string key = AnyKey();
  if (!held_.empty() && random_.Chance(0.3)) {
    const Held& held = held_[random_.Below(held_.size())];
    const auto& versions = held.snapshot.trees();
    const StoreSnapshot::TreeVersion& version = versions[random_.Below(versions.size())];
    const auto found = held.snapshot.Get(version.tree, key);
    ASSERT_THAT(found, IsOk());
    ASSERT_EQ(*found, InModel(held.forest, version.tree.name(), key));
    return;
  }
  const std::string name = AnyTree();
  const auto found = h_->store->Get(Handle(name), key);
  ASSERT_THAT(found, IsOk());
  ASSERT_EQ(*found, InModel(forest_, name, key)) << name << "/" << Escape(key);
}

void StoreModel::Scan() {
  const std::string name = AnyTree();
  const Contents& rows = forest_.at(name);
  const bool reverse = random_.Chance(0.5);
  ScanOptions options{.tree = Handle(name),
                      .start = random_.Chance(0.8) ? AnyKey() : "",
                      .end = random_.Chance(0.5) ? AnyKey() : "",
                      .order = reverse ? ScanOrder::kReverse : ScanOrder::kForward,
                      .max_rows = 1 + random_.Below(40)};
  auto first = rows.lower_bound(options.start);
  auto last = options.end.empty() ? rows.end() : rows.lower_bound(options.end);
  if (!options.end.empty() && options.end <= options.start) last = first;
  const auto scanned = h_->store->Scan(options, [&](std::string_view key, std::string_view value) {
    if (first == last) {
      ADD_FAILURE() << "key " << Escape(key) << " should not be there";
      return false;
    }
    const auto row = reverse ? --last : first++;
    EXPECT_EQ(key, row->first);
    EXPECT_EQ(value, row->second);
    return true;
  });
  ASSERT_THAT(scanned, IsOk());
  counts_.rows_scanned += scanned->rows;
  ASSERT_TRUE(scanned->rows == options.max_rows || first == last) << "rows are missing";
}

void StoreModel::MoveCursor() {
  const std::string name = AnyTree();
  const Contents& rows = forest_.at(name);
  auto made = h_->store->NewCursor(Handle(name));
  ASSERT_THAT(made, IsOk());
  Cursor cursor = *std::move(made);
  const std::string key = AnyKey();
  cursor.Seek(key);
  auto at = rows.lower_bound(key);
  for (uint64_t moves = random_.Below(25); moves > 0; --moves, ++counts_.cursor_moves) {
    ASSERT_THAT(cursor.status(), IsOk());
    ASSERT_EQ(cursor.valid(), at != rows.end());
    if (!cursor.valid()) return;
    ASSERT_EQ(cursor.key(), at->first);
    ASSERT_EQ(cursor.value(), at->second);
    if (random_.Chance(0.6)) {
      cursor.Next();
      ++at;
    } else {
      cursor.Prev();
      at = at == rows.begin() ? rows.end() : std::prev(at);
    }
  }
}

StoreModel::Forest StoreModel::Found() {
  Forest found;
  found[""] = h_->Scan();
  for (const std::string& name : h_->store->ListTrees()) found[name] = h_->Scan(Handle(name));
  return found;
}

std::string StoreModel::Difference(const Forest& expected, const Forest& found) {
  for (const auto& [name, rows] : expected) {
    const auto at = found.find(name);
    if (at == found.end()) return Cat("tree ", name, " is not there");
    const auto [a, b] =
        std::mismatch(rows.begin(), rows.end(), at->second.begin(), at->second.end());
    if (a != rows.end() || b != at->second.end()) {
      return Cat(name, "/", Escape(a == rows.end() ? b->first : a->first));
    }
  }
  return found.size() > expected.size() ? "there are more trees" : "";
}

void StoreModel::CompareAll() {
  ++counts_.comparisons;
  ASSERT_EQ(Difference(forest_, Found()), "");
}

void StoreModel::CompareHeld() {
  for (const Held& held : held_) {
    Forest found;
    for (const StoreSnapshot::TreeVersion& version : held.snapshot.trees()) {
      Contents& rows = found[version.tree.name()];
      const absl::Status scanned = version.snapshot.Scan(
          "", "", ScanOrder::kReverse, [&](std::string_view key, std::string_view value) {
            rows.emplace(key, value);
            return true;
          });
      ASSERT_THAT(scanned, IsOk());
    }
    ASSERT_EQ(Difference(held.forest, found), "");
  }
}

void StoreModel::CountPages() {
  const PageFile::Stats stats = h_->store->stats().pages;
  counts_.pages_evicted += stats.pages_evicted;
  counts_.checkpoints += stats.checkpoints;
}

void StoreModel::Reopen() {
  CountPages();
  if (random_.Chance(0.3)) {
    ASSERT_THAT(h_->store->Verify(), IsOk());
  }
  held_.clear();
  if (random_.Chance(0.5)) {
    ASSERT_THAT(h_->Close(), IsOk());
  }
  h_.reset();
  Open();
  ++counts_.reopenings;
  CompareAll();
}

// Writes are under way as it happens: what is found is what the first of them made, at least those
// that were acknowledged as durable.
void StoreModel::FailPower() {
  CountPages();
  held_.clear();
  const UnsyncedFate fate = AnyFate(random_);
  std::vector<Changes> written;
  size_t acknowledged = 0;
  disk_.FailCall(random_.Between(1, 40), DiskFault::kPowerOff, fate);
  for (uint64_t n = random_.Below(20); n > 0 && !disk_.down(); --n) {
    written.push_back(SomeChanges());
    counts_.operations += written.back().size();
    const bool durable = random_.Chance(0.6);
    h_->store->Write(BatchOf(written.back()), {.durable = durable}, &h_->caller,
                     [&, through = written.size(), durable](const WriteResult& result) {
                       if (result.ok() && durable) acknowledged = std::max(acknowledged, through);
                     });
    if (random_.Chance(0.3)) h_->Run();
    if (random_.Chance(0.1)) h_->store->Checkpoint(&h_->caller, [](absl::Status) {});
  }
  if (!disk_.down() && random_.Chance(0.7)) h_->Run();
  disk_.ClearFailCall();
  if (!disk_.down()) disk_.PowerOff(fate);
  h_->Kill();
  disk_.Restart();
  // Now and then it fails once more, as the store recovers.
  if (random_.Chance(0.3)) {
    disk_.FailCall(random_.Between(1, 30), DiskFault::kPowerOff, AnyFate(random_));
    h_.reset();
    Open();
    disk_.ClearFailCall();
    if (!disk_.down()) disk_.PowerOff(AnyFate(random_));
    h_->Kill();
    disk_.Restart();
  }
  h_.reset();
  Open();
  if (testing::Test::HasFatalFailure()) return;
  ++counts_.power_failures;
  const Forest found = Found();
  size_t applied = 0;
  for (; applied < acknowledged; ++applied) Apply(written[applied], forest_);
  for (; forest_ != found && applied < written.size(); ++applied) Apply(written[applied], forest_);
  ASSERT_EQ(Difference(forest_, found), "")
      << acknowledged << " of " << written.size() << " writes were acknowledged";
  counts_.writes_lost += written.size() - applied;
}

}  // namespace dynlib::store
