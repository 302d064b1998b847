#include "tests/scrub/model.h"

#include <algorithm>
#include <cstdio>

#include "absl/status/status.h"
#include "gtest/gtest.h"

namespace dynlib::scrub {
namespace {

std::string Value(Random& random) {
  std::string value(random.Below(60), '\0');
  for (char& c : value) c = static_cast<char>(random.Below(256));
  return value;
}

// The dumb form of the rule: a group of equal readable copies wins if it has two and no other has
// as many; the reference wins always.
void JudgeSlowly(ReplicaId reference, Finding* finding) {
  std::map<std::pair<CopyState, std::pair<uint64_t, uint64_t>>, std::vector<ReplicaId>> groups;
  std::vector<ReplicaId> unreadable;
  const std::vector<ReplicaId>* by_reference = nullptr;
  for (const Copy& copy : finding->copies) {
    if (copy.state == CopyState::kUnreadable) {
      unreadable.push_back(copy.replica);
    } else {
      auto& group = groups[{copy.state, {copy.digest.low, copy.digest.high}}];
      group.push_back(copy.replica);
      if (copy.replica == reference) by_reference = &group;
    }
  }
  std::vector<std::vector<ReplicaId>> by_size;
  for (const auto& [what, group] : groups) by_size.push_back(group);
  std::sort(by_size.begin(), by_size.end(),
            [](const auto& a, const auto& b) { return a.size() > b.size(); });
  finding->verdict = Verdict::kUndecided;
  finding->bad = unreadable;
  if (by_reference != nullptr) {
    finding->verdict = Verdict::kDecided;
    finding->good = *by_reference;
  } else if (by_size.size() == 1 && by_size[0].size() == 1) {
    finding->verdict = Verdict::kSoleCopy;
    finding->good = by_size[0];
  } else if (!by_size.empty() && by_size[0].size() >= 2 &&
             (by_size.size() == 1 || by_size[1].size() < by_size[0].size())) {
    finding->verdict = Verdict::kDecided;
    finding->good = by_size[0];
  }
  if (finding->verdict != Verdict::kUndecided) {
    finding->bad.clear();
    for (const Copy& copy : finding->copies) {
      if (std::count(finding->good.begin(), finding->good.end(), copy.replica) == 0)
        finding->bad.push_back(copy.replica);
    }
  }
}

bool Overlap(const std::string& a, const std::string& a_end, const std::string& b,
             const std::string& b_end) {
  return IsBefore(a, b_end) && IsBefore(b, a_end);
}

void VerifyRange(const std::vector<ModelReplica>& replicas, const Finding& finding) {
  bool somebody = false;
  for (size_t i = 0; i < finding.copies.size(); ++i) {
    if (finding.copies[i].state != CopyState::kUnreadable) continue;
    somebody = true;
    const auto& ranges = replicas[i].unreadable;
    EXPECT_TRUE(std::any_of(ranges.begin(), ranges.end(),
                            [&](const auto& range) {
                              return Overlap(range.first, range.second, finding.key, finding.end);
                            }))
        << "false alarm at " << finding.key;
  }
  EXPECT_TRUE(somebody);
}

// A key that only those have who said that they cannot read around it.
bool IsHidden(const Finding& expected, const std::vector<Finding>& findings) {
  return std::any_of(findings.begin(), findings.end(), [&](const Finding& finding) {
    if (!finding.is_range || expected.key < finding.key || !IsBefore(expected.key, finding.end))
      return false;
    for (size_t i = 0; i < finding.copies.size(); ++i) {
      if (expected.copies[i].state == CopyState::kPresent &&
          finding.copies[i].state != CopyState::kUnreadable) {
        return false;
      }
    }
    return true;
  });
}

}  // namespace

std::string Key(uint64_t number) {
  char key[16];
  std::snprintf(key, sizeof(key), "k%06u", static_cast<unsigned>(number));
  return key;
}

bool ModelReplica::Unreadable(const std::string& key) const {
  return std::any_of(unreadable.begin(), unreadable.end(), [&](const auto& range) {
    return range.first <= key && IsBefore(key, range.second);
  });
}

ScanEnd ModelReplica::Scan(std::string_view first, std::string_view end, Visitor visit) const {
  auto item = items.lower_bound(std::string(first));
  std::string position(first);
  for (;;) {
    const bool more = item != items.end() && IsBefore(item->first, end);
    const std::string next = more ? item->first : std::string(end);
    for (const auto& range : unreadable) {
      if (range.second <= position) continue;
      // It is met before the next item, or before the end of the scan.
      const bool met = more ? range.first <= next : IsBefore(range.first, end);
      if (!met) break;
      if (!knows_range) return {absl::DataLossError("bad page"), std::nullopt};
      return {absl::DataLossError("bad page"), KeyRange{range.first, range.second}};
    }
    if (!more || !visit(item->first, item->second)) return {absl::OkStatus(), std::nullopt};
    position = After(item->first);
    ++item;
  }
}

std::vector<ModelReplica> MakeReplicas(Random& random, uint64_t items) {
  std::vector<ModelReplica> replicas(3);
  for (uint64_t i = 0; i < items; ++i)
    replicas[0].items[Key(random.Below(100'000))] = Value(random);
  replicas[2] = replicas[1] = replicas[0];
  for (uint64_t i = 0; i < 3; ++i) replicas[i].id = ReplicaId{i + 1};
  return replicas;
}

std::string Damage(Random& random, ModelReplica* replica) {
  const uint64_t kind = random.Below(3);
  if (kind == 0 || replica->items.empty()) {
    const std::string key = Key(random.Below(100'000));
    replica->items[key] = Value(random) + "extra";
    return key;
  }
  auto item = replica->items.lower_bound(Key(random.Below(100'000)));
  if (item == replica->items.end()) item = replica->items.begin();
  const std::string key = item->first;
  if (kind == 1) {
    replica->items.erase(item);
  } else {
    item->second += "x";
  }
  return key;
}

std::pair<std::string, std::string> MakeUnreadable(Random& random, ModelReplica* replica) {
  const uint64_t first = random.Below(99'000);
  std::pair range(Key(first), Key(first + 1 + random.Below(1'000)));
  replica->unreadable = {range};
  return range;
}

std::map<std::string, Finding> Expected(const std::vector<ModelReplica>& replicas,
                                        ReplicaId reference) {
  std::set<std::string> keys;
  for (const ModelReplica& replica : replicas) {
    for (const auto& [key, value] : replica.items) {
      if (!replica.Unreadable(key)) keys.insert(key);
    }
  }
  std::map<std::string, Finding> expected;
  for (const std::string& key : keys) {
    Finding finding{.key = key};
    for (const ModelReplica& replica : replicas) {
      Copy copy{replica.id, CopyState::kAbsent};
      const auto item = replica.items.find(key);
      if (replica.Unreadable(key)) {
        copy.state = CopyState::kUnreadable;
      } else if (item != replica.items.end()) {
        copy.state = CopyState::kPresent;
        copy.digest = DigestItem(key, item->second);
      }
      finding.copies.push_back(copy);
    }
    const Copy& one = finding.copies.front();
    const bool equal = std::all_of(
        finding.copies.begin(), finding.copies.end(),
        [&](const Copy& copy) { return copy.state == one.state && copy.digest == one.digest; });
    if (equal) continue;
    JudgeSlowly(reference, &finding);
    expected[key] = finding;
  }
  return expected;
}

ScrubSubject Scrubber::Subject(ReplicaId reference) const {
  ScrubSubject subject{.reference = reference, .marker = 7};
  for (const ModelReplica& replica : replicas_) subject.members.push_back(replica.id);
  return subject;
}

const ModelReplica& Scrubber::Find(ReplicaId id) const {
  return *std::find_if(replicas_.begin(), replicas_.end(),
                       [&](const ModelReplica& replica) { return replica.id == id; });
}

void Scrubber::Send(const Request& request) {
  ++requests;
  EXPECT_EQ(request.marker, 7u);
  const ModelReplica& replica = Find(request.replica);
  if (now >= replica.silent_from || random_.Chance(network_.loss)) return;
  absl::StatusOr<Answer> answer = RangeDigester({}).Digest(
      request, [&](std::string_view first, std::string_view end, Visitor visit) {
        return replica.Scan(first, end, visit);
      });
  EXPECT_TRUE(answer.ok()) << answer.status().ToString();
  bytes_read[request.replica] += answer->bytes_read;
  if (random_.Chance(network_.loss)) return;
  if (corrupt && random_.Chance(0.5)) corrupt(&*answer);
  const Instant when = now + Duration(random_.Between(1, network_.delay_max.count()));
  deliveries_.emplace(when, Delivery{request.id, answer});
  if (random_.Chance(network_.loss)) deliveries_.emplace(when, Delivery{request.id, answer});
}

void Scrubber::Run(ScrubSession& session, const ScrubOptions& options, uint64_t stop_after) {
  deliveries_.clear();
  std::string cursor = session.cursor().next;
  for (uint64_t answers = 0; answers < stop_after;) {
    ScrubSession::Effects effects = session.TakeEffects();
    for (Finding& finding : effects.findings) {
      EXPECT_TRUE(session.finished() || IsBefore(finding.key, session.cursor().next));
      EXPECT_GE(finding.key, cursor) << "a finding from before the cursor";
      findings.push_back(std::move(finding));
    }
    EXPECT_TRUE(session.cursor().done || session.cursor().next >= cursor) << "it went back";
    cursor = session.cursor().next;
    if (session.finished()) return;
    for (const Request& request : effects.requests) Send(request);
    const Instant timer = session.next_timer();
    if (deliveries_.empty() && timer == Instant::Infinite()) {
      ADD_FAILURE() << "it waits for nothing";
      return;
    }
    if (!deliveries_.empty() && deliveries_.begin()->first <= timer) {
      auto next = deliveries_.extract(deliveries_.begin());
      now = std::max(now, next.key());
      session.OnAnswer(next.mapped().request, std::move(next.mapped().answer), now);
      ++answers;
    } else {
      now = std::max(now, timer);
      session.OnTimer(now);
    }
  }
  for (Finding& finding : session.TakeEffects().findings) findings.push_back(std::move(finding));
}

void Verify(const std::vector<ModelReplica>& replicas, const std::vector<Finding>& findings,
            ReplicaId reference) {
  std::map<std::string, Finding> expected = Expected(replicas, reference);
  std::string before;
  for (const Finding& finding : findings) {
    EXPECT_LE(before, finding.key) << "not in order";
    before = finding.key;
    if (finding.is_range) {
      VerifyRange(replicas, finding);
      continue;
    }
    const auto found = expected.find(finding.key);
    if (found == expected.end()) {
      ADD_FAILURE() << "false alarm, or twice: " << finding.key;
      continue;
    }
    const Finding& truth = found->second;
    EXPECT_EQ(finding.verdict, truth.verdict) << finding.key;
    EXPECT_EQ(finding.good, truth.good) << finding.key;
    EXPECT_EQ(finding.bad, truth.bad) << finding.key;
    for (size_t i = 0; i < truth.copies.size(); ++i) {
      EXPECT_EQ(finding.copies[i].replica, truth.copies[i].replica);
      EXPECT_EQ(finding.copies[i].state, truth.copies[i].state) << finding.key << " copy " << i;
      EXPECT_EQ(finding.copies[i].digest, truth.copies[i].digest) << finding.key << " copy " << i;
    }
    expected.erase(found);
  }
  for (const auto& [key, finding] : expected)
    EXPECT_TRUE(IsHidden(finding, findings)) << "missed: " << key;
  for (const ModelReplica& replica : replicas) {
    for (const auto& range : replica.unreadable) {
      EXPECT_TRUE(std::any_of(findings.begin(), findings.end(),
                              [&](const Finding& finding) {
                                return Overlap(range.first, range.second, finding.key,
                                               finding.is_range ? finding.end : After(finding.key));
                              }))
          << "missed: unreadable from " << range.first;
    }
  }
}

}  // namespace dynlib::scrub
