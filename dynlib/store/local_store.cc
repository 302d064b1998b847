#include "dynlib/store/local_store.h"

#include <filesystem>
#include <string>
#include <system_error>

#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"

namespace dynlib::store {

absl::StatusOr<std::unique_ptr<LocalStore>> LocalStore::Open(std::string_view path,
                                                             const Store::Options& options,
                                                             MetricsSink* metrics,
                                                             Store::Recovery* found,
                                                             const PolledWait::Options& wait) {
  std::error_code error;
  std::filesystem::path folder =
      std::filesystem::absolute(std::filesystem::path(path), error).lexically_normal();
  if (!folder.has_filename()) folder = folder.parent_path();  // "a/b/" is "a/b"
  if (path.empty() || error || !folder.has_filename()) {
    return absl::InvalidArgumentError(Cat("path ", Escape(path), " names no folder"));
  }
  std::unique_ptr<LocalStore> local(new LocalStore);
  DYNLIB_ASSIGN_OR_RETURN(local->disk_, PosixDisk::Open({.root = folder.parent_path().string(),
                                                         .create_root = options.create_if_missing,
                                                         .wait = wait}));
  DYNLIB_ASSIGN_OR_RETURN(local->store_,
                          Store::Open(options, local->disk_.get(), folder.filename().string(),
                                      {.log = &local->log_,
                                       .apply = &local->apply_,
                                       .checkpoint = &local->checkpoint_,
                                       .read = &local->read_,
                                       .answer = &local->answer_},
                                      &local->clock_, metrics, found));
  return local;
}

LocalStore::~LocalStore() {
  if (store_ != nullptr && !closed_) Close().IgnoreError();
  store_.reset();
  log_.ShutDown();
  checkpoint_.ShutDown();
  read_.ShutDown();
  apply_.ShutDown();
  answer_.ShutDown();
}

absl::Status LocalStore::Close() {
  closed_ = true;
  return store_->Close();
}

}  // namespace dynlib::store
