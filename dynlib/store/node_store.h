// What the nodes of all trees of a page file share: the file, its free space, memory and its
// budget, the versions that are held, and counters.
//
// Memory. Content that a checkpoint has written can be dropped and read again: when more than the
// budget is in use, the evictor goes round all content and drops what was not looked at since it
// last came by (second chance). What stays: content that nothing has written yet, content that is
// pinned, and a branch as long as content hangs below it. The thread that went over the budget does
// it, a few pages at a time.
//
// Internal to the store.
//
// Threads: any. No lock is held across a file call.
#ifndef DYNLIB_STORE_NODE_STORE_H_
#define DYNLIB_STORE_NODE_STORE_H_

#include <atomic>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/base/metrics.h"
#include "dynlib/runtime/disk.h"
#include "dynlib/store/epochs.h"
#include "dynlib/store/extent_allocator.h"
#include "dynlib/store/node.h"
#include "dynlib/store/page.h"
#include "dynlib/store/page_compression.h"
#include "dynlib/store/page_memory.h"
#include "dynlib/store/versions.h"

namespace dynlib::store {

// A page as a pass over a tree sees it: the content of a node in memory, pinned, or bytes that were
// read for this pass alone.
class OpenPage {
 public:
  explicit OpenPage(ContentRef content) : content_(std::move(content)) {}
  explicit OpenPage(PageBytes read) : read_(std::move(read)) {}

  PageView view() const { return content_ ? content_->view() : PageView(read_.data.get()); }
  // Null when the bytes were read.
  const NodeContent* content() const { return content_.get(); }

 private:
  ContentRef content_;
  PageBytes read_;
};

class NodeStore {
 public:
  struct Growth {
    uint64_t bytes_min;
    uint64_t bytes_max;
  };
  struct Counters {
    std::atomic<uint64_t> pages_read{0};
    std::atomic<uint64_t> pages_written{0};
    std::atomic<uint64_t> bytes_written{0};
    std::atomic<uint64_t> pages_compressed{0};  // of pages_written
    std::atomic<uint64_t> compression_saved_units{0};
    std::atomic<uint64_t> dirty_bytes{0};  // of memory, that no checkpoint has written
    std::atomic<uint64_t> pages_evicted{0};
    std::atomic<uint64_t> reads_missed{0};
    std::atomic<uint64_t> rows_behind_leaves{0};
  };
  // What the parent of a page expects of it.
  enum class Expect { kTreePage, kOverflow };

  NodeStore(std::unique_ptr<File> file, std::string path, uint64_t file_units, Growth growth,
            uint64_t memory_bytes, const PageCompressor::Options& compression, MetricsSink* metrics)
      : file_(std::move(file)),
        path_(std::move(path)),
        growth_(growth),
        memory_bytes_(memory_bytes),
        metrics_(metrics),
        compressor_(compression),
        allocator_(file_units) {}

  // Memory for a page that a writer makes, to be filled in, and then its node.
  NodeContent* NewContent(uint32_t length, uint32_t children) {
    return memory_.NewContent(length, children);
  }
  NodeContent* NewLeaf(uint32_t length, size_t tail_bytes) {
    return memory_.NewLeaf(length, tail_bytes);
  }
  // Of which nobody has made a node.
  void FreeUnused(NodeContent* content) { memory_.Free(content); }
  // Rows have come behind leaves.
  void CountRowsBehind(uint64_t rows, uint64_t bytes) {
    counters_.rows_behind_leaves.fetch_add(rows, std::memory_order_relaxed);
    counters_.dirty_bytes.fetch_add(bytes, std::memory_order_relaxed);
  }
  Node* MakeNode(NodeContent* content);
  // A page on disk, of the newest checkpoint at opening.
  Node* MakeNode(const PageRef& address);
  // Of an update that came to nothing: nobody has seen it.
  void Unmake(Node* node);

  // The leaf `content` with the rows behind it in its page, for the writer that looks at it.
  NodeContent* NewFlat(const NodeContent& content);
  // Puts content that says the same in the place of `old`, which is then to be handed to DropLater:
  // by the writer, or a checkpoint. Under a guard. False: somebody has pinned that, or takes it
  // away. With `pinned` the caller gets a pin of the new one.
  bool ReplaceContent(Node& node, NodeContent& old, NodeContent* content, bool pinned);
  void DropLater(std::vector<NodeContent*> replaced);
  // What a page says, all in one piece from then on if nobody is at it. For a checkpoint that is
  // to write it: it is in memory.
  OpenPage OpenSettled(Node& node);

  // The content of the node, from memory or else from disk. Of a leaf there may be rows behind it.
  absl::StatusOr<ContentRef> Load(Node& node, Expect expect, ReadMode mode) {
    ContentRef content = PinContent(node);
    if (content) return content;
    return LoadFromDisk(node, expect, mode);
  }
  // A child of `parent`: its subtree `index`, or its overflow value `index`. `parent` is pinned.
  absl::StatusOr<ContentRef> LoadChild(const NodeContent& parent, uint32_t index, ReadMode mode);

  // The same for passes, in any mode.
  absl::StatusOr<OpenPage> Open(Node& node, Expect expect, ReadMode mode);
  absl::StatusOr<OpenPage> OpenChild(const OpenPage& parent, uint32_t index, ReadMode mode);
  // Asks the processor for the slots of a child that is in memory and comes soon.
  void AskForChild(const OpenPage& parent, uint32_t index) {
    if (parent.content() != nullptr) parent.content()->child(index)->content_with_slots();
  }
  // A child that is in memory, where that is what the mode wants.
  std::optional<OpenPage> OpenChildInMemory(const OpenPage& parent, uint32_t index, ReadMode mode);
  // Of the page that is child `index`, read or not.
  uint32_t ChildLength(const OpenPage& parent, uint32_t index);
  uint32_t Length(Node& node);

  // Reads, verifies, expands and checks a page, whatever is in memory. kDataLoss if it is not the
  // page that `ref` means.
  absl::StatusOr<PageBytes> ReadPage(const PageRef& ref);
  // From now on what is kDataLoss once stays so.
  void RememberDamage() { remembers_damage_.store(true, std::memory_order_relaxed); }

  // Space for a page; grows the file when there is none.
  absl::StatusOr<Extent> Allocate(uint64_t units);

  // Frees retired nodes, and their extents, once no reader is looking at them.
  void FreeLater(std::vector<Node*> nodes);
  // Frees the nodes that waited for a capture.
  void FreeDead(std::span<Node* const> nodes);
  // The page of a node was written.
  void WrittenToDisk(Node& node);
  // To be called after memory was taken: evicts while there is too much.
  void KeepToBudget() {
    if (memory_.used_bytes() > evict_above_.load(std::memory_order_relaxed)) Evict();
  }
  // See PageMemory: memory is growing, and there is room for more within the budget.
  bool WantsMemoryAhead() const { return memory_.WantsSpare(memory_bytes_); }
  void MakeMemoryAhead() { memory_.MakeSpares(memory_bytes_); }

  File& file() { return *file_; }
  const std::string& path() const { return path_; }
  PageCompressor& compressor() { return compressor_; }
  ExtentAllocator& allocator() { return allocator_; }
  Counters& counters() { return counters_; }
  MetricsSink* metrics() { return metrics_; }
  Epochs& epochs() { return epochs_; }
  Versions& versions() { return versions_; }
  const PageMemory& memory() const { return memory_; }
  uint64_t memory_bytes() const { return memory_bytes_; }

 private:
  // Unlinked, and waiting for readers.
  struct Limbo {
    uint64_t tag;
    std::vector<Node*> nodes;
    std::vector<std::pair<NodeContent*, uint64_t>> contents;  // and when its node was retired
  };

  ContentRef PinContent(Node& node);
  // For who met content that is being replaced.
  void WaitForReplacement();
  static PageBytes FlatBytes(const NodeContent& content);
  static OpenPage Opened(ContentRef content);
  // What counts as dirty, until it is written: without room behind a leaf that no row has yet.
  static uint64_t DirtyBytes(const NodeContent& content) {
    const uint64_t unused = content.tailed ? content.tail().capacity() - content.tail().used() : 0;
    return PageMemory::SlotBytes(content) - unused;
  }
  absl::StatusOr<ContentRef> LoadFromDisk(Node& node, Expect expect, ReadMode mode);
  NodeContent* MakeContent(Node& node, const PageBytes& page);
  absl::StatusOr<PageBytes> ReadPageOnce(const PageRef& ref);
  absl::StatusOr<PageBytes> ReadPageOf(const PageRef& ref, Expect expect);
  absl::Status CheckLevel(const PageView& parent, const PageView& child, const PageRef& ref);
  absl::Status Damaged(const PageRef& ref, std::string_view what);
  absl::Status Grow(uint64_t units);
  absl::Status GrowAtEnd(uint64_t units, uint64_t step);

  void Evict();
  bool TryEvict(NodeContent& content, uint64_t oldest_borrower, bool second_chance);
  static bool Claim(NodeContent& content);
  void Put(Limbo limbo);
  void Reclaim();
  void FreeRetired(Node* node);
  void FreeContent(NodeContent* content, uint64_t retired_at);

  const std::unique_ptr<File> file_;
  const std::string path_;
  const Growth growth_;
  const uint64_t memory_bytes_;
  MetricsSink* const metrics_;
  PageCompressor compressor_;
  ExtentAllocator allocator_;
  Counters counters_;
  Epochs epochs_;
  PageMemory memory_;
  Versions versions_;
  // Above the budget when there was nothing left to evict, so as not to look in vain each time.
  std::atomic<uint64_t> evict_above_{memory_bytes_};
  std::atomic<uint64_t> looks_in_vain_{0};  // of the evictor, since it last found something

  std::atomic<bool> remembers_damage_{false};
  std::mutex damage_mutex_;
  std::map<std::pair<uint64_t, uint64_t>, absl::Status> damage_;  // by unit and checksum expected

  // Held while content that was not written is replaced, or counted as written.
  std::mutex dirty_mutex_;

  std::mutex limbo_mutex_;
  std::deque<Limbo> limbo_;                 // tags ascend
  std::atomic<bool> limbo_is_empty_{true};  // so that who looks in vain takes no lock
};

}  // namespace dynlib::store

#endif  // DYNLIB_STORE_NODE_STORE_H_
