// What the nodes of all trees of a page file share: the file, its free space, and counters.
//
// Internal to the store.
//
// Threads: any. No lock is held across a file call.
#ifndef DYNLIB_STORE_NODE_STORE_H_
#define DYNLIB_STORE_NODE_STORE_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/base/metrics.h"
#include "dynlib/runtime/disk.h"
#include "dynlib/store/extent_allocator.h"
#include "dynlib/store/node.h"
#include "dynlib/store/page.h"

namespace dynlib::store {

// A page as a pass over a tree sees it: the content of a node in memory, or bytes that were read
// for this pass alone. Valid for as long as the pass has its version pinned.
class OpenPage {
 public:
  explicit OpenPage(const NodeContent* content) : content_(content) {}
  explicit OpenPage(PageBytes read) : read_(std::move(read)) {}

  PageView view() const {
    return content_ != nullptr ? content_->view() : PageView(read_.data.get());
  }
  // Null when the bytes were read.
  const NodeContent* content() const { return content_; }
  uint32_t child_length(uint32_t i) const {
    return content_ != nullptr ? content_->children[i]->length() : view().child(i).length;
  }

 private:
  const NodeContent* content_ = nullptr;
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
    std::atomic<uint64_t> page_memory_bytes{0};
  };
  // What the parent of a page expects of it.
  enum class Expect { kTreePage, kOverflow };

  NodeStore(std::unique_ptr<File> file, std::string path, uint64_t file_units, Growth growth,
            MetricsSink* metrics)
      : file_(std::move(file)),
        path_(std::move(path)),
        growth_(growth),
        metrics_(metrics),
        allocator_(file_units) {}

  NodeRef MakeNode(uint64_t epoch, PageBytes bytes, std::vector<NodeRef> children);

  // The content of the node, from memory or else from disk; valid for as long as the node.
  absl::StatusOr<const NodeContent*> Load(Node& node, Expect expect, ReadMode mode) {
    const NodeContent* content = node.content();
    if (content != nullptr) return content;
    return LoadFromDisk(node, expect, mode);
  }
  // A child of `parent`: its subtree `index`, or its overflow value `index`.
  absl::StatusOr<const NodeContent*> LoadChild(const NodeContent& parent, uint32_t index,
                                               ReadMode mode);

  // The same for passes, in any mode.
  absl::StatusOr<OpenPage> Open(Node& node, Expect expect, ReadMode mode);
  absl::StatusOr<OpenPage> OpenChild(const OpenPage& parent, uint32_t index, ReadMode mode);

  // Reads, verifies and checks a page, whatever is in memory. kDataLoss if it is not the page that
  // `ref` means.
  absl::StatusOr<PageBytes> ReadPage(const PageRef& ref);

  // Space for a page; grows the file when there is none.
  absl::StatusOr<Extent> Allocate(uint64_t units);

  // A node's last reference went.
  void Forget(const NodeContent* content, const PageRef& retired_address);

  File& file() { return *file_; }
  const std::string& path() const { return path_; }
  ExtentAllocator& allocator() { return allocator_; }
  Counters& counters() { return counters_; }
  MetricsSink* metrics() { return metrics_; }

 private:
  absl::StatusOr<const NodeContent*> LoadFromDisk(Node& node, Expect expect, ReadMode mode);
  absl::StatusOr<PageBytes> ReadPageOf(const PageRef& ref, Expect expect);
  absl::Status CheckLevel(const PageView& parent, const PageView& child, const PageRef& ref);
  absl::Status Damaged(const PageRef& ref, std::string_view what);
  absl::Status Grow(uint64_t units);
  absl::Status GrowAtEnd(uint64_t units, uint64_t step);

  const std::unique_ptr<File> file_;
  const std::string path_;
  const Growth growth_;
  MetricsSink* const metrics_;
  ExtentAllocator allocator_;
  Counters counters_;
};

}  // namespace dynlib::store

#endif  // DYNLIB_STORE_NODE_STORE_H_
