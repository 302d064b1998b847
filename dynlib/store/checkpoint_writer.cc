#include "dynlib/store/checkpoint_writer.h"

#include <algorithm>

#include "dynlib/base/status_macros.h"

namespace dynlib::store {

absl::Status NeverRetried(const absl::Status& status) {
  if (!absl::IsResourceExhausted(status)) return status;
  return absl::DataLossError(status.message());
}

absl::Status CheckpointWriter::WriteTree(Node& node) {
  if (!node.address().null()) return absl::OkStatus();
  // What was never written stays in memory.
  const NodeContent& content = *node.content();
  for (Node* child : content.all_children()) DYNLIB_RETURN_IF_ERROR(WriteTree(*child));
  DYNLIB_ASSIGN_OR_RETURN(Extent extent, Reserve(content.length));
  gathered_.push_back({&node, extent, of_checkpoint_});
  node.set_address(Append(content.bytes(), extent, &content));
  return absl::OkStatus();
}

absl::Status CheckpointWriter::WriteOldVersion(Node& root) {
  of_checkpoint_ = false;
  absl::Status written = WriteTree(root);
  of_checkpoint_ = true;
  return written;
}

absl::StatusOr<PageRef> CheckpointWriter::WriteBlob(const PageBytes& page) {
  DYNLIB_ASSIGN_OR_RETURN(Extent extent, Reserve(page.length));
  return Append(page.view(), extent, nullptr);
}

absl::StatusOr<Extent> CheckpointWriter::Reserve(uint32_t length) {
  uint64_t units = PageRef{.length = length}.extent().count;
  DYNLIB_ASSIGN_OR_RETURN(Extent extent, nodes_->Allocate(units));
  bool adjoins = extent.first == first_unit_ + buffer_.size() / kUnitBytes;
  uint64_t bytes_max = std::min(pace_.write_bytes_max, sync_bytes_ - unsynced_);
  if (!adjoins || buffer_.size() + units * kUnitBytes > bytes_max) {
    absl::Status flushed = Flush();
    if (!flushed.ok()) {
      nodes_->allocator().Release(extent);
      return flushed;
    }
    first_unit_ = extent.first;
  }
  return extent;
}

PageRef CheckpointWriter::Append(std::string_view page, Extent extent, const NodeContent* content) {
  size_t start = buffer_.size();
  buffer_.append(page);
  // The page in memory stays as it is: readers are looking at it.
  char* table = buffer_.data() + start + kPageHeaderBytes;
  if (content != nullptr) {
    for (const Node* child : content->all_children()) {
      PutPageRef(table, child->address());
      table += kPageRefBytes;
    }
  }
  std::string_view bytes(buffer_.data() + start, page.size());
  PageRef ref{extent.first, static_cast<uint32_t>(page.size()), PageChecksum(bytes, extent.first)};
  if (content != nullptr) {
    ref.generation = generation_;
    ref.childless = content->child_count == 0;
  }
  buffer_.resize(start + extent.count * kUnitBytes);
  return ref;
}

absl::Status CheckpointWriter::Flush() {
  if (buffer_.empty()) return absl::OkStatus();
  absl::Status written = nodes_->file().WriteAt(first_unit_ * kUnitBytes, buffer_);
  if (!written.ok()) {
    TakeBack();
    return written;
  }
  nodes_->counters().pages_written.fetch_add(gathered_.size(), std::memory_order_relaxed);
  nodes_->counters().bytes_written.fetch_add(buffer_.size(), std::memory_order_relaxed);
  nodes_->metrics()->Count("store.checkpoint_pages", static_cast<int64_t>(gathered_.size()));
  nodes_->metrics()->Count("store.checkpoint_bytes", static_cast<int64_t>(buffer_.size()));
  for (const Gathered& page : gathered_) {
    if (page.of_checkpoint) tree_units_->Add(page.extent);
    nodes_->WrittenToDisk(*page.node);
  }
  unsynced_ += buffer_.size();
  gathered_.clear();
  buffer_.clear();
  return unsynced_ < sync_bytes_ ? absl::OkStatus() : SyncPortion();
}

absl::Status CheckpointWriter::SyncPortion() {
  DYNLIB_RETURN_IF_ERROR(NeverRetried(nodes_->file().Sync()));
  unsynced_ = 0;
  sync_bytes_ =
      pace_.hurried() ? pace_.sync_bytes_min : std::min(2 * sync_bytes_, pace_.sync_bytes_max);
  return absl::OkStatus();
}

void CheckpointWriter::TakeBack() {
  for (const Gathered& page : gathered_) {
    page.node->set_address(PageRef{});
    nodes_->allocator().Release(page.extent);
  }
  gathered_.clear();
  buffer_.clear();
}

}  // namespace dynlib::store
