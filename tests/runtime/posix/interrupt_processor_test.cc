#include "dynlib/runtime/posix/interrupt_processor.h"

#include <sys/sysmacros.h>

#include <filesystem>
#include <fstream>
#include <optional>
#include <string>

#include "gtest/gtest.h"
#include "tests/runtime/real_environment.h"

namespace dynlib {
namespace {

namespace fs = std::filesystem;

// A disk 254:0 with a partition 254:1, on a bus device with two interrupts, as Linux shows them.
class InterruptProcessorTest : public testing::Test {
 protected:
  InterruptProcessorTest() {
    fs::create_directories(disk_ / "mq/0");
    Write(disk_ / "vda1/partition", "1");
    fs::create_directories(root_ / "sys/dev/block");
    fs::create_directory_symlink(disk_, root_ / "sys/dev/block/254:0");
    fs::create_directory_symlink(disk_ / "vda1", root_ / "sys/dev/block/254:1");
    fs::create_directory_symlink(bus_ / "virtio1", disk_ / "device");
    Interrupt("35", "0,1", "0");
    Interrupt("36", "0,75088109", "1");
  }

  void Interrupt(const std::string& number, const std::string& counts, const std::string& where) {
    Write(bus_ / "msi_irqs" / number, "msix");
    Write(root_ / "sys/kernel/irq" / number / "per_cpu_count", counts);
    Write(root_ / "proc/irq" / number / "effective_affinity_list", where);
  }
  static void Write(const fs::path& path, const std::string& text) {
    fs::create_directories(path.parent_path());
    std::ofstream(path) << text << "\n";
  }
  std::optional<int> Find(int minor = 0) { return InterruptProcessor(makedev(254, minor), root_); }

  ScratchFolder folder_;
  const fs::path root_ = folder_.path();
  const fs::path bus_ = root_ / "sys/devices/pci/02.0";
  const fs::path disk_ = bus_ / "virtio1/block/vda";
};

TEST_F(InterruptProcessorTest, IsWhereTheOneThatComesGoes) {
  EXPECT_EQ(Find(), 1);
  EXPECT_EQ(Find(1), 1) << "a partition";
}

TEST_F(InterruptProcessorTest, SeveralQueuesHaveSeveral) {
  fs::create_directories(disk_ / "mq/1");
  EXPECT_EQ(Find(), std::nullopt);
}

TEST_F(InterruptProcessorTest, SeveralProcessorsAreNone) {
  for (const char* list : {"0-1", "0,1", ""}) {
    Interrupt("36", "5,6", list);
    EXPECT_EQ(Find(), std::nullopt) << list;
  }
}

TEST_F(InterruptProcessorTest, WhatTheSystemDoesNotSayIsNotKnown) {
  EXPECT_EQ(Find(7), std::nullopt);
  fs::remove_all(bus_ / "msi_irqs");
  EXPECT_EQ(Find(), std::nullopt);
}

}  // namespace
}  // namespace dynlib
