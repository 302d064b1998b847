// All that a Store has on disk, read again while it goes on.

#include <utility>

#include "dynlib/base/strings.h"
#include "dynlib/store/store_folder.h"
#include "dynlib/store/store_impl.h"

namespace dynlib::store {

absl::Status Store::Impl::Verify(VerifyReport* report, const VerifyProgress& progress) {
  const std::shared_ptr<NodeLog> log = Log();
  const uint64_t log_bytes = log == nullptr ? 0 : log->GetStats().segment_file_bytes;
  VerifyProgress of_pages;
  if (progress != nullptr) {
    of_pages = [&](VerifyReport so_far) {
      so_far.bytes_total += log_bytes;
      return progress(so_far);
    };
  }
  VerifyReport total;
  absl::Status first = pages_->Verify(&total, of_pages);
  total.bytes_total += log_bytes;

  const auto fault = [&](const absl::Status& what) {
    first.Update(what);
    ++total.damaged;
    if (total.faults.size() < VerifyReport::kMaxFaults) {
      total.faults.emplace_back(ToStd(what.message()));
    }
  };
  if (const absl::Status folder = VerifyFolder(disk_, dir_); !folder.ok()) fault(folder);
  if (log != nullptr && !absl::IsCancelled(first)) {
    const auto go_on = [&](uint64_t bytes) {
      total.bytes += bytes;
      return progress == nullptr || progress(total);
    };
    const absl::StatusOr<uint64_t> batches = log->Verify(go_on, fault);
    if (batches.ok()) total.log_batches = *batches;
    first.Update(batches.status());
  }
  if (report != nullptr) *report = std::move(total);
  return first;
}

}  // namespace dynlib::store
