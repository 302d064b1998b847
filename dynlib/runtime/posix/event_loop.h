// A thread that waits for sockets, runs tasks, and makes blocking calls when it has nothing better
// to do: two executors and a place for sockets, without a hand-over between threads among them.
//
//   EventLoop loop({.name = "node"});
//   TcpTransport::Start({.self = NodeId{1}, .loop = &loop, ...});
//   NodeLog::Open(options, &disk, "log", loop.blocking_executor(), ...);
//   GroupHost host(..., loop.executor(), ...);
//
// What a node does for one commit is little: a message comes, a record is written, a message goes.
// With a thread each for sockets, protocol and log, most of the time goes into waking them in turn
// (10 to 30 us each on a machine that is idle). Here one thread reads what came, runs the tasks
// that follow from it, sends what they said, and then writes and syncs the log itself.
//
// A turn: sockets that are ready, then tasks and timers of executor() until none is left (or a
// bound is reached, so that sockets get their turn), then what was sent goes out, then one task of
// blocking_executor().
//
// A blocking task keeps nobody waiting: when something else comes up meanwhile (a message, a task),
// a second thread takes the loop over, and the first goes on with blocking tasks while there are
// any. So a loop that has little to do is one thread, a busy one is two that work side by side, and
// a disk that hangs stops what waits for the disk, and nothing else. Tasks of one executor never
// run at the same time, and each sees what those before it did, whichever of the two threads runs
// it.
//
// An idle loop sleeps. One whose waits were short lately first polls for what comes next, for up to
// `poll_max`, and offers its processor to other threads meanwhile: who posts something then makes
// no system call, and no processor has to come out of its sleep. (A replicated commit of a lone
// client, in three processes: 330 us instead of 390.) Timers that fall due during a blocking task
// are seen `blocked_max` after its start, at the latest. The second thread is made with the first
// blocking task.
//
// Timers are in the time of SystemClock. One that falls due while the machine is suspended runs
// within a second after it resumes. Queues are not bounded: whoever posts bounds what it has
// outstanding. Needs epoll_pwait2 (Linux 5.11).
//
// Threads: all methods from any thread, but as said at each.
#ifndef DYNLIB_RUNTIME_POSIX_EVENT_LOOP_H_
#define DYNLIB_RUNTIME_POSIX_EVENT_LOOP_H_

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>

#include "dynlib/base/time.h"
#include "dynlib/runtime/executor.h"

namespace dynlib {

class EventLoop {
 public:
  struct Options {
    std::string name = "dynlib";  // of the threads, as debuggers and top show it: 15 bytes of it
    // How long a blocking task may hold up timers; more than 0.
    Duration blocked_max = std::chrono::milliseconds(20);
    // For how long a loop that is busy polls before it sleeps, 0 to 10 ms. All of it is processor
    // time, if nobody else wants it.
    Duration poll_max = std::chrono::microseconds(200);
    // For how long its threads keep a processor that others wait for, 0.1 to 100 ms; 0 for as long
    // as the system lets them. Threads with short ones also get it sooner (Linux 6.12; else without
    // effect): p99 by p50 of replicated commits, half of what four processes on two processors can
    // do, 4.2 instead of 6.2.
    Duration time_slice = std::chrono::microseconds(100);
  };

  // Who has sockets in the loop: a transport. All calls come from the loop.
  class Source {
   public:
    virtual ~Source() = default;
    // Something of epoll_fd() with this token is ready; perhaps of a socket that is closed by now.
    virtual void OnReady(uint64_t token, uint32_t events) = 0;
    // The tasks that were posted have run: what they sent may go out, before those that they
    // posted. Returns when it wants to be called though nothing happens, Infinite for never.
    virtual Instant EndTurn(Instant now) = 0;
  };

  EventLoop() : EventLoop(Options{}) {}
  explicit EventLoop(Options options);
  // Shuts down. Not from a task of this loop. Sources are gone by then.
  ~EventLoop();

  // Runs what was posted before, tasks of executor() first, then ends the threads; what comes later
  // is destroyed unrun. Repeats do nothing. Not from a task of this loop.
  void ShutDown();

  // For tasks that do not block.
  Executor* executor();
  // For tasks that may block for as long as a disk does: file calls.
  Executor* blocking_executor();

  // Sockets are added to epoll_fd() by their owner, with tokens that count up from the one that
  // AddSource returned, which is at least 1.
  int epoll_fd() const;
  uint64_t AddSource(Source* source);
  // When this returns the source is called no more. On the loop, or by a thread that the loop's
  // tasks do not wait for.
  void RemoveSource(Source* source);
  // A turn is wanted, as if something had been posted. Costs nothing on the loop, and a system call
  // only if it sleeps.
  void Wake();

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace dynlib

#endif  // DYNLIB_RUNTIME_POSIX_EVENT_LOOP_H_
