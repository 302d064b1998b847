// Three copies of one map, one of them damaged: a scrub finds the items and names the bad copy.
#include <cstdio>
#include <map>
#include <string>

#include "dynlib/base/ids.h"
#include "dynlib/base/time.h"
#include "dynlib/scrub/range_digester.h"
#include "dynlib/scrub/scrub_session.h"
#include "dynlib/scrub/types.h"

using namespace dynlib;  // An example's liberty.

int main() {
  std::map<std::string, std::string> copies[3];
  for (int i = 0; i < 100'000; ++i) {
    for (auto& copy : copies) copy["key-" + std::to_string(i)] = "value of " + std::to_string(i);
  }
  copies[1]["key-4711"] = "a flipped bit";
  copies[2].erase("key-12345");

  // What a replica does with a request. A real one scans a snapshot, and is asked by rpc.
  scrub::RangeDigester digester({});
  auto answer = [&](const scrub::Request& request) {
    const auto& copy = copies[ToUint(request.replica) - 1];
    return digester.Digest(request, [&](auto first, auto end, scrub::Visitor visit) {
      for (auto item = copy.lower_bound(std::string(first));
           item != copy.end() && scrub::IsBefore(item->first, end); ++item) {
        if (!visit(item->first, item->second)) break;
      }
      return scrub::ScanEnd{};
    });
  };

  Instant now = Instant::FromNanos(1);
  scrub::ScrubSession session(
      {.bytes_per_second = 1 << 30},
      {.members = {ReplicaId{1}, ReplicaId{2}, ReplicaId{3}}, .marker = 1000}, /*resume=*/{}, now);
  int right = 0;
  while (true) {
    scrub::ScrubSession::Effects effects = session.TakeEffects();
    for (const scrub::Finding& finding : effects.findings) {
      const uint64_t bad = finding.bad.size() == 1 ? ToUint(finding.bad[0]) : 0;
      std::printf("%s is bad on replica %llu\n", finding.key.c_str(),
                  static_cast<unsigned long long>(bad));
      right += (finding.key == "key-4711" && bad == 2) || (finding.key == "key-12345" && bad == 3);
    }
    if (session.finished()) break;
    for (const scrub::Request& request : effects.requests)
      session.OnAnswer(request.id, answer(request), now);
    now = now + std::chrono::milliseconds(1);  // answers do not take longer here
    session.OnTimer(now);
  }
  std::printf("%llu items compared\n", static_cast<unsigned long long>(session.cursor().items));
  return session.result().ok() && right == 2 && session.cursor().findings == 2 ? 0 : 1;
}
