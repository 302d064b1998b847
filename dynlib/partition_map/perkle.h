// A Perkle tree: an ordered map from byte strings to byte strings that is a Patricia trie, so it
// finds neighbours and prefixes, and a Merkle tree, so two copies find what differs between them.
//
// This is the structure in which DynamoDB's MemDS keeps routing metadata (Elhemali et al., 2022):
// "a hybrid of a Patricia tree and a Merkle tree" that answers full key, prefix, less, greater,
// between, floor and ceiling. Here it is a radix tree over half bytes (nibbles), with chains of
// only children compressed. Its shape follows from its contents alone, so equal contents have equal
// digests whatever the order in which they came.
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
// Copies are independent of one another, so readers that took a copy never meet the writer.
//
// Cost: Put and Erase copy the nodes on one path, O(nibbles that distinguish the key), about five
// for a million random keys. A node is 32 bytes, 8 for each child, and its part of key and value.
//
// Limits: keys 0 to 16,384 bytes, compared as unsigned bytes; values 0 to 65,534 bytes.
#ifndef DYNLIB_PARTITION_MAP_PERKLE_H_
#define DYNLIB_PARTITION_MAP_PERKLE_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "dynlib/base/checksum.h"
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

  // `value` points into the version that was asked: valid while that, or a copy of it, lives
  // unchanged.
  struct Entry {
    std::string key;
    std::string_view value;
  };
  // Called in key order; the views are valid during the call. False ends the scan.
  using Visitor = absl::FunctionRef<bool(std::string_view key, std::string_view value)>;

  // Empty.
  Perkle() = default;

  size_t size() const;
  bool empty() const { return root_ == nullptr; }
  // Of the contents: equal contents, equal digests; zero when empty.
  Digest128 digest() const;
  // Whether two handles share the very same version: cheaper than comparing digests.
  bool SharesRoot(const Perkle& other) const { return root_.get() == other.root_.get(); }

  // Inserts, or replaces the value. kInvalidArgument for a key or a value over its limit.
  absl::Status Put(std::string_view key, std::string_view value);
  // Whether the key was there.
  bool Erase(std::string_view key);

  std::optional<std::string_view> Find(std::string_view key) const;
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

  // Memory of the nodes that this version reaches, those shared with others included. Walks all.
  size_t MemoryBytes() const;
  // Whether every node is as the contents demand: shape, counts and digests. For tests; walks all.
  bool Verify() const;

 private:
  friend class PerkleCursor;
  internal::PerkleNodeRef root_;
};

// A place in one version of a tree, moved from key to key in either direction. It keeps its version
// alive, whatever happens to the Perkle that it was made from.
//
//   PerkleCursor cursor(tree);
//   for (cursor.SeekCeiling("a"); cursor.valid(); cursor.Next()) Use(cursor.key(), cursor.value());
//
// Threads: one at a time.
class PerkleCursor {
 public:
  // Invalid until a Seek.
  explicit PerkleCursor(const Perkle& tree) : root_(tree.root_) {}

  void SeekFirst();
  void SeekLast();
  void SeekFloor(std::string_view key);
  void SeekCeiling(std::string_view key);
  void SeekLess(std::string_view key);
  void SeekGreater(std::string_view key);

  // False once it was moved past either end; it must be sought again then.
  bool valid() const { return !frames_.empty(); }
  // While valid. The key is valid until the cursor moves, the value as long as the version.
  std::string_view key() const { return key_; }
  std::string_view value() const;
  void Next();
  void Previous();

 private:
  // `child` is where the cursor went below `node`: an index, or kAtNode for the node's own entry.
  struct Frame {
    const internal::PerkleNode* node;
    uint32_t start;  // nibbles before the node's own
    int child;
  };
  static constexpr int kAtNode = -1;

  // How a key stands to the node at which its way down the tree ended.
  enum class Place {
    kNowhere,        // the tree is empty
    kBefore,         // less than all keys of the node
    kAt,             // the node's own key, or where that would be
    kAmongChildren,  // after the node's own key, before the child at index `child`, if any
    kAfter,          // greater than all keys of the node
  };

  Place Descend(std::string_view key);
  void Push(const internal::PerkleNode* node, uint32_t start);
  void PushChild(uint32_t index);
  void StopAtNode();
  void DescendFirst();
  void DescendLast();
  void ClimbNext();
  void ClimbPrevious();

  internal::PerkleNodeRef root_;
  std::vector<Frame> frames_;
  std::string key_;
};

}  // namespace dynlib::partition_map

#endif  // DYNLIB_PARTITION_MAP_PERKLE_H_
