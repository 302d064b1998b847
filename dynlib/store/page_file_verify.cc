// What a PageFile has on disk, read again while it goes on.

#include <array>
#include <string>

#include "dynlib/base/strings.h"
#include "dynlib/store/page_file.h"

namespace dynlib::store {

// Of a superblock that is being written nothing is said: what stood there no longer counts.
absl::Status PageFile::CheckSuperblock(uint64_t index) {
  for (int attempt = 0; attempt < 3; ++attempt) {
    RecordPtr record;
    uint64_t writes = 0;
    {
      std::lock_guard lock(mutex_);
      record = records_[index];
      writes = superblock_writes_[index];
    }
    // Open found nothing whole there, and nothing was written since: its notes say so.
    if (record == nullptr) return absl::OkStatus();
    const absl::Status read = Verifier::CheckSuperblock(nodes_.get(), record->superblock);
    if (read.ok()) return read;
    std::lock_guard lock(mutex_);
    if (superblock_writes_[index] == writes && writes % 2 == 0) return read;
  }
  return absl::OkStatus();
}

absl::Status PageFile::Verify(VerifyReport* report, const VerifyProgress& progress) {
  Verifier verifier(nodes_.get(), progress);
  for (uint64_t index = 0; index < kSuperblockUnits; ++index) {
    verifier.Note(kSuperblockBytes, CheckSuperblock(index));
  }
  std::array<RecordPtr, 2> records;  // the older one first
  {
    std::lock_guard lock(mutex_);
    records = {records_[1 - generation_ % 2], records_[generation_ % 2]};
    for (const RecordPtr& record : records) {
      if (record != nullptr) nodes_->allocator().Pin(record->held_units);
    }
  }
  for (const RecordPtr& record : records) {
    if (record != nullptr) verifier.Expect(*record);
  }
  for (const RecordPtr& record : records) {
    if (record == nullptr) continue;
    verifier.Check(*record);
    nodes_->allocator().Unpin(record->held_units);
  }
  if (report != nullptr) *report = verifier.report();
  // Until the checkpoint after the next these units are held by the record, and not used anew.
  std::lock_guard lock(mutex_);
  if (records_[generation_ % 2] == records[1]) leaked_ = verifier.leaked();
  return verifier.status();
}

}  // namespace dynlib::store
