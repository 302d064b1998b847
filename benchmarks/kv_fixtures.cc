#include "benchmarks/kv_fixtures.h"

#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"

namespace dynlib::bench {

absl::StatusOr<KvFixtures::Store> KvFixtures::Fill(const NamedKvPeer& system,
                                                   const Rows& rows) const {
  DYNLIB_ASSIGN_OR_RETURN(TemporaryFolder folder, TemporaryFolder::Create(dir_));
  {
    DYNLIB_ASSIGN_OR_RETURN(
        const std::unique_ptr<KvPeer> empty,
        system.open({.folder = folder.path(), .fill = KvOptions::Fill::kSorted}));
    DYNLIB_RETURN_IF_ERROR(FillStore(*empty, rows, /*sorted=*/true));
  }
  Store store{std::move(folder), nullptr};
  DYNLIB_ASSIGN_OR_RETURN(store.peer,
                          system.open({.folder = store.folder.path(), .clients = clients_}));
  DYNLIB_RETURN_IF_ERROR(store.peer->Compact());
  uint64_t found = 0;
  DYNLIB_RETURN_IF_ERROR(store.peer->Scan(0, "user", static_cast<int>(rows.count + 1),
                                          [&](std::string_view, std::string_view) { ++found; }));
  if (found == rows.count) return store;
  return absl::DataLossError(Cat(system.name, " has ", found, " of ", rows.count, " rows"));
}

absl::StatusOr<KvPeer*> KvFixtures::Filled(const NamedKvPeer& system, const Rows& rows) {
  const std::pair<std::string, size_t> name(system.name, rows.value_bytes);
  auto at = stores_.find(name);
  if (at == stores_.end()) {
    DYNLIB_ASSIGN_OR_RETURN(Store store, Fill(system, rows));
    at = stores_.emplace(name, std::move(store)).first;
  }
  return at->second.peer.get();
}

}  // namespace dynlib::bench
