#include "dynlib/cluster/partition_load.h"

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "dynlib/admission/node_admission.h"
#include "dynlib/admission/partition_admission.h"
#include "dynlib/admission/request_units.h"
#include "dynlib/base/ids.h"
#include "dynlib/base/time.h"
#include "dynlib/cluster/cluster.pb.h"
#include "dynlib/cluster/key.h"
#include "dynlib/cluster/node_admission_options.h"
#include "dynlib/testing/status_matchers.h"
#include "gtest/gtest.h"

namespace dynlib::cluster {
namespace {

using admission::Admission;
using admission::Operation;
using admission::RequestUnits;
using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr Instant kStart = Instant::FromNanos(1'000'000'000);

std::shared_ptr<PartitionLoad> MakeLoad(const NodeAdmissionOptions& options, bool limited = true) {
  auto node = admission::NodeAdmission::Create({}, kStart);
  DYNLIB_EXPECT_OK(node.status());
  auto load =
      PartitionLoad::Create(PartitionId{1}, options, limited,
                            std::shared_ptr<admission::NodeAdmission>(*std::move(node)), kStart);
  DYNLIB_EXPECT_OK(load.status());
  return *load;
}
wire::ReplicaStatus StatusOf(PartitionLoad& load, Instant now, const std::string& first = "",
                             const std::string& end = "") {
  wire::ReplicaStatus status;
  load.Describe(first, end, now, status);
  return status;
}

TEST(PartitionLoadTest, TheLoadOfTheLastSecondsIsTold) {
  const auto load = MakeLoad({});
  Instant now = kStart;
  for (int second = 0; second < 15; ++second) {
    for (int i = 0; i < 20; ++i) {
      now = now + milliseconds(50);
      Admission write = load->Admit(Operation::kWrite, RequestUnits::Whole(3), 7, now);
      load->Settle(write, write.units, 7, now);
      Admission read = load->Admit(Operation::kRead, {1}, 7, now);
      load->Settle(read, {5}, 7, now);  // larger than thought
    }
    load->Tick(now);
  }
  EXPECT_NEAR(static_cast<double>(StatusOf(*load, now).write_milliunits()), 60'000, 1000);
  EXPECT_NEAR(static_cast<double>(StatusOf(*load, now).read_milliunits()), 50'000, 1000);
  EXPECT_EQ(load->written_halves(), 15 * 20 * 6);
  for (int second = 0; second < 15; ++second) load->Tick(now = now + seconds(1));
  EXPECT_LT(StatusOf(*load, now).write_milliunits(), 1000u);
  // What was not carried out is not counted.
  const Admission undone = load->Admit(Operation::kWrite, RequestUnits::Whole(100), 7, now);
  load->Undo(undone, now);
  EXPECT_EQ(load->written_halves(), 15 * 20 * 6);
}

// The advice names a boundary between hashes, within the partition.
TEST(PartitionLoadTest, NoSplitIsAdvisedOutsideOfThePartition) {
  NodeAdmissionOptions options{.partition_write_units = 1, .burst_seconds = 1};
  options.heat.window = seconds(1);
  options.heat.samples_min = 50;
  const auto load = MakeLoad(options);
  Instant now = kStart;
  for (uint64_t i = 0; i < 4000; ++i) {
    now = now + milliseconds(1);
    Admission write =
        load->Admit(Operation::kWrite, RequestUnits::Whole(1), (i * 7919 % 64) << 58 | 12345, now);
    if (write.admitted()) load->Settle(write, write.units, 0, now);
  }
  const std::string at = StatusOf(*load, now).hot_split();
  ASSERT_EQ(at.size(), 8u);
  EXPECT_EQ(StatusOf(*load, now, at, "").hot_split(), "");
  EXPECT_EQ(StatusOf(*load, now, "", at).hot_split(), "");
  EXPECT_EQ(
      StatusOf(*load, now, HashBoundary(0), HashBoundary(HashOfStorageKey(at) + 1)).hot_split(),
      at);
}

TEST(PartitionLoadTest, RequestsFinishOnAnyThread) {
  const auto load = MakeLoad({.partition_read_units = 1000, .burst_seconds = 1});
  constexpr int kThreads = 3;
  constexpr int kRequests = 2000;
  std::vector<std::thread> threads;
  std::vector<int> admitted(kThreads);
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < kRequests; ++i) {
        const Instant now = kStart + milliseconds(i / 4);
        const auto hash = static_cast<uint64_t>(i) << 50;
        Admission read = load->Admit(Operation::kRead, {1}, hash, now);
        if (!read.admitted()) continue;
        ++admitted[t];
        load->Settle(read, {2}, hash, now);
      }
    });
  }
  for (int i = 0; i < 50; ++i) {
    const Instant now = kStart + milliseconds(10 * i);
    load->Tick(now);
    StatusOf(*load, now);
  }
  for (std::thread& thread : threads) thread.join();
  uint64_t sum = 0;
  for (int count : admitted) sum += static_cast<uint64_t>(count);
  EXPECT_EQ(StatusOf(*load, kStart).throttled(), kThreads * kRequests - sum);
  EXPECT_GT(sum, 800u);
}

}  // namespace
}  // namespace dynlib::cluster
