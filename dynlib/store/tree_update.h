// One batch on its way into a copy-on-write tree: builds the next version of the touched pages.
//
// Run is a recursive merge of the sorted batch with the tree: every touched leaf is rebuilt once,
// split into as many pages as it needs; small neighbours under one parent are merged; branches
// above take over the references; the root grows and shrinks. Nothing that exists is changed, so an
// error on the way leaves no trace.
//
//   TreeUpdate update(nodes, id);
//   DYNLIB_ASSIGN_OR_RETURN(Node* new_root, update.Run(root, batch));
//   publish new_root, with update.made() and update.replaced();  update.Published();
//
// Until it is destroyed it pins every page that it has looked at.
//
// A few puts to a leaf that no version that anybody holds has, and no checkpoint has written, go
// behind its page (leaf_tail.h), if AllowTails says so: then neither the page is copied nor the
// branches above it. They show when the update is published. Who takes a snapshot, or begins a
// checkpoint, before that has the leaf as it was: CanShowTailsLocked is false then, and
// TailsToPages does it the other way, without a page that is not in memory.
//
// Cut and Join build anew the pages along one path from the root, and hand over all others.
//
// Internal to the store. Threads: one.
#ifndef DYNLIB_STORE_TREE_UPDATE_H_
#define DYNLIB_STORE_TREE_UPDATE_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/store/leaf_tail.h"
#include "dynlib/store/node.h"
#include "dynlib/store/node_store.h"
#include "dynlib/store/page.h"
#include "dynlib/store/page_change.h"
#include "dynlib/store/write_batch.h"

namespace dynlib::store {

// kInvalidArgument when a key or a value is over its limit.
absl::Status CheckLimits(const WriteBatch& batch);

// How long leaves of rows of so many bytes (slot and cell included) get when they are packed: as
// many units as waste least, two as a rule; as many as may be when they are compressed, since half
// a unit is then lost for each.
uint32_t DenseLeafBytes(size_t row_bytes, bool compressed);

class TreeUpdate {
 public:
  struct Halves {
    Node* below = nullptr;  // null: the empty tree
    Node* above = nullptr;
  };

  // Pages that it makes are marked with `tree`.
  TreeUpdate(NodeStore* nodes, TreeId tree) : nodes_(nodes), tree_(tree) {}
  // Frees the pages that it made, unless Published was called.
  ~TreeUpdate();
  TreeUpdate(const TreeUpdate&) = delete;
  TreeUpdate& operator=(const TreeUpdate&) = delete;

  using Batches = std::span<const WriteBatch* const>;

  // The new root; null for the empty tree; `root` itself when the batches, one after the other,
  // change nothing. `root` and the batches outlive this object.
  absl::StatusOr<Node*> Run(Node* root, Batches batches);
  absl::StatusOr<Node*> Run(Node* root, const WriteBatch& batch) {
    const WriteBatch* one = &batch;
    return Run(root, Batches(&one, 1));
  }

  // Of leaves that were born with that version or since.
  void AllowTails(uint64_t born_since) { tails_since_ = born_since; }
  bool CanShowTailsLocked(uint64_t born_since) const;
  void ShowTails(uint64_t version);
  // The new root, with what went behind leaves in pages. Once.
  Node* TailsToPages(Node* root);

  // The new root, in which [first, end) has `rows` alone: see Tree::Replace.
  absl::StatusOr<Node*> Replace(Node* root, std::string_view first, std::string_view end,
                                const WriteBatch& rows);

  // The new root, in which the leaves whose keys overlap [first, end) are packed anew: see
  // Tree::Compact.
  absl::StatusOr<Node*> Compact(Node* root, std::string_view first, std::string_view end);

  // The keys below `key`, and the others. A page that is in one half as a whole goes there as it
  // is.
  absl::StatusOr<Halves> Cut(Node* root, std::string_view key);

  // All keys in one tree; kInvalidArgument unless those of `left` are below those of `right`.
  absl::StatusOr<Node*> Join(Node* left, Node* right);

  // Nodes of the old version, or versions, that are not in the new; and such as were made on the
  // way, and are in neither.
  std::span<Node* const> replaced() const { return replaced_; }
  std::span<Node* const> made() const { return made_; }
  // What was made has an owner now, and what was looked at may be freed.
  void Published();

 private:
  using Operations = std::span<const WriteBatch::Operation* const>;

  // A subtree of the new version. `separator` is the lower bound that its parent stores: above all
  // keys to its left, at most its own first key; the leftmost of a page has none that counts.
  struct Piece {
    Node* node = nullptr;
    std::string_view separator;
    bool fresh = false;   // may be small: made by this update, or the root of a tree that joins
    uint32_t bytes = 0;   // of the page, where this update made it
    bool tailed = false;  // it is to get rows behind its page
  };
  using Pieces = std::vector<Piece>;

  // An entry of a leaf that is being built, with its overflow value, if any.
  struct Item {
    LeafEntry entry;
    Node* overflow = nullptr;
  };

  // What the touched children of a branch turned into.
  struct Changes {
    struct Child {
      uint32_t child;
      uint32_t end;  // of its pieces, which begin where those of the one before end
    };
    std::vector<Child> children;
    Pieces pieces;
  };

  // Keys put together from prefix and suffix, until the update ends.
  class Arena {
   public:
    std::string_view Concat(std::string_view a, std::string_view b);

   private:
    std::vector<std::unique_ptr<char[]>> blocks_;
    char* free_ = nullptr;
    size_t left_ = 0;
  };

  absl::StatusOr<Node*> RunSorted(Node* root, Operations operations);
  absl::StatusOr<Node*> RunWithRanges(Node* root, Batches batches);
  // Puts and deletes of keys in key order, the last operation on each key alone.
  static std::vector<const WriteBatch::Operation*> Sorted(Batches batches);

  // Each appends what became of `node`, whose lower bound is `separator`, to `out`.
  absl::Status Update(Node* node, const NodeContent& content, std::string_view separator,
                      Operations operations, Pieces& out);
  // `quickly`: ChangeLeaf has not been tried.
  void UpdateLeaf(Node* node, const NodeContent* content, std::string_view separator,
                  Operations operations, bool quickly, Pieces& out);
  absl::Status UpdateBranch(Node* node, const NodeContent& content, std::string_view separator,
                            Operations operations, Pieces& out);

  // The usual case, quickly, of a page in memory: kNo when it is no leaf, or the leaf is to be
  // built anew, be it for overflow values, for keys without its prefix, or because it is to be
  // split, or empty.
  enum class Quickly { kDone, kNo, kNotInMemory };
  Quickly ChangeLeaf(Node* node, std::string_view separator, Operations operations, Pieces& out);
  bool MayHaveTail(const Node& node, Operations operations) const;
  size_t TailBytes(Operations operations) const;
  // Into changes_, with the rows behind the page. False: nothing changes.
  bool CollectChanges(const NodeContent& content, Operations operations);
  // Puts the operations behind the page, or behind a copy. False: not this time. `length`: of the
  // page with all rows in it, at most.
  bool PutBehind(Node* node, NodeContent* content, Operations operations, uint32_t length);
  bool PutBehindCopy(Node* node, NodeContent* content, Operations operations, uint32_t length);
  uint32_t LengthWith(const NodeContent& content, Operations operations) const;
  bool MergeIntoLeaf(const NodeContent* content, Operations operations, std::vector<Item>& items);
  bool ApplyTo(const NodeContent* content, uint32_t index, bool found,
               const WriteBatch::Operation& operation, std::vector<Item>& items);
  void AppendItems(const NodeContent& content, uint32_t from, uint32_t to,
                   std::vector<Item>& items);
  // Pages are filled to the brim when `append`: keys that only ever come at the end.
  void BuildLeaves(std::span<const Item> items, bool append, std::string_view separator,
                   Pieces& out);
  Node* MakeLeaf(std::span<const Item> items);

  absl::Status UpdateChildren(const NodeContent& content, std::string_view separator,
                              Operations operations, Changes& changes);
  size_t CountBelow(const PageView& view, uint32_t child, Operations operations);
  // The usual case, quickly: false when the branch is to be built anew, be it because children are
  // gone, or small, because it is to be split, or for separators without its prefix.
  bool ChangeBranch(const NodeContent& content, std::string_view separator, const Changes& changes,
                    Pieces& out);
  Pieces AllChildren(const NodeContent& content, const Changes& changes = {});
  absl::Status MergeSmallNeighbours(Pieces& pieces, uint32_t level);
  absl::StatusOr<Node*> Merge(const Piece& left, const Piece& right, uint32_t level);
  void BuildBranches(std::span<const Piece> children, uint32_t level, std::string_view separator,
                     Pieces& out);
  Node* MakeBranch(std::span<const Piece> children, uint32_t level);

  absl::StatusOr<Node*> MakeRoot(Pieces pieces);
  // How long a page may get when `total` bytes are spread over as few pages as possible. Evenly, to
  // leave room in each.
  static size_t GoalBytes(size_t total);
  // The shortest string above `left` that is at most `right`.
  static std::string_view ShortestSeparator(std::string_view left, std::string_view right);

  // Of keys; no bound above when `end` is empty.
  struct Range {
    std::string_view first;
    std::string_view end;
    bool Contains(const Range& other) const;
    bool Overlaps(const Range& other) const;
  };
  absl::StatusOr<Node*> ReplaceRange(Node* root, const Range& replaced, Operations sorted);
  // Without `rows` pages that have nothing in the range stay, unless rebuild_.
  absl::Status ReplacePage(Node* node, const NodeContent& content, std::string_view separator,
                           const Range& range, const Range& replaced, Operations rows, Pieces& out);
  void ReplaceInLeaf(Node* node, const NodeContent& content, std::string_view separator,
                     const Range& replaced, Operations rows, Pieces& out);
  // A subtree of that level with these rows.
  void BuildSubtree(Operations rows, uint32_t level, std::string_view separator, Pieces& out);
  // Replaces `node` and all that is found below it.
  absl::Status Discard(Node* node);

  absl::Status CompactBranch(Node* node, const NodeContent& content, std::string_view separator,
                             const Range& range, const Range& wanted, Pieces& out);

  // What became of `node` on both sides of `key`.
  absl::Status CutPage(Node* node, const NodeContent& content, std::string_view separator,
                       std::string_view key, Pieces& below, Pieces& above);
  void CutLeaf(Node* node, const NodeContent& content, std::string_view separator,
               std::string_view key, Pieces& below, Pieces& above);
  absl::Status FinishBranch(Pieces children, uint32_t level, std::string_view separator,
                            Pieces& out);
  absl::StatusOr<std::string_view> EdgeKey(Node* root, bool last);
  // Puts a lower tree before or behind all that is below `node`. `boundary` separates the two.
  struct Grafted {
    Node* root;
    uint32_t level;
    std::string_view boundary;
    bool at_end;
  };
  absl::Status Graft(Node* node, const NodeContent& content, std::string_view separator,
                     const Grafted& lower, Pieces& out);

  // Pinned until this object's end.
  absl::StatusOr<const NodeContent*> LoadTreePage(Node* node);
  absl::StatusOr<const NodeContent*> LoadChild(const NodeContent& parent, uint32_t index);
  // With the rows behind a leaf in its page.
  const NodeContent* Pin(ContentRef content);
  std::string_view Key(const PageView& view, uint32_t index);
  void Replace(Node* node) { replaced_.push_back(node); }
  Node* MakeNode(NodeContent* content);
  // Of a node that this update made.
  static Piece Made(Node* node, std::string_view separator) {
    return {node, separator, true, node->content()->length};
  }

  NodeStore* const nodes_;
  const TreeId tree_;
  bool rebuild_ = false;
  bool merges_ = true;
  std::optional<uint64_t> tails_since_;
  struct Behind {
    Node* node;
    LeafTail* tail;
    uint32_t rows;        // with the new ones
    uint32_t page_bytes;  // of the page with all of them
    Operations operations;
  };
  std::vector<Behind> behind_;
  std::vector<const WriteBatch::Operation*> sorted_;
  std::vector<NodeContent*> copied_;  // leaves: each has another content
  std::vector<NodeContent*> flat_;    // that are no node's
  Arena arena_;
  std::vector<Node*> replaced_;
  std::vector<Node*> made_;
  std::vector<LeafChange> changes_;  // to the leaf that is being changed
  std::vector<LeafChange> tail_;     // of them, what is behind its page
  std::vector<NewSeparator> added_;  // to the branch that is being changed
  std::vector<LeafEntry> entries_;   // of the leaf that is being made
  std::vector<ContentRef> pinned_;
  bool dense_ = false;  // leaves are as long as wastes least
};

}  // namespace dynlib::store

#endif  // DYNLIB_STORE_TREE_UPDATE_H_
