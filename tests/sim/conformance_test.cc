// The suites for those who implement a runtime interface, run against the simulated ones.

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "dynlib/base/check.h"
#include "dynlib/base/ids.h"
#include "dynlib/base/time.h"
#include "dynlib/runtime/clock.h"
#include "dynlib/runtime/disk.h"
#include "dynlib/runtime/executor.h"
#include "dynlib/runtime/object_store.h"
#include "dynlib/runtime/transport.h"
#include "dynlib/sim/disk.h"
#include "dynlib/sim/executor.h"
#include "dynlib/sim/object_store.h"
#include "dynlib/sim/world.h"
#include "dynlib/testing/clock_conformance.h"
#include "dynlib/testing/disk_conformance.h"
#include "dynlib/testing/environment.h"
#include "dynlib/testing/executor_conformance.h"
#include "dynlib/testing/object_store_conformance.h"
#include "dynlib/testing/rpc_conformance.h"
#include "dynlib/testing/transport_conformance.h"
#include "gtest/gtest.h"

namespace dynlib::sim {
namespace {

constexpr NodeId kOne{1};

// A world, as each of the suites' environments sees it.
template <typename Base>
class SimEnvironment : public Base {
 public:
  SimEnvironment() : world_(1) { world_.AddNode(kOne, /*drift_ppm=*/100); }

  Clock* clock() override { return node()->clock(); }
  bool RunUntil(std::function<bool()> condition, Duration limit) override {
    // In small steps: time passes also where nothing happens.
    const Instant end = clock()->Now() + limit;
    while (clock()->Now() < end) {
      if (world_.RunUntil(condition, std::chrono::milliseconds(1))) return true;
    }
    return condition();
  }

 protected:
  World& world() { return world_; }
  Node* node() { return world_.node(kOne); }

 private:
  World world_;
};

// A world has one thread; the suite posts from two, though never while the world runs.
class LockedExecutor final : public Executor {
 public:
  explicit LockedExecutor(SimExecutor* executor) : executor_(executor) {}

  void Post(Task task) override {
    std::lock_guard lock(mutex_);
    executor_->Post(std::move(task));
  }
  TimerId RunAt(Instant when, Task task) override {
    return executor_->RunAt(when, std::move(task));
  }
  bool Cancel(TimerId timer) override { return executor_->Cancel(timer); }
  bool IsCurrent() const override { return executor_->IsCurrent(); }
  SimExecutor* inner() { return executor_; }

 private:
  std::mutex mutex_;
  SimExecutor* const executor_;
};

class SimExecutorEnvironment final : public SimEnvironment<ExecutorEnvironment> {
 public:
  explicit SimExecutorEnvironment(bool blocking) : blocking_(blocking) {}

  Executor* NewExecutor() override {
    executors_.push_back(std::make_unique<LockedExecutor>(
        blocking_ ? node()->NewBlockingExecutor("e") : node()->NewExecutor("e")));
    return executors_.back().get();
  }
  void ShutDown(Executor* executor) override {
    SimExecutor* const inner = static_cast<LockedExecutor*>(executor)->inner();
    inner->ShutDown();
    DYNLIB_CHECK(world().RunUntil([&] { return inner->idle(); }, std::chrono::seconds(10)));
  }

 private:
  const bool blocking_;
  std::vector<std::unique_ptr<LockedExecutor>> executors_;
};

class SimTransportEnvironment final : public SimEnvironment<TransportEnvironment> {
 public:
  SimTransportEnvironment() {
    world().AddNode(NodeId{2});
    world().AddNode(NodeId{3});
  }
  Executor* executor(NodeId id) override {
    Executor*& executor = executors_[id];
    if (executor == nullptr) executor = world().node(id)->NewExecutor("main");
    return executor;
  }
  Transport* transport(NodeId id) override { return world().node(id)->transport(); }

 private:
  std::map<NodeId, Executor*> executors_;
};

template <typename Base>
class SimBlockingEnvironment : public SimEnvironment<Base> {
 public:
  void RunBlocking(std::function<void()> body) override {
    bool done = false;
    this->node()->NewBlockingExecutor("body")->Post([&] {
      body();
      done = true;
    });
    DYNLIB_CHECK(this->world().RunUntil([&] { return done; }, std::chrono::hours(1)));
  }
};

class SimDiskEnvironment final : public SimBlockingEnvironment<DiskEnvironment> {
 public:
  Disk* disk() override { return node()->disk(); }
  bool PowerLoss() override {
    node()->PowerOff(UnsyncedFate::kAllLost);
    node()->Restart();
    return true;
  }
};

class SimObjectStoreEnvironment final : public SimBlockingEnvironment<ObjectStoreEnvironment> {
 public:
  ObjectStore* store() override { return world().object_store(); }
  bool Damage(const std::string& name) override { return world().object_store()->FlipBit(name, 9); }
};

// The devices alone, without a world.
template <typename Base>
class StandAlone : public Base {
 public:
  void RunBlocking(std::function<void()> body) override { body(); }
  Clock* clock() override { return world_.node(kOne)->clock(); }
  bool RunUntil(std::function<bool()> condition, Duration limit) override {
    return world_.RunUntil(condition, limit);
  }

 protected:
  StandAlone() : world_(1) { world_.AddNode(kOne); }

 private:
  World world_;
};

class StandAloneDisk final : public StandAlone<DiskEnvironment> {
 public:
  StandAloneDisk() : disk_(1) {}
  Disk* disk() override { return &disk_; }
  bool PowerLoss() override {
    disk_.PowerOff(UnsyncedFate::kAllLost);
    disk_.Restart();
    return true;
  }

 private:
  SimDisk disk_;
};

class StandAloneObjectStore final : public StandAlone<ObjectStoreEnvironment> {
 public:
  StandAloneObjectStore() : store_(1) {}
  ObjectStore* store() override { return &store_; }
  bool Damage(const std::string& name) override { return store_.FlipBit(name, 9); }

 private:
  SimObjectStore store_;
};

}  // namespace
}  // namespace dynlib::sim

namespace dynlib {
namespace {

template <typename Suite>
std::string NameOf(const ::testing::TestParamInfo<Suite>& info) {
  return info.param.name;
}

INSTANTIATE_TEST_SUITE_P(Sim, ClockConformance,
                         ::testing::Values(ClockConformanceParam{
                             "World",
                             [] { return std::make_unique<sim::SimEnvironment<Environment>>(); }}),
                         NameOf<ClockConformanceParam>);
INSTANTIATE_TEST_SUITE_P(
    Sim, ExecutorConformance,
    ::testing::Values(
        ExecutorConformanceParam{
            "Plain", [] { return std::make_unique<sim::SimExecutorEnvironment>(false); }},
        ExecutorConformanceParam{
            "Blocking", [] { return std::make_unique<sim::SimExecutorEnvironment>(true); }}),
    NameOf<ExecutorConformanceParam>);
INSTANTIATE_TEST_SUITE_P(Sim, TransportConformance,
                         ::testing::Values(TransportConformanceParam{
                             "World",
                             [] { return std::make_unique<sim::SimTransportEnvironment>(); }}),
                         NameOf<TransportConformanceParam>);
INSTANTIATE_TEST_SUITE_P(Sim, RpcConformance,
                         ::testing::Values(RpcConformanceParam{
                             "World",
                             [] { return std::make_unique<sim::SimTransportEnvironment>(); }}),
                         NameOf<RpcConformanceParam>);
INSTANTIATE_TEST_SUITE_P(
    Sim, DiskConformance,
    ::testing::Values(
        DiskConformanceParam{"World", [] { return std::make_unique<sim::SimDiskEnvironment>(); }},
        DiskConformanceParam{"Alone", [] { return std::make_unique<sim::StandAloneDisk>(); }}),
    NameOf<DiskConformanceParam>);
INSTANTIATE_TEST_SUITE_P(
    Sim, ObjectStoreConformance,
    ::testing::Values(
        ObjectStoreConformanceParam{
            "World", [] { return std::make_unique<sim::SimObjectStoreEnvironment>(); }},
        ObjectStoreConformanceParam{"Alone",
                                    [] { return std::make_unique<sim::StandAloneObjectStore>(); }}),
    NameOf<ObjectStoreConformanceParam>);

}  // namespace
}  // namespace dynlib
