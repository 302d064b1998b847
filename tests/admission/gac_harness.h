// Many GAC clients and some servers in simulated time, with a network that delays and loses.
#ifndef TESTS_ADMISSION_GAC_HARNESS_H_
#define TESTS_ADMISSION_GAC_HARNESS_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "dynlib/admission/gac_client.h"
#include "dynlib/admission/gac_message.h"
#include "dynlib/admission/gac_server.h"
#include "dynlib/base/ids.h"
#include "dynlib/base/random.h"
#include "dynlib/base/time.h"

namespace dynlib::admission {

class GacHarness {
 public:
  struct Options {
    size_t clients = 10;
    size_t servers = 1;
    double limit = 10'000;
    double safe_rate = 50;
    uint64_t seed = 1;
    double loss = 0;    // of messages, each way
    double repeat = 0;  // of messages
    Duration delay_max = std::chrono::milliseconds(20);
    // A client's clock when the servers' says `now`.
    std::function<Instant(size_t client, Instant now)> client_clock = [](size_t, Instant now) {
      return now;
    };
    GacServer::Options server;
    GacClient::Options client;
  };
  // Units a second that a client is asked for at a time.
  using Demand = std::function<double(size_t client, double second)>;

  static constexpr LimitId kLimit{7};

  explicit GacHarness(Options options);

  void Run(double seconds, const Demand& demand);
  void StopServer(size_t server);
  void StartServer(size_t server);  // again, with nothing in memory
  void RestartClient(size_t client);

  double now_seconds() const { return static_cast<double>((now_ - kStart).count()) / 1e9; }
  Instant now() const { return now_; }
  GacClient& client(size_t i) { return *clients_[i]; }
  GacServer& server(size_t i) { return *servers_[i]; }
  size_t ServerOfLimit() { return ToUint(clients_[0]->Status(kLimit, now_)->server) - 1; }
  // Units a second admitted from `from` to `to` (whole seconds), by all or by one client.
  double Admitted(double from, double to) const;
  double AdmittedBy(size_t client, double from, double to) const;
  // The highest rate over any `window` seconds that begin at a whole second from `from` on.
  double WorstWindow(double from, double window) const;
  // What a client that does not tell the truth sends instead.
  std::function<void(size_t client, GacReport&)> forge = [](size_t, GacReport&) {};

 private:
  static constexpr Instant kStart = Instant::FromNanos(1'000'000'000'000);
  static constexpr Duration kStep = std::chrono::milliseconds(10);

  void Step(const Demand& demand);
  Instant ClockOf(size_t client) const { return options_.client_clock(client, now_); }
  void Send(std::function<void()> deliver);
  void SendReport(size_t client, const GacClient::Outgoing& out);
  void MakeClient(size_t client);

  Options options_;
  Random random_;
  Instant now_ = kStart;
  uint64_t steps_ = 0;
  std::vector<NodeId> names_;
  std::vector<std::unique_ptr<GacServer>> servers_;
  std::vector<std::unique_ptr<GacClient>> clients_;
  std::vector<uint64_t> lives_;  // of each client
  std::vector<double> owed_;     // fractions of a unit of demand
  uint64_t generation_ = 0;
  std::multimap<Instant, std::function<void()>> network_;
  std::vector<std::vector<int64_t>> admitted_;  // [client][second]
};

}  // namespace dynlib::admission

#endif  // TESTS_ADMISSION_GAC_HARNESS_H_
