#include "dynlib/runtime/posix/interrupt_processor.h"

#include <sys/sysmacros.h>

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <fstream>
#include <string>
#include <system_error>

#include "dynlib/base/strings.h"

namespace dynlib {
namespace {

namespace fs = std::filesystem;

// The disk of which `device` is a partition, or that it is itself; empty if it is none.
fs::path DiskFolder(dev_t device, const fs::path& root) {
  std::error_code error;
  const fs::path name = Cat(major(device), ":", minor(device));
  const fs::path folder = fs::canonical(root / "sys/dev/block" / name, error);
  if (error) return {};
  return fs::exists(folder / "partition", error) ? folder.parent_path() : folder;
}

bool HasOneQueue(const fs::path& disk) {
  std::error_code error;
  const fs::directory_iterator queues(disk / "mq", error);
  return !error && std::distance(begin(queues), end(queues)) == 1;
}

// A disk's interrupts are those of the device above it on the bus.
fs::path InterruptsFolder(const fs::path& disk) {
  constexpr int kLevels = 3;
  std::error_code error;
  fs::path device = fs::canonical(disk / "device", error);
  for (int level = 0; level < kLevels && !error; ++level, device = device.parent_path()) {
    if (fs::exists(device / "msi_irqs", error)) return device / "msi_irqs";
  }
  return {};
}

// How often it came, on all processors: "0,75088109".
uint64_t Count(const fs::path& root, const std::string& interrupt) {
  std::ifstream file(root / "sys/kernel/irq" / interrupt / "per_cpu_count");
  uint64_t sum = 0;
  for (uint64_t count = 0; file >> count; file.ignore(1)) sum += count;
  return sum;
}

// A single processor's number, or nothing: lists may also say "0-3" or "0,2".
std::optional<int> Processor(const fs::path& root, const std::string& interrupt) {
  std::ifstream file(root / "proc/irq" / interrupt / "effective_affinity_list");
  std::string list;
  if (!(file >> list)) return std::nullopt;
  int processor = 0;
  const auto [end, error] = std::from_chars(list.data(), list.data() + list.size(), processor);
  if (error != std::errc() || end != list.data() + list.size()) return std::nullopt;
  return processor;
}

}  // namespace

std::optional<int> InterruptProcessor(dev_t device, const fs::path& root) {
  const fs::path disk = DiskFolder(device, root);
  if (disk.empty() || !HasOneQueue(disk)) return std::nullopt;
  const fs::path folder = InterruptsFolder(disk);
  if (folder.empty()) return std::nullopt;
  // One of them tells of changes of the device, and hardly ever comes.
  std::string busiest;
  uint64_t most = 0;
  std::error_code error;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder, error)) {
    const std::string interrupt = entry.path().filename();
    const uint64_t count = Count(root, interrupt);
    if (count > most) busiest = interrupt;
    most = std::max(most, count);
  }
  if (busiest.empty()) return std::nullopt;
  return Processor(root, busiest);
}

}  // namespace dynlib
