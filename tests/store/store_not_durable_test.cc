// Writes that do not wait for the disk.
#include <cstdint>
#include <optional>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "dynlib/base/strings.h"
#include "dynlib/sim/disk.h"
#include "dynlib/store/store.h"
#include "dynlib/store/store_batch.h"
#include "dynlib/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/store/store_harness.h"

namespace dynlib::store {
namespace {

using absl::StatusCode;
using sim::SimDisk;
using sim::UnsyncedFate;
using testing::Contains;
using testing::HasSubstr;

// What a crash may lose of writes that did not wait for the disk: the newest.
TEST(StoreNotDurableTest, ACrashKeepsAPrefix) {
  for (uint64_t call = 1; call < 60; ++call) {
    SCOPED_TRACE(testing::Message() << "call " << call);
    SimDisk disk(call);
    int durable = -1;
    {
      StoreHarness h(&disk);
      DYNLIB_ASSERT_OK(h.Open());
      disk.FailCall(call, sim::DiskFault::kPowerOff, UnsyncedFate::kRandomSubset);
      for (int i = 0; i < 40; ++i) {
        StoreBatch batch(Put(Cat("k", 100 + i), std::string(600, 'v')));
        const bool wait = i % 5 == 4;
        h.store->Write(std::move(batch), {.durable = wait}, &h.caller,
                       [&durable, i, wait](const WriteResult& result) {
                         if (wait && result.ok()) durable = i;
                       });
        if (i % 3 == 0) h.Run();
        if (i % 17 == 0) h.store->Checkpoint(&h.caller, [](absl::Status) {});
      }
      h.Run();
    }
    disk.ClearFailCall();
    if (!disk.down()) disk.PowerOff(UnsyncedFate::kAllLost);
    disk.Restart();
    StoreHarness h(&disk);
    DYNLIB_ASSERT_OK(h.Open());
    const Contents found = h.Scan();
    EXPECT_GE(static_cast<int>(found.size()), durable + 1);
    int next = 100;
    for (const auto& [key, value] : found) EXPECT_EQ(key, Cat("k", next++));
  }
}

TEST(StoreNotDurableTest, AnsweredWithoutTheDiskAndSeenAtOnce) {
  SimDisk disk(1);
  StoreHarness h(&disk);
  DYNLIB_ASSERT_OK(h.Open());
  const uint64_t calls = disk.calls();
  std::optional<WriteResult> answer;
  h.store->Write(StoreBatch(Put("a", "1")), {.durable = false}, &h.caller,
                 [&](WriteResult result) { answer = std::move(result); });
  while (!answer.has_value()) ASSERT_TRUE(h.RunAllButTheLog());
  EXPECT_THAT(answer->status, IsOk());
  EXPECT_THAT(h.store->Get("a"), IsOkAndHolds("1"));
  EXPECT_EQ(disk.calls(), calls);
  EXPECT_GT(h.store->stats().pending_bytes, 0u);
  h.Run();
  EXPECT_GT(disk.calls(), calls);
  EXPECT_EQ(h.store->stats().pending_bytes, 0u);
}

// The log is full: what was answered is owed to it, comes to its bound, and is logged once there is
// space again, without another word.
TEST(StoreNotDurableTest, AFullDiskBoundsWhatIsOwed) {
  SimDisk disk(1);
  StoreHarness h(&disk);
  h.options.max_pending_bytes = 16 << 10;
  DYNLIB_ASSERT_OK(h.Open());
  disk.SetFull(true);
  Contents expected;
  absl::Status status;
  for (int i = 0; i < 600 && status.ok(); ++i) {
    const std::string key = Cat("k", 100 + i);
    status = h.Write(StoreBatch(Put(key, std::string(900, 'v'))), {.durable = false}).status;
    if (status.ok()) expected[key] = std::string(900, 'v');
  }
  EXPECT_THAT(status, StatusIs(StatusCode::kResourceExhausted));
  EXPECT_EQ(h.Scan(), expected);
  EXPECT_LE(h.store->stats().pending_bytes, 16u << 10);
  EXPECT_THAT(h.store->stats().culprits, Contains(HasSubstr("the log takes no more")));
  disk.SetFull(false);
  DYNLIB_ASSERT_OK(h.Checkpoint());
  h.Run();
  EXPECT_EQ(h.store->stats().pending_bytes, 0u);
  DYNLIB_ASSERT_OK(h.Write(Put("more", "1")));
  expected["more"] = "1";
  h.Kill();
  disk.PowerOff(UnsyncedFate::kAllLost);
  disk.Restart();
  DYNLIB_ASSERT_OK(h.Open());
  EXPECT_EQ(h.Scan(), expected);
}

}  // namespace
}  // namespace dynlib::store
