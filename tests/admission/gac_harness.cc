#include "tests/admission/gac_harness.h"

#include <algorithm>
#include <cstdlib>
#include <utility>

namespace dynlib::admission {

GacHarness::GacHarness(Options options)
    : options_(std::move(options)), random_(options_.seed), servers_(options_.servers) {
  for (size_t i = 0; i < options_.servers; ++i) {
    names_.push_back(NodeId{i + 1});
    StartServer(i);
  }
  clients_.resize(options_.clients);
  lives_.resize(options_.clients);
  owed_.resize(options_.clients);
  admitted_.resize(options_.clients);
  for (size_t i = 0; i < options_.clients; ++i) MakeClient(i);
}

void GacHarness::MakeClient(size_t i) {
  GacClient::Options options = options_.client;
  options.client = ClientId{i + 1};
  options.incarnation = ++lives_[i];
  options.seed = random_.Next();
  clients_[i] = *GacClient::Create(options, names_);
  const GacClient::Limit limit{.limit = LimitRate{1, options_.limit},
                               .safe_units_per_second = options_.safe_rate};
  if (!clients_[i]->SetLimit(kLimit, limit, ClockOf(i)).ok()) std::abort();
}

void GacHarness::RestartClient(size_t client) { MakeClient(client); }

void GacHarness::StopServer(size_t server) { servers_[server].reset(); }

void GacHarness::StartServer(size_t server) {
  GacServer::Options options = options_.server;
  options.generation = ++generation_;
  servers_[server] = *GacServer::Create(options);
}

void GacHarness::Run(double seconds, const Demand& demand) {
  const auto end = now_ + Duration(static_cast<int64_t>(seconds * 1e9));
  while (now_ < end) Step(demand);
}

void GacHarness::Step(const Demand& demand) {
  now_ = now_ + kStep;
  while (!network_.empty() && network_.begin()->first <= now_) {
    auto message = network_.extract(network_.begin());
    message.mapped()();
  }
  const double step = static_cast<double>(kStep.count()) / 1e9;
  const auto second = static_cast<size_t>(now_seconds());
  for (size_t i = 0; i < clients_.size(); ++i) {
    // Requests of one unit, as many on average as the demand says, by chance.
    owed_[i] += demand(i, now_seconds()) * step * 2 * random_.Unit();
    admitted_[i].resize(second + 1);
    for (; owed_[i] >= 1; owed_[i] -= 1) {
      if (clients_[i]->TryAdmit(kLimit, 1, ClockOf(i)).admitted()) ++admitted_[i][second];
    }
    if ((steps_ + i) % 5 == 0) {
      for (const GacClient::Outgoing& out : clients_[i]->Poll(ClockOf(i))) SendReport(i, out);
    }
  }
  if (++steps_ % 100 == 0) {
    for (auto& server : servers_) {
      if (server != nullptr) server->Expire(now_);
    }
  }
}

void GacHarness::Send(std::function<void()> deliver) {
  const int copies = random_.Chance(options_.repeat) ? 2 : 1;
  for (int i = 0; i < copies; ++i) {
    if (random_.Chance(options_.loss)) continue;
    network_.emplace(now_ + Duration(random_.Between(1, options_.delay_max.count())), deliver);
  }
}

void GacHarness::SendReport(size_t client, const GacClient::Outgoing& out) {
  GacReport report = out.report;
  forge(client, report);
  const size_t server = ToUint(out.server) - 1;
  Send([this, client, server, bytes = Encode(report)] {
    if (servers_[server] == nullptr) return;
    const auto grants = servers_[server]->HandleReport(*DecodeGacReport(bytes), now_);
    if (!grants.ok()) return;
    Send([this, client, server, answer = Encode(*grants)] {
      clients_[client]->OnGrants(names_[server], *DecodeGacGrants(answer), ClockOf(client));
    });
  });
}

double GacHarness::AdmittedBy(size_t client, double from, double to) const {
  int64_t sum = 0;
  const auto& seconds = admitted_[client];
  for (auto s = static_cast<size_t>(from); s < static_cast<size_t>(to) && s < seconds.size(); ++s) {
    sum += seconds[s];
  }
  return static_cast<double>(sum) / (to - from);
}

double GacHarness::Admitted(double from, double to) const {
  double sum = 0;
  for (size_t i = 0; i < admitted_.size(); ++i) sum += AdmittedBy(i, from, to);
  return sum;
}

double GacHarness::WorstWindow(double from, double window) const {
  double worst = 0;
  for (double at = from; at + window <= now_seconds(); at += 1) {
    worst = std::max(worst, Admitted(at, at + window));
  }
  return worst;
}

}  // namespace dynlib::admission
