#include "examples/mini_cluster/hammer.h"

#include <optional>
#include <utility>

#include "absl/status/statusor.h"
#include "dynlib/base/check.h"
#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"
#include "dynlib/cluster/key.h"
#include "dynlib/cluster/retry_after.h"
#include "dynlib/cluster/router_types.h"

namespace dynlib::mini_cluster {
namespace {

constexpr char kId[] = "id";
constexpr size_t kFillInFlight = 32;

}  // namespace

cluster::TableSchema Hammer::Schema() {
  return {.partition_key = {kId, cluster::KeyType::kString}, .sort_key = {}};
}

Hammer::Hammer(const std::vector<Client*>& clients, const Options& options)
    : clients_(clients), options_(options) {}

Hammer::~Hammer() { DYNLIB_CHECK(window_ == nullptr); }

cluster::Item Hammer::MakeItem(size_t number) const {
  return {{kId, cluster::Value::String(Cat("item ", number % options_.items))},
          {"value", cluster::Value::String(std::string(options_.item_bytes, 'x'))}};
}

absl::Status Hammer::Fill() {
  Window window(kFillInFlight);
  Client* client = clients_.front();
  for (size_t i = 0; i < options_.items && window.Enter(); ++i) {
    client->executor().Post([&, i] {
      client->router().Put(options_.table, MakeItem(i), {},
                           [&](const absl::Status& status) { window.Leave(status); });
    });
  }
  return window.Drain();
}

void Hammer::Start() {
  stopping_ = false;
  window_ = std::make_unique<Window>(clients_.size() * options_.workers);
  for (size_t i = 0; i < clients_.size() * options_.workers; ++i) {
    Client* client = clients_[i % clients_.size()];
    window_->Enter();
    // Each worker begins elsewhere and goes through all items in turn.
    client->executor().Post([this, client, i] { Next(client, i * 7919); });
  }
}

void Hammer::Next(Client* client, size_t number) {
  if (stopping_) return window_->Leave(absl::OkStatus());
  if (options_.write) {
    return client->router().Put(
        options_.table, MakeItem(number), {},
        [this, client, number](const absl::Status& status) { OnAnswer(client, number, status); });
  }
  client->router().Get(
      options_.table, *cluster::KeyOf(Schema(), MakeItem(number)), cluster::Consistency::kStrong,
      [this, client, number](const absl::StatusOr<std::optional<cluster::Item>>& item) {
        OnAnswer(client, number, item.status());
      });
}

void Hammer::OnAnswer(Client* client, size_t number, const absl::Status& status) {
  if (const std::optional<Duration> wait = cluster::RetryAfter(status)) {
    throttled_++;
    int64_t longest = retry_after_max_ns_;
    while (longest < wait->count() &&
           !retry_after_max_ns_.compare_exchange_weak(longest, wait->count())) {
    }
    client->executor().RunAt(client->clock().Now() + *wait,
                             [this, client, number] { Next(client, number + 1); });
    return;
  }
  if (!status.ok()) return window_->Leave(status);
  served_++;
  Next(client, number + 1);
}

Hammer::Counts Hammer::counts() const {
  return {.served = served_,
          .throttled = throttled_,
          .retry_after_max = Duration(retry_after_max_ns_.load())};
}

absl::Status Hammer::Stop() {
  stopping_ = true;
  absl::Status status = window_->Drain();
  window_ = nullptr;
  return status;
}

}  // namespace dynlib::mini_cluster
