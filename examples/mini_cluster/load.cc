#include "examples/mini_cluster/load.h"

#include <atomic>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"
#include "dynlib/cluster/item.h"
#include "examples/mini_cluster/names.h"
#include "examples/mini_cluster/window.h"

namespace dynlib::mini_cluster {

absl::StatusOr<LoadResult> Load(Client& client, const DataSet& data, size_t in_flight,
                                Journal* journal,
                                absl::AnyInvocable<void(uint64_t written)> progress) {
  LoadResult result;
  std::atomic<uint64_t> written{0};
  Window window(in_flight);
  const Instant start = client.clock().Now();
  Instant next_progress = start + std::chrono::seconds(1);
  // On the client's executor, where the latencies are too.
  auto put = [&](uint64_t row, cluster::Item item) {
    client.router().Put(kRecordsTable, std::move(item), {},
                        [&, row, begin = client.clock().Now()](absl::Status status) {
                          if (status.ok()) {
                            result.latencies.Add(client.clock().Now() - begin);
                            if (journal != nullptr) journal->Row(row, data.generation());
                            written++;
                          } else {
                            status = absl::Status(
                                status.code(), Cat("writing item ", row, " of ", data.path(), ": ",
                                                   ToStd(status.message())));
                          }
                          window.Leave(status);
                        });
  };
  const absl::Status read = data.ForEach([&](uint64_t row, cluster::Item item) {
    if (!window.Enter()) return false;
    client.executor().Post(
        [&put, row, item = std::move(item)]() mutable { put(row, std::move(item)); });
    if (const Instant now = client.clock().Now(); now >= next_progress) {
      next_progress = now + std::chrono::seconds(1);
      progress(written);
    }
    return true;
  });
  DYNLIB_RETURN_IF_ERROR(window.Drain());
  DYNLIB_RETURN_IF_ERROR(read);
  result.took = client.clock().Now() - start;
  result.written = written;
  return result;
}

}  // namespace dynlib::mini_cluster
