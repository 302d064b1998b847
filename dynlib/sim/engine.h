// The baton of a simulated world: virtual time, the queue of events, the fibers, the trace and the
// counters of injected faults.
//
// Events run one at a time in the order of (time, number); the number grows with each At, so equal
// times run in the order in which they were asked for. Everything random is drawn from random(),
// which the seed fixes; so a run is a function of the seed and of the code.
//
// The trace is a running XXH3-64 over (time, node, kind, detail) of every event and of what is
// added by Trace: two runs that differ anywhere differ in it.
//
// Part of World; for those who build simulated devices. Threads: one.
#ifndef DYNLIB_SIM_ENGINE_H_
#define DYNLIB_SIM_ENGINE_H_

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "dynlib/base/ids.h"
#include "dynlib/base/random.h"
#include "dynlib/base/time.h"
#include "dynlib/sim/fiber.h"
#include "dynlib/sim/scheduler.h"

namespace dynlib::sim {

class Process;

// Whoever has tasks run: what the engine knows of an executor.
class Runner {
 public:
  virtual ~Runner() = default;
  virtual Process* process() const = 0;
  // Called on this runner's fiber: Scheduler::Delay.
  virtual bool DelayFiber(Duration delay) = 0;
};

enum class EventKind : uint8_t {
  kTask,     // an executor runs one; detail: its number
  kTimer,    // a timer is due
  kWake,     // a fiber's wait is over
  kSend,     // a message enters the network; detail: its checksum
  kDeliver,  // it arrives
  kDrop,     // it is lost, cut off or refused
  kNode,     // crash, power-off, restart, pause
  kFault,    // a timed fault begins or ends
  kNote,     // World::Note
};

class Engine final : public Scheduler {
 public:
  using Action = absl::AnyInvocable<void()>;

  explicit Engine(uint64_t seed) : random_(seed) {}

  Instant Now() const override { return now_; }
  // Runs `action` at `when`, or now if that is past. `node` may be NodeId{0}: the world.
  void At(Instant when, NodeId node, EventKind kind, uint64_t detail, Action action);
  void After(Duration delay, NodeId node, EventKind kind, uint64_t detail, Action action) {
    At(now_ + delay, node, kind, detail, std::move(action));
  }

  // Runs the next event if it is due by `limit`.
  bool Step(Instant limit);
  void AdvanceTo(Instant when);
  // Destroys what has not run.
  void Clear();
  uint64_t events() const { return events_; }

  bool Delay(Duration delay) override;
  void CountFault(std::string_view name) override { CountFault(name, 1); }
  void CountFault(std::string_view name, uint64_t by);
  const std::map<std::string, uint64_t, std::less<>>& fault_counts() const { return counts_; }

  void Trace(NodeId node, EventKind kind, uint64_t detail);
  void Note(NodeId node, std::string_view text);
  uint64_t trace_hash() const { return hash_; }
  // One line for each thing traced; null = none.
  void SetTrace(std::function<void(std::string_view)> sink) { sink_ = std::move(sink); }

  Random& random() { return random_; }
  FiberPool& fibers() { return fibers_; }
  // Whose task runs; null between events, and in events that are no executor's.
  Runner* current() const { return current_; }
  void SetCurrent(Runner* runner) { current_ = runner; }

 private:
  struct Event {
    Instant time;
    uint64_t number;
    NodeId node;
    EventKind kind;
    uint64_t detail;
    Action action;
  };
  static bool Later(const Event& a, const Event& b) {
    return a.time != b.time ? a.time > b.time : a.number > b.number;
  }
  void Say(NodeId node, EventKind kind, std::string_view text);

  Instant now_ = Instant::FromNanos(0);
  Random random_;
  std::vector<Event> heap_;
  uint64_t next_number_ = 1;
  uint64_t events_ = 0;
  uint64_t hash_ = 0;
  std::function<void(std::string_view)> sink_;
  std::map<std::string, uint64_t, std::less<>> counts_;
  FiberPool fibers_;
  Runner* current_ = nullptr;
};

}  // namespace dynlib::sim

#endif  // DYNLIB_SIM_ENGINE_H_
