// A Perkle tree: an ordered map from byte strings to byte strings that is a Patricia trie, so it
// finds neighbours and prefixes, and a Merkle tree, so two copies find what differs between them.
//
// This is the structure in which DynamoDB's MemDS keeps routing metadata (Elhemali et al., 2022):
// "a hybrid of a Patricia tree and a Merkle tree" that answers full key, prefix, less, greater,
// between, floor and ceiling. Here it is a radix tree over half bytes (nibbles), with chains of
// only children compressed, down to where some fifty entries are left; these are one leaf, packed.
// Its shape follows from its contents alone, so equal contents have equal digests whatever the
// order in which they came. docs/decisions/007 has what else was considered.
//
//   Perkle tree;
//   DYNLIB_RETURN_IF_ERROR(tree.Put("apple", "1"));
//   DYNLIB_RETURN_IF_ERROR(tree.Put("pear", "2"));
//   Perkle before = tree;                          // O(1): shares every node
//   tree.Erase("apple");
//   before.Floor("banana")->key;                   // "apple"
//   Perkle::Diff(before, tree, visitor);           // visits "apple" alone
//
// A Perkle is a value: one version, cheap to copy. Put and Erase give this object a new version
// that shares all but a path with the old one; copies made before keep theirs.
//
// Threads: like std::string: const methods from any thread at once, no other call at the same time.
// Copies are independent of one another, so readers that took a copy never meet the writer
// (published.h hands versions over without locks).
//
// Cost: a look-up reads one branch for each nibble that the number of entries takes, less the last
// two or so (four for ten million random keys), and three or four cache lines of a leaf. Put and
// Erase pack one leaf anew and copy the branches above it. A leaf is at most 6 KiB of keys and
// values, or one entry. Values that end with the next key's last bytes, as the ends of adjacent
// ranges do, take no room for these.
//
// Limits: keys 0 to 16,384 bytes, compared as unsigned bytes; values 0 to 65,534 bytes; 2^32 - 1
// entries.
#ifndef DYNLIB_PARTITION_MAP_PERKLE_H_
#define DYNLIB_PARTITION_MAP_PERKLE_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/base/checksum.h"
#include "dynlib/partition_map/perkle_leaf.h"
#include "dynlib/partition_map/perkle_node.h"

namespace dynlib::partition_map {

enum class ScanOrder { kForward, kReverse };

// The place of a subtree: all keys that begin with these nibbles. A byte is its high nibble, then
// its low one; after an odd number of nibbles the low half of the last byte is zero.
struct PerklePath {
  std::string bytes;
  uint32_t nibbles = 0;

  // All keys that begin with `prefix`.
  static PerklePath Prefix(std::string_view prefix) {
    return {std::string(prefix), static_cast<uint32_t>(2 * prefix.size())};
  }
  // What a key begins with; `nibbles` are no more than it has.
  static PerklePath Of(std::string_view key, uint32_t nibbles);
  // Whether the number of bytes and the last half byte are as they must be: for paths from outside.
  bool valid() const;
  bool Contains(std::string_view key) const;
  // Of the nibble at a place before the end.
  uint32_t At(uint32_t nibble) const { return internal::NibbleAt(bytes, nibble); }
  PerklePath Child(uint32_t nibble) const;
  // How many of the first nibbles are the same.
  uint32_t CommonWith(const PerklePath& other) const;
  friend bool operator==(const PerklePath&, const PerklePath&) = default;
};

class Perkle {
 public:
  static constexpr size_t kKeyBytesMax = 16384;
  static constexpr size_t kValueBytesMax = 65534;

  struct Entry {
    std::string key;
    std::string value;
  };
  // Called in key order; the views are valid during the call. False ends the scan.
  using Visitor = absl::FunctionRef<bool(std::string_view key, std::string_view value)>;

  // Empty.
  Perkle() = default;

  // Of entries in ascending key order: many times faster than one Put after the other.
  // kInvalidArgument for a key that is not greater than the one before it, a key or a value over
  // its limit, or too many.
  static absl::StatusOr<Perkle> FromSorted(
      std::span<const std::pair<std::string_view, std::string_view>> entries);

  size_t size() const { return empty() ? 0 : root_.node->entries; }
  bool empty() const { return root_.node == nullptr; }
  // Of the contents: equal contents, equal digests; zero when empty.
  Digest128 digest() const { return root_.digest; }

  // Inserts, or replaces the value. kInvalidArgument for a key or a value over its limit.
  absl::Status Put(std::string_view key, std::string_view value);
  // Whether the key was there.
  bool Erase(std::string_view key);
  // In the place of all keys in [first, end), the entries given, which are of that range and in
  // ascending order; an empty `end` means no upper bound. kInvalidArgument when they are not, or
  // over their limits, and nothing has changed then. O(entries that go or come).
  absl::Status ReplaceRange(std::string_view first, std::string_view end,
                            std::span<const std::pair<std::string_view, std::string_view>> entries);

  // Where an entry lies: what the hot path gets, without a copy and without an allocation. Valid
  // while the version that was asked, or a copy of it, lives unchanged.
  class Hit {
   public:
    Hit() = default;
    bool found() const { return node_ != nullptr; }
    // While found: how many bytes the entry's key and the key sought begin with alike.
    uint32_t matched() const { return matched_; }
    bool exact() const { return exact_; }
    // The value is the two together.
    std::string_view value_head() const { return slot_.value; }
    std::string_view value_rest() const { return rest_; }
    void AppendValue(std::string& to) const { to.append(slot_.value).append(rest_); }
    void ReadKey(std::string& key) const;

   private:
    friend class Perkle;
    friend class PerkleCursor;
    const internal::PerkleNode* node_ = nullptr;
    internal::LeafSlot slot_;
    std::string_view rest_;
    uint32_t matched_ = 0;
    bool exact_ = false;
  };
  Hit FloorHit(std::string_view key) const;  // the greatest <= key
  // Several at once: their memory is fetched side by side, which takes about half the time that as
  // many single ones take when the tree is not in the processor's caches. As many hits as keys.
  void FloorHits(std::span<const std::string_view> keys, std::span<Hit> hits) const;

  std::optional<std::string> Find(std::string_view key) const;
  std::optional<Entry> First() const;
  std::optional<Entry> Last() const;
  std::optional<Entry> Floor(std::string_view key) const;    // the greatest <= key
  std::optional<Entry> Ceiling(std::string_view key) const;  // the least >= key
  std::optional<Entry> Less(std::string_view key) const;     // the greatest < key
  std::optional<Entry> Greater(std::string_view key) const;  // the least > key

  // Visits the keys in [first, end) ("between"); an empty `end` means no upper bound. kReverse
  // visits the same keys from the last to the first.
  void Scan(std::string_view first, std::string_view end, ScanOrder order, Visitor visit) const;
  void ScanPrefix(std::string_view prefix, ScanOrder order, Visitor visit) const;

  // Called for each key whose value differs, in key order; the side that lacks the key is nullopt.
  // False ends it.
  using DiffVisitor = absl::FunctionRef<bool(
      std::string_view key, std::optional<std::string_view> a, std::optional<std::string_view> b)>;
  // The work is proportional to what differs (times the height), not to the size: what the two
  // share is passed over by pointer, what is equal by digest.
  static void Diff(const Perkle& a, const Perkle& b, DiffVisitor visit);

  // What two trees tell each other to find their differences (see sync_session.h).
  struct Subtree {
    PerklePath path;
    Digest128 digest;      // of the entries below `path`; zero when there are none
    uint64_t entries = 0;  // how many
  };
  // Of all entries below a path. Equal in two trees exactly if they have the same entries there.
  Subtree Summarize(const PerklePath& path) const;
  // The first branch at or below a path: its place, the entry whose key ends there, and its
  // children in key order. All entries below `path` are there; with one entry there are no
  // children.
  struct Branch {
    PerklePath path;
    std::optional<Entry> entry;
    std::vector<Subtree> children;
  };
  // Nothing when there are no entries below `path`.
  std::optional<Branch> BranchAt(const PerklePath& path) const;
  // Visits the entries below `path` in key order, after the key `after` if there is one.
  void ScanSubtree(const PerklePath& path, std::optional<std::string_view> after,
                   Visitor visit) const;

  // Memory of the nodes that this version reaches, those shared with others included, without what
  // the allocator adds (8 to 23 bytes a node of some 2,000). Walks all.
  size_t MemoryBytes() const;
  // Whether every node is as the contents demand: shape, counts and digests. For tests; walks all.
  bool Verify() const;

 private:
  friend class PerkleCursor;
  struct Change {
    std::string_view key;
    std::optional<std::string_view> value;  // nothing: erases
    // What it adds to both; sums wrap around where it takes away.
    uint64_t entries = 0;
    uint64_t weight = 0;
    // Where the value is to be put when the leaf stays a leaf beside the same others.
    const Hit* in_place = nullptr;
  };
  // The change does change something.
  void Apply(const Change& change);
  void ApplyBelow(const Change& change);
  static void Take(const internal::PerkleNode* leaf, const internal::LeafBlock& block,
                   const internal::LeafBlock::Found& found, Hit& hit);
  static void TakeLast(const internal::PerkleNode* node, std::string_view key, Hit& hit);

  internal::PerkleTree root_;
};

// A place in one version of a tree, moved from key to key in either direction. It keeps its version
// alive, whatever happens to the Perkle that it was made from.
//
//   PerkleCursor cursor(tree);
//   for (cursor.SeekCeiling("a"); cursor.valid(); cursor.Next()) Use(cursor.key(), cursor.value());
//
// Cost: Next is a few nanoseconds; Previous unpacks up to a dozen entries.
//
// Threads: one at a time.
class PerkleCursor {
 public:
  // Invalid until a Seek.
  explicit PerkleCursor(const Perkle& tree) : root_(tree.root_.node) {}
  // Of a subtree, or of nothing when null. Internal.
  explicit PerkleCursor(const internal::PerkleNode* root) : root_(root) {}

  void SeekFirst();
  void SeekLast();
  void SeekFloor(std::string_view key);
  void SeekCeiling(std::string_view key);
  void SeekLess(std::string_view key);
  void SeekGreater(std::string_view key);

  // False once it was moved past either end; it must be sought again then.
  bool valid() const { return leaf_ != nullptr; }
  // While valid; valid themselves until the cursor moves.
  std::string_view key() const { return key_; }
  std::string_view value() const { return rest_.empty() ? slot_.value : joined_; }
  void Next();
  void Previous();

 private:
  // `child` is the index of where the cursor went below `node`.
  struct Frame {
    const internal::PerkleNode* node;
    int child;
  };

  void DescendFirst(const internal::PerkleNode* node);
  void DescendLast(const internal::PerkleNode* node);
  void ClimbNext();
  void ClimbPrevious();
  void Stand(const internal::PerkleNode* leaf, const internal::LeafSlot& slot);
  void ReadValue();

  internal::PerkleNodeRef root_;
  std::vector<Frame> frames_;
  const internal::PerkleNode* leaf_ = nullptr;
  internal::LeafSlot slot_;
  std::string key_;
  std::string_view rest_;
  std::string joined_;  // the value, when it is in two pieces
};

}  // namespace dynlib::partition_map

#endif  // DYNLIB_PARTITION_MAP_PERKLE_H_
