// A distributed rate limiter and no storage: three front ends share one limit of 1000 requests a
// second through a GAC server, though each is asked for 1000. Time is a number here, and a call is
// a message; a service sends the bytes with its own transport.
#include <cstdio>
#include <memory>
#include <vector>

#include "dynlib/admission/gac_client.h"
#include "dynlib/admission/gac_message.h"
#include "dynlib/admission/gac_server.h"

int main() {
  using namespace dynlib;  // An example's liberty.
  using namespace dynlib::admission;
  constexpr LimitId kLogins{1};
  constexpr NodeId kServer{1};
  Instant now = Instant::FromNanos(1'000'000'000);

  auto server = *GacServer::Create({.generation = 1});
  std::vector<std::unique_ptr<GacClient>> front_ends;
  for (uint64_t id = 1; id <= 3; ++id) {
    front_ends.push_back(*GacClient::Create({.client = ClientId{id}}, {&kServer, 1}));
    const GacClient::Limit limit{.limit = LimitRate{.version = 1, .units_per_second = 1000},
                                 .safe_units_per_second = 300};
    if (!front_ends.back()->SetLimit(kLogins, limit, now).ok()) return 1;
  }

  int admitted_last = 0;
  for (int millisecond = 0; millisecond < 15'000; ++millisecond) {
    now = now + std::chrono::milliseconds(1);
    if (millisecond % 1000 == 0) admitted_last = 0;
    for (auto& front_end : front_ends) {
      // The request path: no message, no lock.
      if (front_end->TryAdmit(kLogins, 1, now).admitted()) ++admitted_last;
    }
    if (millisecond % 50 != 0) continue;
    for (auto& front_end : front_ends) {
      // The driver, now and then: reports there, grants back.
      for (const GacClient::Outgoing& out : front_end->Poll(now)) {
        const auto report = DecodeGacReport(Encode(out.report));
        if (!report.ok()) return 1;
        const auto grants = server->HandleReport(*report, now);
        if (grants.ok()) front_end->OnGrants(out.server, *grants, now);
      }
    }
  }
  std::printf("admitted in the last second: %d of 3000 asked for, limit 1000\n", admitted_last);
  return admitted_last >= 980 && admitted_last <= 1020 ? 0 : 1;
}
