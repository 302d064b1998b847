#include "examples/capacity/gac_fleet.h"

#include <utility>

#include "dynlib/admission/gac_message.h"
#include "dynlib/base/check.h"

namespace dynlib::examples {
namespace {

using admission::GacClient;
using admission::GacServer;
using admission::LimitId;
using admission::LimitRate;

constexpr LimitId kTable{7};

}  // namespace

GacFleet::GacFleet(const Options& options, Instant now)
    : options_(options), random_(options.seed), servers_(options.servers) {
  for (size_t i = 0; i < options.servers; ++i) {
    names_.push_back(NodeId{i + 1});
    StartServer(i);
  }
  // Until a server has answered, a router admits what would be its share of an even load.
  const double safe = options.units_per_second / static_cast<double>(options.routers);
  for (size_t i = 0; i < options.routers; ++i) {
    clients_.push_back(
        *GacClient::Create({.client = ClientId{i + 1}, .seed = random_.Next()}, names_));
    const GacClient::Limit limit{.limit = LimitRate{1, options.units_per_second},
                                 .safe_units_per_second = safe};
    DYNLIB_CHECK(clients_.back()->SetLimit(kTable, limit, now).ok());
  }
}

void GacFleet::StartServer(size_t server) {
  servers_[server] = *GacServer::Create({.generation = ++generation_});
}

bool GacFleet::TryAdmit(size_t router, Instant now) {
  return clients_[router]->TryAdmit(kTable, 1, now).admitted();
}

void GacFleet::GiveBack(size_t router, Instant now) { clients_[router]->GiveBack(kTable, 1, now); }

void GacFleet::Step(Instant now) {
  while (!network_.empty() && network_.begin()->first <= now) {
    auto message = network_.extract(network_.begin());
    message.mapped()(now);
  }
  constexpr size_t kStepsAPoll = 5;
  for (size_t i = steps_ % kStepsAPoll; i < clients_.size(); i += kStepsAPoll) {
    for (const GacClient::Outgoing& out : clients_[i]->Poll(now)) SendReport(i, out, now);
  }
  if (++steps_ % 100 == 0) {
    for (auto& server : servers_) server->Expire(now);
  }
}

void GacFleet::Send(Instant now, std::function<void(Instant)> deliver) {
  network_.emplace(now + Duration(random_.Between(1, options_.delay_max.count())),
                   std::move(deliver));
}

void GacFleet::SendReport(size_t router, const GacClient::Outgoing& out, Instant now) {
  const size_t server = ToUint(out.server) - 1;
  Send(now, [this, router, server, report = out.report](Instant at) {
    const auto grants = servers_[server]->HandleReport(report, at);
    if (!grants.ok()) return;
    Send(at, [this, router, server, grants = *grants](Instant then) {
      clients_[router]->OnGrants(names_[server], grants, then);
    });
  });
}

size_t GacFleet::ServerOfTable(Instant now) const {
  return ToUint(clients_[0]->Status(kTable, now)->server) - 1;
}

void GacFleet::RestartServer(Instant now) { StartServer(ServerOfTable(now)); }

void GacFleet::LeaveRing(Instant now) {
  std::vector<NodeId> left = names_;
  left.erase(left.begin() + static_cast<std::ptrdiff_t>(ServerOfTable(now)));
  for (size_t i = 0; i < clients_.size(); ++i) {
    network_.emplace(now + Duration(random_.Between(1, 1'000'000'000)),
                     [this, i, left](Instant) { clients_[i]->SetServers(left); });
  }
}

}  // namespace dynlib::examples
