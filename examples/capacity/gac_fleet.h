// Routers with a GAC client each, some GAC servers, and a network that delays, in simulated time.
#ifndef DYNLIB_EXAMPLES_CAPACITY_GAC_FLEET_H_
#define DYNLIB_EXAMPLES_CAPACITY_GAC_FLEET_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <vector>

#include "dynlib/admission/gac_client.h"
#include "dynlib/admission/gac_server.h"
#include "dynlib/base/ids.h"
#include "dynlib/base/random.h"
#include "dynlib/base/time.h"

namespace dynlib::examples {

class GacFleet {
 public:
  struct Options {
    size_t routers = 10;
    size_t servers = 3;
    double units_per_second = 1000;  // the table's limit
    Duration delay_max = std::chrono::milliseconds(20);
    uint64_t seed = 1;
  };

  GacFleet(const Options& options, Instant now);

  bool TryAdmit(size_t router, Instant now);
  void GiveBack(size_t router, Instant now);

  // Delivers what is due, and every 50 ms lets each router report. To be called every 10 ms.
  void Step(Instant now);

  // The table's server loses its memory.
  void RestartServer(Instant now);
  // The table's server leaves the ring; routers hear of it one after the other, for a second.
  void LeaveRing(Instant now);

 private:
  void StartServer(size_t server);
  size_t ServerOfTable(Instant now) const;
  void Send(Instant now, std::function<void(Instant)> deliver);
  void SendReport(size_t router, const admission::GacClient::Outgoing& out, Instant now);

  const Options options_;
  Random random_;
  std::vector<NodeId> names_;
  std::vector<std::unique_ptr<admission::GacServer>> servers_;
  std::vector<std::unique_ptr<admission::GacClient>> clients_;
  uint64_t generation_ = 0;
  uint64_t steps_ = 0;
  std::multimap<Instant, std::function<void(Instant)>> network_;
};

}  // namespace dynlib::examples

#endif  // DYNLIB_EXAMPLES_CAPACITY_GAC_FLEET_H_
