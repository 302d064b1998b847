// A durable, ordered map in a folder: the store alone, on threads and files. Each run finds what
// the earlier ones wrote.
//
//   store_kv [FOLDER]
#include <cstdio>
#include <cstdlib>
#include <future>
#include <memory>
#include <optional>
#include <string>

#include "dynlib/runtime/posix/posix_disk.h"
#include "dynlib/runtime/posix/system_clock.h"
#include "dynlib/runtime/posix/thread_executor.h"
#include "dynlib/store/store.h"
#include "dynlib/store/tree.h"
#include "dynlib/store/write_batch.h"

int main(int argc, char** argv) {
  using namespace dynlib;  // An example's liberty.
  const char* temporary = std::getenv("TEST_TMPDIR");
  const std::string folder = argc > 1               ? argv[1]
                             : temporary != nullptr ? std::string(temporary) + "/store"
                                                    : "store-kv-data";

  auto disk = PosixDisk::Open({.root = folder});
  if (!disk.ok()) {
    std::fprintf(stderr, "%s\n", disk.status().ToString().c_str());
    return 1;
  }
  SystemClock clock;
  ThreadExecutor checkpoints, apply, log;
  auto store = store::Store::Open(
      {}, disk->get(), "db", {.log = &log, .apply = &apply, .checkpoint = &checkpoints}, &clock);
  if (!store.ok()) {
    std::fprintf(stderr, "%s\n", store.status().ToString().c_str());
    return 1;
  }
  // Answers come on an executor of the caller's choice; this program waits for each.
  auto wait = [&](auto start) {
    std::promise<absl::Status> promise;
    start([&](absl::Status status) { promise.set_value(status); });
    return promise.get_future().get();
  };

  const std::optional<std::string> runs = *(*store)->Get("runs");
  store::WriteBatch batch;  // All of it, or nothing.
  batch.Put("runs", std::to_string(runs.has_value() ? std::stoi(*runs) + 1 : 1));
  batch.Put("city/lima", "Peru");
  batch.Put("city/oslo", "Norway");
  batch.Delete("city/atlantis");
  const absl::Status durable = wait([&](auto done) { (*store)->Write(batch, &apply, done); });
  if (!durable.ok()) return 1;

  std::printf("run %s\n", (*store)->Get("runs")->value().c_str());
  int cities = 0;
  const absl::Status scanned = (*store)->snapshot().Scan(
      "city/", "city0", store::ScanOrder::kForward,
      [&](std::string_view key, std::string_view value) {
        std::printf("%.*s -> %.*s\n", static_cast<int>(key.size()), key.data(),
                    static_cast<int>(value.size()), value.data());
        return ++cities < 100;
      });
  const absl::Status closed = wait([&](auto done) { (*store)->Close(&apply, done); });
  return scanned.ok() && closed.ok() && cities == 2 ? 0 : 1;
}
