// A Store and plain maps, taken through the same random life: batches over several trees, on
// conditions or not, durable or not; reads, scans both ways, cursors; snapshots that are held;
// range deletes; trees that come and go; checkpoints, rests, clean and unclean ends, and power
// failures at any disk call. After each of them the two have to agree.
//
//   StoreModel model(seed);
//   model.Run(20'000);   // operations on keys; stops at the first disagreement
#ifndef TESTS_STORE_STORE_MODEL_H_
#define TESTS_STORE_STORE_MODEL_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "dynlib/base/random.h"
#include "dynlib/sim/disk.h"
#include "dynlib/store/store.h"
#include "dynlib/store/store_batch.h"
#include "dynlib/store/store_snapshot.h"
#include "tests/store/store_harness.h"

namespace dynlib::store {

class StoreModel {
 public:
  using Forest = std::map<std::string, Contents>;  // by the tree's name

  explicit StoreModel(uint64_t seed);
  ~StoreModel();

  void Run(uint64_t operations);

  // What it went through, so that a test can say that it was there.
  struct Counts {
    uint64_t operations = 0;
    uint64_t conditions_held = 0;
    uint64_t conditions_failed = 0;
    uint64_t range_deletes = 0;
    uint64_t rows_scanned = 0;
    uint64_t cursor_moves = 0;
    uint64_t snapshots = 0;
    uint64_t reopenings = 0;
    uint64_t power_failures = 0;
    uint64_t writes_lost = 0;  // not acknowledged as durable, in power failures
    uint64_t comparisons = 0;  // of everything
    uint64_t pages_evicted = 0;
    uint64_t checkpoints = 0;
  };
  const Counts& counts() const { return counts_; }

 private:
  struct Change {
    std::string tree;
    std::string key;
    std::optional<std::string> value;
    std::optional<std::string> range_end;
  };
  using Changes = std::vector<Change>;
  struct Held {
    StoreSnapshot snapshot;
    Forest forest;
  };

  void Step();
  void Open();
  void Reopen();
  void CountPages();
  void FailPower();

  void WriteSome();
  void AskConditions(StoreBatch& batch, std::optional<size_t>& fails, bool& may_fail);
  void ChangeTrees();
  void TakeOrDropSnapshot();
  void Get();
  void Scan();
  void MoveCursor();
  void CompareAll();
  void CompareHeld();

  std::string AnyKey();
  std::string AnyTree();
  NamedTree Handle(const std::string& tree);
  std::optional<std::string> InModel(const Forest& forest, const std::string& tree,
                                     const std::string& key) const;
  Changes SomeChanges();
  StoreBatch BatchOf(const Changes& changes);
  static void Apply(const Changes& changes, Forest& forest);
  void Remember(const Changes& changes, uint64_t sequence);
  bool ChangedSince(const std::string& tree, const std::string& key, uint64_t sequence) const;
  Forest Found();
  static std::string Difference(const Forest& expected, const Forest& found);

  Random random_;
  sim::SimDisk disk_;
  std::unique_ptr<StoreHarness> h_;
  Forest forest_;
  std::vector<Held> held_;
  // For conditions, since the store was opened.
  std::map<std::pair<std::string, std::string>, uint64_t> changed_at_;
  std::vector<std::pair<Change, uint64_t>> ranges_;
  std::vector<uint64_t> sequences_;
  Counts counts_;
};

}  // namespace dynlib::store

#endif  // TESTS_STORE_STORE_MODEL_H_
