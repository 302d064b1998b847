// What the conformance suites need from whoever implements a runtime interface.
//
// A suite knows its subject by the interface alone, and does not know what makes things happen:
// real threads, or a simulated world that must be stepped. An environment hides that.
//
//   class MyDiskEnvironment : public DiskEnvironment { ... };
//   INSTANTIATE_TEST_SUITE_P(MyDisk, DiskConformance, ::testing::Values(DiskConformanceParam{
//       "MyDisk", [] { return std::make_unique<MyDiskEnvironment>(); }}));
//
// and depend on //dynlib/testing:disk_conformance, which brings the tests.
//
// Threads: an environment is used by the test's own thread. Conditions given to RunUntil run there.
#ifndef DYNLIB_TESTING_ENVIRONMENT_H_
#define DYNLIB_TESTING_ENVIRONMENT_H_

#include <functional>
#include <memory>
#include <ostream>
#include <string>

#include "dynlib/base/ids.h"
#include "dynlib/base/time.h"
#include "dynlib/runtime/clock.h"
#include "dynlib/runtime/disk.h"
#include "dynlib/runtime/executor.h"
#include "dynlib/runtime/object_store.h"
#include "dynlib/runtime/transport.h"

namespace dynlib {

// Time, and a way to let it pass.
class Environment {
 public:
  virtual ~Environment() = default;

  virtual Clock* clock() = 0;

  // Lets the world go on until condition() is true, but for no longer than `limit` of clock().
  // Returns condition()'s last answer. Real: waits. Simulated: steps the world, checking the
  // condition between steps.
  virtual bool RunUntil(std::function<bool()> condition, Duration limit) = 0;
};

class ExecutorEnvironment : public Environment {
 public:
  // Whether threads of the operating system may call an executor at once: true for real ones.
  virtual bool HasThreads() const { return false; }

  // A fresh executor on clock(). It lives as long as the environment.
  virtual Executor* NewExecutor() = 0;
  // Shuts `executor` down: returns after all that was posted before has run. The object stays, so
  // that later calls can be tried on it. Each executor at most once; not from its own tasks.
  virtual void ShutDown(Executor* executor) = 0;
};

// Nodes 1, 2 and 3, connected by a network that is in good health: what is within the bounds
// arrives in less than a second.
class TransportEnvironment : public Environment {
 public:
  // Executor and transport of a node, made at first use.
  virtual Executor* executor(NodeId node) = 0;
  virtual Transport* transport(NodeId node) = 0;
  // The clock that the node's executor runs on.
  virtual Clock* node_clock(NodeId node) { return clock(); }
};

// Where file calls may be made. Real: anywhere. Simulated: on an executor with a stack of its own.
class BlockingEnvironment : public Environment {
 public:
  // Runs `body` to its end where file calls are allowed.
  virtual void RunBlocking(std::function<void()> body) = 0;
};

class DiskEnvironment : public BlockingEnvironment {
 public:
  // An empty disk; after PowerLoss, another object over what was left. Called within RunBlocking
  // or outside.
  virtual Disk* disk() = 0;

  // Loses what was not synced, and gives disk() anew; files of the old disk are closed before.
  // False if this environment cannot. Called outside of RunBlocking.
  virtual bool PowerLoss() { return false; }
};

class ObjectStoreEnvironment : public BlockingEnvironment {
 public:
  // An empty store.
  virtual ObjectStore* store() = 0;

  // Flips a bit of the stored bytes of the object, behind the store's back. False if this
  // environment cannot. Called within RunBlocking.
  virtual bool Damage(const std::string& name) { return false; }
};

// The parameter of a suite. The name shows in the test's name: letters and digits.
template <typename AnEnvironment>
struct ConformanceParam {
  std::string name;
  std::function<std::unique_ptr<AnEnvironment>()> make;

  friend void PrintTo(const ConformanceParam& param, std::ostream* out) { *out << param.name; }
};

using ClockConformanceParam = ConformanceParam<Environment>;
using ExecutorConformanceParam = ConformanceParam<ExecutorEnvironment>;
using TransportConformanceParam = ConformanceParam<TransportEnvironment>;
using RpcConformanceParam = ConformanceParam<TransportEnvironment>;
using DiskConformanceParam = ConformanceParam<DiskEnvironment>;
using ObjectStoreConformanceParam = ConformanceParam<ObjectStoreEnvironment>;

}  // namespace dynlib

#endif  // DYNLIB_TESTING_ENVIRONMENT_H_
