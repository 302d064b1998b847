#include "examples/mini_cluster/load.h"

#include <atomic>
#include <chrono>
#include <optional>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"
#include "dynlib/cluster/item.h"
#include "dynlib/cluster/retry_after.h"
#include "examples/mini_cluster/names.h"
#include "examples/mini_cluster/window.h"

namespace dynlib::mini_cluster {
namespace {

class Loader {
 public:
  Loader(const std::vector<Client*>& clients, const DataSet& data, size_t in_flight,
         Journal* journal)
      : data_(data), journal_(journal), window_(in_flight) {
    for (Client* client : clients) lanes_.push_back({client, {}, 0});
  }

  absl::StatusOr<LoadResult> Run(absl::AnyInvocable<void(uint64_t written)> progress) {
    const Clock& clock = lanes_[0].client->clock();
    const Instant start = clock.Now();
    Instant next_progress = start + std::chrono::seconds(1);
    const absl::Status read = data_.ForEach([&](uint64_t row, cluster::Item item) {
      if (!window_.Enter()) return false;
      Lane& lane = lanes_[row % lanes_.size()];
      lane.client->executor().Post([this, &lane, row, item = std::move(item)]() mutable {
        Put(lane, row, std::move(item));
      });
      if (const Instant now = clock.Now(); now >= next_progress) {
        next_progress = now + std::chrono::seconds(1);
        progress(written_);
      }
      return true;
    });
    DYNLIB_RETURN_IF_ERROR(window_.Drain());
    DYNLIB_RETURN_IF_ERROR(read);
    LoadResult result{.written = written_, .took = clock.Now() - start, .latencies = {}};
    for (const Lane& lane : lanes_) {
      result.throttled += lane.throttled;
      result.latencies.Add(lane.latencies);
    }
    return result;
  }

 private:
  // On the client's executor.
  struct Lane {
    Client* client;
    Latencies latencies;
    uint64_t throttled;
  };

  void Put(Lane& lane, uint64_t row, cluster::Item item) {
    cluster::Item copy = item;
    lane.client->router().Put(
        kRecordsTable, std::move(copy), {},
        [this, &lane, row, item = std::move(item),
         begin = lane.client->clock().Now()](absl::Status status) mutable {
          const Instant now = lane.client->clock().Now();
          if (const std::optional<Duration> wait = cluster::RetryAfter(status)) {
            lane.throttled++;
            lane.client->executor().RunAt(now + *wait,
                                          [this, &lane, row, item = std::move(item)]() mutable {
                                            Put(lane, row, std::move(item));
                                          });
            return;
          }
          if (status.ok()) {
            lane.latencies.Add(now - begin);
            if (journal_ != nullptr) journal_->Row(row, data_.generation());
            written_++;
          } else {
            status = absl::Status(status.code(), Cat("writing item ", row, " of ", data_.path(),
                                                     ": ", ToStd(status.message())));
          }
          window_.Leave(status);
        });
  }

  const DataSet& data_;
  Journal* const journal_;
  std::vector<Lane> lanes_;
  std::atomic<uint64_t> written_{0};
  Window window_;
};

}  // namespace

absl::StatusOr<LoadResult> Load(const std::vector<Client*>& clients, const DataSet& data,
                                size_t in_flight, Journal* journal,
                                absl::AnyInvocable<void(uint64_t written)> progress) {
  return Loader(clients, data, in_flight, journal).Run(std::move(progress));
}

}  // namespace dynlib::mini_cluster
