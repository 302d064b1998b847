// What clients did to a store of keys and what they were told: the input of the linearizability
// checker.
//
//   History history;
//   auto op = history.InvokeWrite(ClientId{1}, "k", "v1", clock.Now());
//   store.Put("k", "v1", [&, op](absl::Status s) {
//     if (s.ok()) history.ReturnDone(op, clock.Now());
//     else if (MayHaveHappened(s)) history.ReturnUnknown(op, clock.Now());
//     else history.ReturnNotDone(op, clock.Now());
//   });
//
// Order is that of the calls to this object, not of the times, which are for people: an operation
// that returned before another was invoked came before it. Call Invoke before the operation can
// have an effect and Return after its answer is known. A deleted key and one never written are the
// same: absent. An operation that never returns counts as unknown.
//
// Threads: one at a time.
#ifndef DYNLIB_SIM_HISTORY_H_
#define DYNLIB_SIM_HISTORY_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "dynlib/base/ids.h"
#include "dynlib/base/time.h"

namespace dynlib::sim {

// A key's value; nullopt when the key is absent.
using Register = std::optional<std::string>;

struct Operation {
  enum class Kind : uint8_t { kRead, kWrite, kConditionalWrite };
  enum class Outcome : uint8_t {
    kDone,             // Took effect between invocation and return.
    kConditionFailed,  // A conditional write found something else than it expected.
    kNotDone,          // Had no effect and never will.
    kUnknown,          // Took effect at some time after its invocation, or will, or never will.
  };

  ClientId client = {};
  std::string key;
  Kind kind = Kind::kRead;
  Register value;     // Written (nullopt: a delete); or, of a read that is done, what it saw.
  Register expected;  // Of a conditional write.
  Outcome outcome = Outcome::kUnknown;
  Instant invoked_at;
  Instant returned_at = Instant::Infinite();
  // Positions in the order of all invocations and returns.
  uint64_t invoked = 0;
  uint64_t returned = UINT64_MAX;

  // "client 3 [120us..450us] write "v1": done"
  std::string ToString() const;
};

class History {
 public:
  using OpId = size_t;

  OpId InvokeRead(ClientId client, std::string key, Instant now);
  OpId InvokeWrite(ClientId client, std::string key, std::string value, Instant now);
  OpId InvokeDelete(ClientId client, std::string key, Instant now);
  // `value` nullopt: a conditional delete. `expected` nullopt: the key must be absent.
  OpId InvokeConditionalWrite(ClientId client, std::string key, Register expected, Register value,
                              Instant now);

  // Each operation returns at most once (checked), with the form that fits its kind (checked).
  void ReturnRead(OpId op, Register seen, Instant now);
  void ReturnDone(OpId op, Instant now);
  void ReturnConditionFailed(OpId op, Instant now);
  void ReturnNotDone(OpId op, Instant now);
  // No upper bound on when it takes effect; a read is forgotten.
  void ReturnUnknown(OpId op, Instant now);

  const std::vector<Operation>& operations() const { return operations_; }
  size_t size() const { return operations_.size(); }

 private:
  OpId Invoke(Operation operation, Instant now);
  Operation& Return(OpId op, Operation::Outcome outcome, Instant now);

  std::vector<Operation> operations_;
  uint64_t events_ = 0;
};

}  // namespace dynlib::sim

#endif  // DYNLIB_SIM_HISTORY_H_
