// What is whole of a damaged store, for reading.

#include <utility>

#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"
#include "dynlib/store/node_log_reader.h"
#include "dynlib/store/store_catalogue.h"
#include "dynlib/store/store_impl.h"

namespace dynlib::store {

// Null: nothing is damaged that an Open for writing would not see to, as far as one can tell
// without one. Changes nothing on disk.
absl::StatusOr<std::shared_ptr<Store::Impl>> Store::OpenIfDamaged(
    const Options& options, Disk* disk, const std::string& dir, const Executors& executors,
    const Clock* clock, MetricsSink* metrics, Recovery* found, std::unique_ptr<DiskLock>& lock) {
  NodeLog::Recovery logged;
  NodeLog::Options log_options = options.log;
  log_options.payload_version_max = kStoreRecordVersion;
  auto log = LogReader::Open(log_options, disk, Cat(dir, "/log"), &logged);
  if (absl::IsNotFound(log.status())) return nullptr;  // It was not even begun.
  if (!log.ok()) return log.status();
  PageFile::Options for_reading = options.pages;
  for_reading.read_only = true;
  for_reading.fall_back = true;
  for_reading.log_batch = logged.last_batch;
  auto opened = PageFile::Open(for_reading, disk, Cat(dir, "/pages"), metrics);
  absl::Status missing;  // Of the log's end.
  if (absl::IsDataLoss(opened.status())) {
    missing = opened.status();
    for_reading.log_batch.reset();
    opened = PageFile::Open(for_reading, disk, Cat(dir, "/pages"), metrics);
  }
  if (absl::IsNotFound(opened.status())) return nullptr;
  if (!opened.ok()) return opened.status();
  std::unique_ptr<PageFile> pages = *std::move(opened);
  DYNLIB_RETURN_IF_ERROR(EnsureTrees(*pages));
  const Tree& catalogue = *pages->FindTree(kCatalogueTree);
  if (missing.ok() && logged.DataLoss().ok() && !logged.streams[kStoreStream].lost_batch &&
      pages->fallback().ok() && ReadCatalogue(catalogue.snapshot()).ok()) {
    return nullptr;
  }
  Replay replay(options, pages.get(), nullptr, log->get(), &logged, found);
  if (!missing.ok()) DYNLIB_RETURN_IF_ERROR(replay.Meet(missing));
  DYNLIB_RETURN_IF_ERROR(replay.Run());
  if (replay.damage().ok()) {
    *found = {};
    return nullptr;
  }
  auto impl = std::make_shared<Impl>(options, disk, dir, executors, clock, nullptr,
                                     std::move(pages), std::move(lock));
  impl->OnlyRead(replay.damage(), replay.names());
  return impl;
}

void Store::Impl::OnlyRead(const absl::Status& damage, const std::map<TreeId, std::string>& names) {
  read_only_ = true;
  damaged_ = health_ =
      absl::DataLossError(Cat("the store is open for reading alone: ", ToStd(damage.message())));
  for (const auto& [id, name] : names) AddEntry(name, id);
}

}  // namespace dynlib::store
