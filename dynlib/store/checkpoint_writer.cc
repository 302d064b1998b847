#include "dynlib/store/checkpoint_writer.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "dynlib/base/status_macros.h"

namespace dynlib::store {
namespace {

// Writers beside a checkpoint come in groups, which wait for a sync of the log: between two of them
// there is time for some small writes.
constexpr int kQuietWrites = 16;

}  // namespace

absl::Status NeverRetried(const absl::Status& status) {
  if (!absl::IsResourceExhausted(status)) return status;
  return absl::DataLossError(status.message());
}

absl::Status CheckpointWriter::WriteTree(Node& node) {
  if (!node.address().null()) return absl::OkStatus();
  // What was never written stays in memory.
  const OpenPage open = nodes_->OpenSettled(node);
  const std::string_view whole(open.view().bytes(), open.view().length());
  const std::span<Node* const> children =
      open.content() == nullptr ? std::span<Node* const>() : open.content()->all_children();
  for (Node* child : children) DYNLIB_RETURN_IF_ERROR(WriteTree(*child));
  const bool compressed = Compress(whole, children);
  const std::string_view page = compressed ? std::string_view(compressed_) : whole;
  DYNLIB_ASSIGN_OR_RETURN(Extent extent, Reserve(page.size()));
  const auto length = static_cast<uint32_t>(whole.size());
  gathered_.push_back({&node, extent, of_checkpoint_, compressed ? length : 0});
  PageRef ref = Append(page, extent, compressed ? std::span<Node* const>() : children);
  ref.generation = generation_;
  ref.childless = children.empty();
  node.set_address(ref);
  return absl::OkStatus();
}

// Into compressed_. False: the page is written as it is.
bool CheckpointWriter::Compress(std::string_view page, std::span<Node* const> children) {
  PageCompressor& compressor = nodes_->compressor();
  if (!compressor.enabled()) return false;
  if (children.empty()) return compressor.Compress(page, compressed_);
  whole_.assign(page);
  PutChildren(children, whole_.data());
  return compressor.Compress(whole_, compressed_);
}

// The page in memory stays as it is: readers are looking at it.
void CheckpointWriter::PutChildren(std::span<Node* const> children, char* page) {
  char* table = page + kPageHeaderBytes;
  for (const Node* child : children) {
    PutPageRef(table, child->address());
    table += kPageRefBytes;
  }
}

absl::Status CheckpointWriter::WriteOldVersion(Node& root) {
  of_checkpoint_ = false;
  absl::Status written = WriteTree(root);
  of_checkpoint_ = true;
  return written;
}

absl::StatusOr<PageRef> CheckpointWriter::WriteBlob(const PageBytes& page) {
  DYNLIB_ASSIGN_OR_RETURN(Extent extent, Reserve(page.length));
  return Append(page.view(), extent, {});
}

absl::StatusOr<Extent> CheckpointWriter::Reserve(size_t length) {
  uint64_t units = PageRef{.length = static_cast<uint32_t>(length)}.extent().count;
  DYNLIB_ASSIGN_OR_RETURN(Extent extent, nodes_->Allocate(units));
  bool adjoins = extent.first == first_unit_ + buffered_ / kUnitBytes;
  if (!adjoins || buffered_ + units * kUnitBytes > write_bytes()) {
    absl::Status flushed = Flush();
    if (!flushed.ok()) {
      nodes_->allocator().Release(extent);
      return flushed;
    }
    first_unit_ = extent.first;
  }
  return extent;
}

PageRef CheckpointWriter::Append(std::string_view page, Extent extent,
                                 std::span<Node* const> children) {
  const uint64_t bytes = extent.count * kUnitBytes;
  // Only what is buffered alone may be larger than that.
  char* const to = buffer_.Get(std::max(pace_.write_bytes_max, bytes)) + buffered_;
  std::memcpy(to, page.data(), page.size());
  PutChildren(children, to);
  std::memset(to + page.size(), 0, bytes - page.size());
  buffered_ += bytes;
  return {extent.first, static_cast<uint32_t>(page.size()),
          PageChecksum(std::string_view(to, page.size()), extent.first)};
}

absl::Status CheckpointWriter::Flush() {
  if (buffered_ == 0) return absl::OkStatus();
  absl::Status written = nodes_->file().WriteDirect(first_unit_ * kUnitBytes,
                                                    std::string_view(buffer_.Get(0), buffered_));
  if (!written.ok()) {
    TakeBack();
    return written;
  }
  nodes_->counters().pages_written.fetch_add(gathered_.size(), std::memory_order_relaxed);
  nodes_->counters().bytes_written.fetch_add(buffered_, std::memory_order_relaxed);
  nodes_->metrics()->Count("store.checkpoint_pages", static_cast<int64_t>(gathered_.size()));
  nodes_->metrics()->Count("store.checkpoint_bytes", static_cast<int64_t>(buffered_));
  for (const Gathered& page : gathered_) {
    if (page.of_checkpoint) tree_units_->Add(page.extent);
    if (page.expanded_length > 0) CountCompressed(page);
    nodes_->WrittenToDisk(*page.node);
  }
  gathered_.clear();
  pace_.after_write(std::exchange(buffered_, 0));
  quiet_writes_ = pace_.busy() ? 0 : std::min(quiet_writes_ + 1, kQuietWrites);
  return absl::OkStatus();
}

uint64_t CheckpointWriter::write_bytes() const {
  if (quiet_writes_ == kQuietWrites) return pace_.write_bytes_max;
  return std::min(pace_.busy_write_bytes, pace_.write_bytes_max);
}

void CheckpointWriter::CountCompressed(const Gathered& page) {
  const uint64_t units = PageRef{.length = page.expanded_length}.extent().count;
  NodeStore::Counters& counters = nodes_->counters();
  counters.pages_compressed.fetch_add(1, std::memory_order_relaxed);
  counters.compression_saved_units.fetch_add(units - page.extent.count, std::memory_order_relaxed);
}

void CheckpointWriter::TakeBack() {
  for (const Gathered& page : gathered_) {
    page.node->set_address(PageRef{});
    nodes_->allocator().Release(page.extent);
  }
  gathered_.clear();
  buffered_ = 0;
}

}  // namespace dynlib::store
