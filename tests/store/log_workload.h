// What the tests do to a node log while its disk fails: appends, releases, recycling and copying
// forward, at random.
#ifndef TESTS_STORE_LOG_WORKLOAD_H_
#define TESTS_STORE_LOG_WORKLOAD_H_

#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "dynlib/base/random.h"
#include "dynlib/sim/disk.h"
#include "dynlib/store/node_log.h"
#include "dynlib/store/node_log_record.h"
#include "tests/store/log_harness.h"

namespace dynlib::store {

// Appends, releases and runs the log at random; stops when the power has failed.
class LogWorkload {
 public:
  static constexpr uint64_t kStreams = 4;  // The last of them releases nothing: a laggard.

  LogWorkload(LogHarness* harness, LogModel* model, uint64_t seed)
      : harness_(*harness), model_(*model), random_(seed), next_slot_(kStreams + 1, 1) {}

  void Run(int appends, const sim::SimDisk& disk) {
    for (int i = 0; i < appends && !disk.down(); ++i) {
      Append();
      if (random_.Chance(0.6)) harness_.Run(static_cast<int>(random_.Between(1, 4)));
      if (random_.Chance(0.1)) Release();
    }
    harness_.Run();
  }

 private:
  void Append() {
    std::vector<LogRecord> records;
    for (uint64_t i = random_.Between(1, 3); i > 0; --i) {
      const uint64_t stream = 1 + random_.Below(kStreams);
      std::string payload(random_.Below(stream == kStreams ? 40 : 1300),
                          static_cast<char>('a' + random_.Below(26)));
      payload += std::to_string(++unique_);
      if (random_.Chance(0.2)) {
        records.push_back(State(stream, unique_, 0, payload));
      } else if (random_.Chance(0.2) && next_slot_[stream] > 1) {
        // An earlier slot again, under a higher ballot.
        const uint64_t back = 1 + random_.Below(std::min<uint64_t>(next_slot_[stream] - 1, 5));
        records.push_back(Entry(stream, next_slot_[stream] - back, ++ballot_, payload));
      } else {
        records.push_back(Entry(stream, next_slot_[stream]++, ballot_, payload));
      }
    }
    const size_t append = model_.Submit(records);
    harness_.log->Append(std::move(records), &harness_.caller,
                         [this, append](absl::Status s) { model_.Settle(append, s); });
  }
  void Release() {
    const uint64_t stream = 1 + random_.Below(kStreams - 1);
    if (next_slot_[stream] < 8) return;
    harness_.Run();
    model_.Release(stream, next_slot_[stream] - 6);
    harness_.log->Release(StreamId{stream}, next_slot_[stream] - 6);
  }

  LogHarness& harness_;
  LogModel& model_;
  Random random_;
  std::vector<uint64_t> next_slot_;
  uint64_t ballot_ = 1;
  uint64_t unique_ = 0;
};

// Copies forward as soon as it can.
inline NodeLog::Options BusyLog() {
  NodeLog::Options options = SmallLog();
  options.copy_forward_above = 1;
  return options;
}

}  // namespace dynlib::store

#endif  // TESTS_STORE_LOG_WORKLOAD_H_
