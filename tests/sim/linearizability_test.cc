#include "dynlib/sim/linearizability.h"

#include <algorithm>
#include <numeric>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "dynlib/base/ids.h"
#include "dynlib/base/random.h"
#include "dynlib/base/strings.h"
#include "dynlib/base/time.h"
#include "dynlib/sim/history.h"
#include "gtest/gtest.h"

namespace dynlib::sim {
namespace {

using Kind = Operation::Kind;
using Outcome = Operation::Outcome;
using Verdict = CheckResult::Verdict;

constexpr ClientId kA{1};
constexpr ClientId kB{2};
constexpr ClientId kC{3};

// Writes a history down: what happens takes one microsecond a call.
class Script {
 public:
  History::OpId BeginRead(ClientId c) { return history.InvokeRead(c, key, Tick()); }
  History::OpId BeginWrite(ClientId c, std::string v) {
    return history.InvokeWrite(c, key, std::move(v), Tick());
  }
  History::OpId BeginDelete(ClientId c) { return history.InvokeDelete(c, key, Tick()); }
  History::OpId BeginIf(ClientId c, Register expected, Register v) {
    return history.InvokeConditionalWrite(c, key, std::move(expected), std::move(v), Tick());
  }
  void Saw(History::OpId op, Register v) { history.ReturnRead(op, std::move(v), Tick()); }
  void Done(History::OpId op) { history.ReturnDone(op, Tick()); }
  void Failed(History::OpId op) { history.ReturnConditionFailed(op, Tick()); }
  void NotDone(History::OpId op) { history.ReturnNotDone(op, Tick()); }
  void Unknown(History::OpId op) { history.ReturnUnknown(op, Tick()); }

  // Whole operations, one after another.
  void Read(ClientId c, Register v) { Saw(BeginRead(c), std::move(v)); }
  void Write(ClientId c, std::string v) { Done(BeginWrite(c, std::move(v))); }
  void Delete(ClientId c) { Done(BeginDelete(c)); }
  void If(ClientId c, Register e, Register v) { Done(BeginIf(c, std::move(e), std::move(v))); }

  Verdict Check() const { return CheckLinearizable(history).verdict; }

  History history;
  std::string key = "k";

 private:
  Instant Tick() { return Instant::FromNanos(1000 * ++ticks_); }
  int64_t ticks_ = 0;
};

TEST(Linearizability, EmptyHistoryIsLinearizable) {
  EXPECT_TRUE(CheckLinearizable(History()).ok());
}

TEST(Linearizability, SequentialUseIsLinearizable) {
  Script s;
  s.Read(kA, std::nullopt);
  s.Write(kA, "1");
  s.Read(kB, "1");
  s.Delete(kB);
  s.Read(kA, std::nullopt);
  s.If(kA, std::nullopt, "2");
  s.Failed(s.BeginIf(kB, "1", "3"));
  s.Read(kB, "2");
  s.If(kB, "2", std::nullopt);
  s.Read(kA, std::nullopt);
  EXPECT_EQ(s.Check(), Verdict::kLinearizable);
}

TEST(Linearizability, ReadDuringWriteMaySeeEither) {
  for (const char* seen : {"old", "new"}) {
    Script s;
    s.Write(kA, "old");
    auto w = s.BeginWrite(kA, "new");
    s.Read(kB, seen);
    s.Done(w);
    s.Read(kB, "new");
    EXPECT_EQ(s.Check(), Verdict::kLinearizable) << seen;
  }
}

TEST(Linearizability, StaleReadIsCaught) {
  Script s;
  s.Write(kA, "1");
  s.Write(kA, "2");
  s.Read(kB, "1");
  EXPECT_EQ(s.Check(), Verdict::kViolation);
}

TEST(Linearizability, LostWriteIsCaught) {
  Script s;
  s.Write(kA, "1");
  s.Read(kB, std::nullopt);
  EXPECT_EQ(s.Check(), Verdict::kViolation);
}

TEST(Linearizability, LostDeleteIsCaught) {
  Script s;
  s.Write(kA, "1");
  s.Delete(kA);
  s.Read(kB, "1");
  EXPECT_EQ(s.Check(), Verdict::kViolation);
}

TEST(Linearizability, ValueFromNowhereIsCaught) {
  Script s;
  s.Write(kA, "1");
  s.Read(kB, "7");
  EXPECT_EQ(s.Check(), Verdict::kViolation);
}

TEST(Linearizability, ValueFromTheFutureIsCaught) {
  Script s;
  s.Read(kB, "1");
  s.Write(kA, "1");
  EXPECT_EQ(s.Check(), Verdict::kViolation);
}

TEST(Linearizability, WriteSeenThenUnseenIsCaught) {
  Script s;
  s.Write(kA, "old");
  auto w = s.BeginWrite(kA, "new");
  s.Read(kB, "new");
  s.Read(kC, "old");
  s.Done(w);
  EXPECT_EQ(s.Check(), Verdict::kViolation);
}

TEST(Linearizability, UnknownWriteMayBeSeenLateOrNever) {
  for (const char* seen : {"1", "2"}) {
    Script s;
    s.Write(kA, "1");
    s.Unknown(s.BeginWrite(kB, "2"));
    s.Read(kA, "1");
    s.Read(kA, "1");
    s.Read(kC, seen);
    EXPECT_EQ(s.Check(), Verdict::kLinearizable) << seen;
  }
}

TEST(Linearizability, UnknownWriteTakesEffectOnce) {
  Script s;
  s.Write(kA, "1");
  s.Unknown(s.BeginWrite(kB, "2"));
  s.Read(kC, "2");
  s.Write(kA, "3");
  s.Read(kC, "3");
  s.Read(kC, "2");
  EXPECT_EQ(s.Check(), Verdict::kViolation);
}

TEST(Linearizability, UnknownWriteSeenBeforeInvocationIsCaught) {
  Script s;
  s.Read(kC, "2");
  s.Unknown(s.BeginWrite(kB, "2"));
  EXPECT_EQ(s.Check(), Verdict::kViolation);
}

TEST(Linearizability, OperationThatNeverReturnedIsUnknown) {
  for (bool seen : {false, true}) {
    Script s;
    s.BeginWrite(kB, "2");
    s.BeginRead(kC);
    s.Read(kA, seen ? Register("2") : std::nullopt);
    EXPECT_EQ(s.Check(), Verdict::kLinearizable);
  }
}

TEST(Linearizability, WriteThatWasNotDoneMustNotBeSeen) {
  for (bool seen : {false, true}) {
    Script s;
    s.Write(kA, "1");
    s.NotDone(s.BeginWrite(kB, "2"));
    s.Read(kC, seen ? "2" : "1");
    EXPECT_EQ(s.Check(), seen ? Verdict::kViolation : Verdict::kLinearizable);
  }
}

TEST(Linearizability, ConditionalSuccessOnWrongValueIsCaught) {
  Script s;
  s.Write(kA, "1");
  s.Write(kA, "2");
  s.If(kB, "1", "3");
  EXPECT_EQ(s.Check(), Verdict::kViolation);
}

TEST(Linearizability, ConditionalFailureOnRightValueIsCaught) {
  Script s;
  s.Write(kA, "1");
  s.Failed(s.BeginIf(kB, "1", "3"));
  EXPECT_EQ(s.Check(), Verdict::kViolation);
}

TEST(Linearizability, TwoConditionalWritesCannotBothWin) {
  Script s;
  s.Write(kA, "1");
  auto b = s.BeginIf(kB, "1", "2");
  auto c = s.BeginIf(kC, "1", "3");
  s.Done(b);
  s.Done(c);
  EXPECT_EQ(s.Check(), Verdict::kViolation);
}

TEST(Linearizability, OneOfTwoConditionalWritesWins) {
  Script s;
  s.Write(kA, "1");
  auto b = s.BeginIf(kB, "1", "2");
  auto c = s.BeginIf(kC, "1", "3");
  s.Failed(b);
  s.Done(c);
  s.Read(kA, "3");
  EXPECT_EQ(s.Check(), Verdict::kLinearizable);
}

TEST(Linearizability, DoubleApplyIsCaught) {
  Script s;
  s.Write(kA, "a");
  s.Write(kB, "b");
  s.Read(kC, "b");
  s.Read(kC, "a");  // The first write, applied again.
  EXPECT_EQ(s.Check(), Verdict::kViolation);
}

TEST(Linearizability, ConditionFailureExplainedByUnknownWriteInBetween) {
  Script s;
  s.Write(kA, "1");
  auto u = s.BeginWrite(kB, "9");
  s.Failed(s.BeginIf(kA, "1", "2"));
  s.Write(kC, "1");
  s.Read(kC, "1");
  s.Unknown(u);
  EXPECT_EQ(s.Check(), Verdict::kLinearizable);
}

TEST(Linearizability, ChainOfUnknownConditionalWrites) {
  Script s;
  s.Unknown(s.BeginIf(kA, std::nullopt, "1"));
  s.Unknown(s.BeginIf(kB, "2", "3"));
  s.Unknown(s.BeginIf(kC, "1", "2"));
  s.Read(kA, "3");
  EXPECT_EQ(s.Check(), Verdict::kLinearizable);
  s.Read(kA, "2");
  EXPECT_EQ(s.Check(), Verdict::kViolation);
}

TEST(Linearizability, KeysAreIndependent) {
  Script s;
  s.Write(kA, "1");
  s.key = "l";
  s.Read(kA, std::nullopt);
  EXPECT_EQ(s.Check(), Verdict::kLinearizable);
  s.Write(kB, "x");
  s.Read(kA, std::nullopt);
  CheckResult result = CheckLinearizable(s.history);
  EXPECT_EQ(result.verdict, Verdict::kViolation);
  EXPECT_EQ(result.key, "l");
}

TEST(Linearizability, ExplanationNamesTheFewOperationsConcerned) {
  Script s;
  for (int i = 0; i < 100; ++i) {
    s.Write(kA, Cat("v", i));
    s.Read(kB, Cat("v", i));
  }
  s.Read(kC, "v98");
  s.Write(kA, "later");
  CheckResult result = CheckLinearizable(s.history);
  ASSERT_EQ(result.verdict, Verdict::kViolation);
  // The two writes, the reads that settle that v99 came later, and the stale read.
  EXPECT_LE(result.conflict.size(), 5u) << result.explanation;
  EXPECT_NE(result.explanation.find("client 3 [401us..402us] read, saw \"v98\": done"),
            std::string::npos)
      << result.explanation;
  EXPECT_EQ(result.explanation.find("later"), std::string::npos) << result.explanation;
}

TEST(Linearizability, BoundIsReportedAsUndecided) {
  Script s;
  // Equal values make the search branch: many overlapping writes of few values, then a read that
  // cannot be.
  std::vector<History::OpId> open;
  for (uint64_t i = 0; i < 16; ++i) {
    open.push_back(s.BeginIf(ClientId{i + 10}, Cat(i % 4), Cat((i * 7 + 1) % 4)));
  }
  auto w = s.BeginWrite(kA, "0");
  s.Done(w);
  for (auto op : open) s.Done(op);
  s.Read(kB, "no such");
  s.Write(kA, "no such");
  CheckResult result = CheckLinearizable(s.history, {.steps_per_key_max = 3});
  EXPECT_EQ(result.verdict, Verdict::kUndecided);
  EXPECT_FALSE(result.ok());
  EXPECT_EQ(result.key, "k");
  EXPECT_NE(result.explanation.find("undecided"), std::string::npos);
  EXPECT_EQ(s.Check(), Verdict::kViolation);
}

// ---- Against an order by trying all of them ----

bool Fits(const std::vector<Operation>& ops, const std::vector<size_t>& order) {
  Register state;
  for (size_t i = 0; i < order.size(); ++i) {
    const Operation& op = ops[order[i]];
    for (size_t j = i + 1; j < order.size(); ++j) {
      const Operation& later = ops[order[j]];
      if (later.outcome != Outcome::kUnknown && later.returned < op.invoked) return false;
    }
    bool met = op.kind != Kind::kConditionalWrite || state == op.expected;
    if (op.kind == Kind::kRead && op.value != state) return false;
    if (op.outcome == Outcome::kConditionFailed) {
      if (met) return false;
      continue;
    }
    if (op.kind == Kind::kConditionalWrite && !met) {
      if (op.outcome == Outcome::kDone) return false;
      continue;
    }
    if (op.kind != Kind::kRead) state = op.value;
  }
  return true;
}

bool LinearizableByForce(const History& history) {
  std::vector<Operation> sure;
  std::vector<Operation> maybe;
  for (const Operation& op : history.operations()) {
    if (op.outcome == Outcome::kNotDone) continue;
    if (op.outcome != Outcome::kUnknown) {
      sure.push_back(op);
    } else if (op.kind != Kind::kRead) {
      maybe.push_back(op);
    }
  }
  for (size_t chosen = 0; chosen < (size_t{1} << maybe.size()); ++chosen) {
    std::vector<Operation> ops = sure;
    for (size_t i = 0; i < maybe.size(); ++i) {
      if (chosen >> i & 1) ops.push_back(maybe[i]);
    }
    std::vector<size_t> order(ops.size());
    std::iota(order.begin(), order.end(), 0);
    do {
      if (Fits(ops, order)) return true;
    } while (std::next_permutation(order.begin(), order.end()));
  }
  return false;
}

// Anything at all: half of these are not linearizable.
History TinyHistory(Random& random) {
  Script s;
  auto value = [&]() -> Register {
    uint64_t v = random.Below(3);
    return v == 0 ? Register() : Register(Cat(v));
  };
  struct Open {
    History::OpId op;
    Kind kind;
  };
  std::vector<Open> open;
  size_t left = 2 + random.Below(5);
  while (left > 0 || !open.empty()) {
    if (left > 0 && (open.empty() || random.Chance(0.5))) {
      --left;
      ClientId client{left + 1};
      switch (random.Below(4)) {
        case 0:
          open.push_back({s.BeginWrite(client, Cat(1 + random.Below(2))), Kind::kWrite});
          break;
        case 1:
          open.push_back({s.BeginIf(client, value(), value()), Kind::kConditionalWrite});
          break;
        case 2:
          open.push_back({s.BeginDelete(client), Kind::kWrite});
          break;
        default:
          open.push_back({s.BeginRead(client), Kind::kRead});
      }
      continue;
    }
    size_t pick = random.Below(open.size());
    Open o = open[pick];
    open.erase(open.begin() + static_cast<std::ptrdiff_t>(pick));
    uint64_t fate = random.Below(10);
    if (fate == 0) {
      s.NotDone(o.op);
    } else if (fate < 3) {
      s.Unknown(o.op);
    } else if (o.kind == Kind::kRead) {
      s.Saw(o.op, value());
    } else if (o.kind == Kind::kConditionalWrite && fate < 6) {
      s.Failed(o.op);
    } else {
      s.Done(o.op);
    }
  }
  return s.history;
}

std::string Show(const History& history) {
  std::string out;
  for (const Operation& op : history.operations()) out += op.ToString() + "\n";
  return out;
}

TEST(LinearizabilityRandom, AgreesWithTryingAllOrders) {
  Random random(20240611);
  int legal = 0;
  constexpr int kCases = 20000;
  for (int i = 0; i < kCases; ++i) {
    History history = TinyHistory(random);
    bool expected = LinearizableByForce(history);
    legal += expected;
    CheckResult result = CheckLinearizable(history);
    ASSERT_EQ(result.ok(), expected) << "case " << i << "\n" << Show(history);
    ASSERT_NE(result.verdict, Verdict::kUndecided);
  }
  // Both kinds were met often.
  EXPECT_GT(legal, kCases / 20);
  EXPECT_LT(legal, kCases * 19 / 20);
}

// The conflict that is shown must itself be a reason.
TEST(LinearizabilityRandom, ConflictsAreOperationsOfTheHistory) {
  Random random(77);
  int violations = 0;
  for (int i = 0; i < 2000; ++i) {
    History history = TinyHistory(random);
    CheckResult result = CheckLinearizable(history);
    if (result.ok()) continue;
    ++violations;
    ASSERT_FALSE(result.conflict.empty());
    for (const Operation& op : result.conflict) {
      ASSERT_LT(op.invoked, 2 * history.size());
      ASSERT_NE(Show(history).find(op.ToString()), std::string::npos);
    }
  }
  EXPECT_GT(violations, 100);
}

// ---- Against a register that is linearizable ----

struct WorkloadOptions {
  size_t operations = 300;
  size_t clients = 8;
  size_t keys = 3;
  double unknown = 0.05;
  // Values differ, as they should in a good workload; otherwise they are of a few.
  bool unique_values = true;
};

// Clients on real registers. Each operation takes effect at a random moment between invocation and
// return; one of unknown outcome later, or never.
class Workload {
 public:
  Workload(WorkloadOptions options, uint64_t seed)
      : options_(options), random_(seed), clients_(options.clients), registers_(options.keys) {}

  History Run() {
    size_t begun = 0;
    bool busy = true;
    while (begun < options_.operations || busy) {
      ++now_;
      ApplyLate();
      Client& client = clients_[random_.Below(clients_.size())];
      if (client.phase == Client::kIdle && begun < options_.operations) {
        Begin(client);
        ++begun;
      } else if (client.phase == Client::kBegun) {
        TakeEffect(client);
      } else if (client.phase == Client::kApplied) {
        Finish(client);
      }
      busy = std::any_of(clients_.begin(), clients_.end(),
                         [](const Client& c) { return c.phase != Client::kIdle; });
    }
    return std::move(history_);
  }

 private:
  struct Client {
    enum Phase { kIdle, kBegun, kApplied } phase = kIdle;
    History::OpId op = 0;
    Kind kind = Kind::kRead;
    size_t key = 0;
    Register value;
    Register expected;
    bool met = true;
  };
  struct Late {
    size_t key;
    Kind kind;
    Register expected;
    Register value;
  };

  Instant Now() const { return Instant::FromNanos(1000 * now_); }

  void Begin(Client& c) {
    c.phase = Client::kBegun;
    c.key = random_.Below(registers_.size());
    ClientId id{static_cast<uint64_t>(&c - clients_.data()) + 1};
    std::string key = Cat("key", c.key);
    std::string fresh = options_.unique_values ? Cat("v", ++values_) : Cat("v", random_.Below(4));
    c.value = random_.Chance(0.1) ? Register() : Register(fresh);
    c.met = true;
    switch (random_.Below(4)) {
      case 0:
        c.kind = Kind::kWrite;
        c.op = c.value ? history_.InvokeWrite(id, key, *c.value, Now())
                       : history_.InvokeDelete(id, key, Now());
        return;
      case 1:
        c.kind = Kind::kConditionalWrite;
        c.expected = registers_[c.key];
        c.op = history_.InvokeConditionalWrite(id, key, c.expected, c.value, Now());
        return;
      default:
        c.kind = Kind::kRead;
        c.op = history_.InvokeRead(id, key, Now());
    }
  }

  void Apply(size_t key, Kind kind, const Register& expected, const Register& value) {
    if (kind == Kind::kConditionalWrite && registers_[key] != expected) return;
    registers_[key] = value;
  }

  void TakeEffect(Client& c) {
    c.phase = Client::kApplied;
    if (c.kind == Kind::kRead) {
      c.value = registers_[c.key];
      return;
    }
    if (random_.Chance(options_.unknown)) {
      if (random_.Chance(0.7)) late_.push_back({c.key, c.kind, c.expected, c.value});
      history_.ReturnUnknown(c.op, Now());
      c.phase = Client::kIdle;
      return;
    }
    c.met = c.kind != Kind::kConditionalWrite || registers_[c.key] == c.expected;
    Apply(c.key, c.kind, c.expected, c.value);
  }

  void Finish(Client& c) {
    c.phase = Client::kIdle;
    if (c.kind == Kind::kRead) {
      history_.ReturnRead(c.op, c.value, Now());
    } else if (c.met) {
      history_.ReturnDone(c.op, Now());
    } else {
      history_.ReturnConditionFailed(c.op, Now());
    }
  }

  void ApplyLate() {
    if (late_.empty() || !random_.Chance(0.05)) return;
    Late late = late_.back();
    late_.pop_back();
    Apply(late.key, late.kind, late.expected, late.value);
  }

  WorkloadOptions options_;
  Random random_;
  std::vector<Client> clients_;
  std::vector<Register> registers_;
  std::vector<Late> late_;
  History history_;
  int64_t now_ = 0;
  uint64_t values_ = 0;
};

TEST(LinearizabilityRandom, RealRegistersPass) {
  for (uint64_t seed = 1; seed <= 60; ++seed) {
    WorkloadOptions options{.clients = 2 + seed % 19,
                            .unknown = seed % 3 == 0 ? 0.2 : 0.05,
                            .unique_values = seed % 2 == 0};
    CheckResult result = CheckLinearizable(Workload(options, seed).Run());
    EXPECT_TRUE(result.ok()) << "seed " << seed << ": " << result.explanation;
  }
}

History::OpId InvokeAgain(History& history, const Operation& op) {
  if (op.kind == Kind::kRead) return history.InvokeRead(op.client, op.key, op.invoked_at);
  if (op.kind == Kind::kConditionalWrite) {
    return history.InvokeConditionalWrite(op.client, op.key, op.expected, op.value, op.invoked_at);
  }
  if (op.value) return history.InvokeWrite(op.client, op.key, *op.value, op.invoked_at);
  return history.InvokeDelete(op.client, op.key, op.invoked_at);
}

void ReturnAgain(History& history, History::OpId id, const Operation& op, const Register& seen) {
  if (op.outcome == Outcome::kUnknown) return history.ReturnUnknown(id, op.returned_at);
  if (op.kind == Kind::kRead) return history.ReturnRead(id, seen, op.returned_at);
  if (op.outcome == Outcome::kConditionFailed) {
    return history.ReturnConditionFailed(id, op.returned_at);
  }
  history.ReturnDone(id, op.returned_at);
}

// The same history, but for what one read saw.
History WithReadChanged(const std::vector<Operation>& ops, size_t victim, const Register& seen) {
  std::vector<std::pair<uint64_t, size_t>> events;  // Position; operation, twice.
  for (size_t i = 0; i < ops.size(); ++i) {
    events.emplace_back(ops[i].invoked, i);
    if (ops[i].returned != UINT64_MAX) events.emplace_back(ops[i].returned, i);
  }
  std::sort(events.begin(), events.end());
  History changed;
  std::vector<History::OpId> ids(ops.size());
  for (const auto& [position, i] : events) {
    if (position == ops[i].invoked) {
      ids[i] = InvokeAgain(changed, ops[i]);
    } else {
      ReturnAgain(changed, ids[i], ops[i], i == victim ? seen : ops[i].value);
    }
  }
  return changed;
}

bool IsReadOf(const Operation& op, const std::string& key) {
  return op.key == key && op.kind == Kind::kRead && op.outcome == Outcome::kDone && op.value;
}

// With one read changed to a value that another read saw earlier, a third having seen another value
// in between. Since values differ, that is provably stale.
std::optional<History> WithOneStaleRead(const History& history, Random& random) {
  const std::vector<Operation>& ops = history.operations();
  for (int attempt = 0; attempt < 200; ++attempt) {
    size_t victim = random.Below(ops.size());
    const Operation& read = ops[victim];
    if (!IsReadOf(read, read.key)) continue;
    for (const Operation& old : ops) {
      if (!IsReadOf(old, read.key)) continue;
      bool superseded = std::any_of(ops.begin(), ops.end(), [&](const Operation& between) {
        return IsReadOf(between, read.key) && between.value != old.value &&
               old.returned < between.invoked && between.returned < read.invoked;
      });
      if (superseded) return WithReadChanged(ops, victim, old.value);
    }
  }
  return std::nullopt;
}

TEST(LinearizabilityRandom, ProvablyStaleReadsFail) {
  Random random(5);
  int changed_count = 0;
  for (uint64_t seed = 1; seed <= 40; ++seed) {
    History good = Workload({.clients = 2 + seed % 19}, seed).Run();
    std::optional<History> changed = WithOneStaleRead(good, random);
    if (!changed) continue;
    ++changed_count;
    CheckResult result = CheckLinearizable(*changed);
    EXPECT_EQ(result.verdict, Verdict::kViolation) << "seed " << seed;
    EXPECT_LE(result.conflict.size(), 25u) << result.explanation;
  }
  EXPECT_GT(changed_count, 30);
}

TEST(LinearizabilityRandom, ManyOperationsAreCheckedWithFewSteps) {
  History history = Workload({.operations = 10'000, .clients = 20, .keys = 50}, 9).Run();
  CheckResult result = CheckLinearizable(history);
  EXPECT_TRUE(result.ok()) << result.explanation;
  // Ten configurations an operation: time without a clock.
  EXPECT_LT(result.steps, 100'000u);
}

TEST(LinearizabilityRandom, OneHotKeyWithManyUnknownOutcomes) {
  History history =
      Workload({.operations = 3'000, .clients = 20, .keys = 1, .unknown = 0.1}, 11).Run();
  CheckResult result = CheckLinearizable(history);
  EXPECT_TRUE(result.ok()) << result.explanation;
  EXPECT_LT(result.steps, 100'000u);
}

}  // namespace
}  // namespace dynlib::sim
