#include "dynlib/sim/history.h"

#include <utility>

#include "dynlib/base/check.h"
#include "dynlib/base/strings.h"

namespace dynlib::sim {
namespace {

std::string Show(const Register& value) {
  return value ? Cat("\"", Escape(*value), "\"") : std::string("absent");
}

std::string ShowTime(Instant time) {
  if (time == Instant::Infinite()) return "never";
  return Cat(ToMicros(time - Instant()), "us");
}

std::string ShowAction(const Operation& op) {
  switch (op.kind) {
    case Operation::Kind::kRead:
      return op.outcome == Operation::Outcome::kDone ? Cat("read, saw ", Show(op.value)) : "read";
    case Operation::Kind::kWrite:
      return op.value ? Cat("write ", Show(op.value)) : "delete";
    case Operation::Kind::kConditionalWrite:
      return Cat("if ", Show(op.expected), " then ",
                 op.value ? Cat("write ", Show(op.value)) : std::string("delete"));
  }
  return "";
}

std::string_view ShowOutcome(Operation::Outcome outcome) {
  switch (outcome) {
    case Operation::Outcome::kDone:
      return "done";
    case Operation::Outcome::kConditionFailed:
      return "condition failed";
    case Operation::Outcome::kNotDone:
      return "not done";
    case Operation::Outcome::kUnknown:
      return "unknown";
  }
  return "";
}

}  // namespace

std::string Operation::ToString() const {
  return Cat("client ", client, " [", ShowTime(invoked_at), "..", ShowTime(returned_at), "] ",
             ShowAction(*this), ": ", ShowOutcome(outcome));
}

History::OpId History::Invoke(Operation operation, Instant now) {
  operation.invoked_at = now;
  operation.invoked = events_++;
  operations_.push_back(std::move(operation));
  return operations_.size() - 1;
}

History::OpId History::InvokeRead(ClientId client, std::string key, Instant now) {
  return Invoke({.client = client, .key = std::move(key), .kind = Operation::Kind::kRead}, now);
}

History::OpId History::InvokeWrite(ClientId client, std::string key, std::string value,
                                   Instant now) {
  return Invoke({.client = client,
                 .key = std::move(key),
                 .kind = Operation::Kind::kWrite,
                 .value = std::move(value)},
                now);
}

History::OpId History::InvokeDelete(ClientId client, std::string key, Instant now) {
  return Invoke({.client = client, .key = std::move(key), .kind = Operation::Kind::kWrite}, now);
}

History::OpId History::InvokeConditionalWrite(ClientId client, std::string key, Register expected,
                                              Register value, Instant now) {
  return Invoke({.client = client,
                 .key = std::move(key),
                 .kind = Operation::Kind::kConditionalWrite,
                 .value = std::move(value),
                 .expected = std::move(expected)},
                now);
}

Operation& History::Return(OpId op, Operation::Outcome outcome, Instant now) {
  DYNLIB_CHECK(op < operations_.size());
  Operation& operation = operations_[op];
  DYNLIB_CHECK(operation.returned == UINT64_MAX);
  operation.outcome = outcome;
  operation.returned_at = now;
  operation.returned = events_++;
  return operation;
}

void History::ReturnRead(OpId op, Register seen, Instant now) {
  Operation& operation = Return(op, Operation::Outcome::kDone, now);
  DYNLIB_CHECK(operation.kind == Operation::Kind::kRead);
  operation.value = std::move(seen);
}

void History::ReturnDone(OpId op, Instant now) {
  Operation& operation = Return(op, Operation::Outcome::kDone, now);
  DYNLIB_CHECK(operation.kind != Operation::Kind::kRead);
}

void History::ReturnConditionFailed(OpId op, Instant now) {
  Operation& operation = Return(op, Operation::Outcome::kConditionFailed, now);
  DYNLIB_CHECK(operation.kind == Operation::Kind::kConditionalWrite);
}

void History::ReturnNotDone(OpId op, Instant now) { Return(op, Operation::Outcome::kNotDone, now); }

void History::ReturnUnknown(OpId op, Instant now) { Return(op, Operation::Outcome::kUnknown, now); }

}  // namespace dynlib::sim
