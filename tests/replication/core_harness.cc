#include "tests/replication/core_harness.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <utility>

#include "dynlib/base/check.h"
#include "dynlib/base/strings.h"

namespace dynlib::replication {
namespace {

bool AnyFault(const FaultsForTest& faults) {
  const FaultsForTest none;
  return std::memcmp(&faults, &none, sizeof(none)) != 0;
}

ReplicaId ReplicaOf(int node) { return ReplicaId{static_cast<uint64_t>(node) + 1}; }
NodeId NodeIdOf(int node) { return NodeId{static_cast<uint64_t>(node) + 101}; }
int IndexOf(NodeId node) { return static_cast<int>(ToUint(node)) - 101; }

}  // namespace

HarnessOptions RandomMix(uint64_t seed) {
  Random random(seed * 2654435761 + 1);
  HarnessOptions options{.seed = seed};
  const int kinds[] = {3, 3, 3, 3, 3, 3, 5, 5, 2, 1};
  options.nodes = kinds[random.Below(10)];
  options.groups = random.Chance(0.3) ? 2 : 1;
  const int64_t drifts[] = {0, 10'000, 100'000};
  options.liveness.drift_ppm = drifts[random.Below(3)];
  options.liveness.interval = std::chrono::milliseconds(150);
  if (random.Chance(0.5)) {  // Small bounds, so that each is met.
    options.group.peer_window_entries_max = 1 + random.Below(6);
    options.group.peer_window_bytes_max = 1 + random.Below(600);
    options.group.message_bytes_max = 1 + random.Below(200);
  }
  if (random.Chance(0.3)) options.group.retained_bytes_max = random.Below(2000);
  if (random.Chance(0.3)) options.group.progress_bound = std::chrono::milliseconds(20);
  const int delays_ms[] = {1, 5, 20, 80};
  options.delay_max = std::chrono::milliseconds(delays_ms[random.Below(4)]);
  options.loss = random.Chance(0.3) ? 0 : random.Unit() * 0.2;
  options.proposal_mean = std::chrono::milliseconds(random.Between(10, 200));
  options.crash_mean = std::chrono::milliseconds(random.Between(400, 3000));
  options.cut_mean = std::chrono::milliseconds(random.Between(300, 3000));
  if (random.Chance(0.2)) options.may_lead_mean = std::chrono::milliseconds(1000);
  if (random.Chance(0.2)) options.hang_mean = std::chrono::milliseconds(1500);
  if (random.Chance(0.2)) {  // Old messages meet new boots.
    options.slow = 0.1;
    options.slow_max = std::chrono::seconds(5);
  }
  if (random.Chance(0.2)) {
    options.slow_sync = 0.2;
    options.slow_sync_max = std::chrono::milliseconds(1500);
  }
  if (random.Chance(0.05)) options.fault_phase = std::chrono::seconds(30);
  if (options.nodes == 1) options.damage = 0;
  if (options.nodes >= 3 && random.Chance(0.2)) {
    // What is unknown may need every member to be decided (R4).
    options.leave_one_down = true;
    options.torn = 0;
    options.damage = 0;
  }
  return options;
}

HarnessOptions RestMix(uint64_t seed) {
  HarnessOptions options = seed % 3 == 0 ? MembersMix(seed) : RandomMix(seed);
  Random random(seed * 2654435761 + 3);
  options.rest = true;
  options.checkpoint_mean = std::chrono::milliseconds(10);
  options.proposal_mean = std::chrono::milliseconds(100 + random.Below(400));
  return options;
}

HarnessOptions MembersMix(uint64_t seed) {
  HarnessOptions options = RandomMix(seed);
  Random random(seed * 40503 + 7);
  if (options.nodes < 2) options.nodes = 3;
  options.spares = 2;
  options.members_min = options.leave_one_down ? 3 : 2;
  options.change_mean = std::chrono::milliseconds(random.Between(100, 900));
  if (random.Chance(0.1)) options.end = 1;
  if (random.Chance(0.3)) options.fault_phase = std::chrono::seconds(15);
  return options;
}

CoreHarness::CoreHarness(const HarnessOptions& options) : options_(options), random_(options.seed) {
  options_.group.faults = options_.faults;
  options_.liveness.faults = options_.faults;
  const int members = options_.nodes;
  options_.nodes += options_.spares;
  cut_.assign(options_.nodes, std::vector<bool>(options_.nodes, false));
  Configuration first;
  for (int i = 0; i < members; ++i) first.members.push_back({ReplicaOf(i), NodeIdOf(i)});
  truth_.resize(options_.groups);
  for (GroupTruth& truth : truth_) {
    truth.configurations[0] = first;
    truth.replicas = members;
  }
  const double bound = options_.drift * options_.liveness.drift_ppm / 1e6;
  for (int i = 0; i < options_.nodes; ++i) {
    auto node = std::make_unique<Node>();
    node->index = i;
    // The ends of the range matter most.
    const double unit =
        random_.Chance(0.5) ? (random_.Chance(0.5) ? 1 : -1) : 2 * random_.Unit() - 1;
    node->rate = 1 + bound * unit;
    node->stored.resize(options_.groups);
    for (StoredGroup& stored : node->stored) {
      if (i < members) stored.replica = ReplicaOf(i);
      stored.configuration = first;
    }
    nodes_.push_back(std::move(node));
  }
  for (auto& node : nodes_) Boot(*node);
}

CoreHarness::~CoreHarness() = default;

// ---- Time and events ----

Instant CoreHarness::LocalTime(const Node& node, int64_t true_nanos) const {
  const double elapsed = static_cast<double>(true_nanos - node.booted_at) * node.rate;
  return Instant::FromNanos(node.clock_base + static_cast<int64_t>(elapsed));
}

int64_t CoreHarness::TrueTime(const Node& node, Instant local) const {
  if (local == Instant::Infinite()) return INT64_MAX;
  const double elapsed = static_cast<double>(local.nanos() - node.clock_base) / node.rate;
  return node.booted_at + static_cast<int64_t>(elapsed) + 1;
}

Instant CoreHarness::Now(int node) const { return LocalTime(*nodes_[node], now_); }

void CoreHarness::At(int64_t when, std::function<void()> action) {
  queue_.emplace(std::pair(std::max(when, now_), ++sequence_), std::move(action));
}

void CoreHarness::After(Duration mean, std::function<void()> action) {
  At(now_ + random_.Between(0, 2 * mean.count()), std::move(action));
}

bool CoreHarness::StepOnce(int64_t until) {
  if (!violation_.empty() || queue_.empty() || queue_.begin()->first.first > until) {
    now_ = std::max(now_, until);
    return false;
  }
  auto next = queue_.extract(queue_.begin());
  now_ = next.key().first;
  ++steps_;
  next.mapped()();
  return true;
}

void CoreHarness::RunFor(Duration duration) {
  const int64_t until = now_ + duration.count();
  while (StepOnce(until)) {
  }
}

bool CoreHarness::RunUntil(const std::function<bool()>& done, Duration at_most) {
  const int64_t until = now_ + at_most.count();
  while (!done()) {
    if (!StepOnce(until)) return done();
  }
  return true;
}

// ---- Nodes and their disks ----

void CoreHarness::Boot(Node& node) {
  ++node.boots;
  node.up = true;
  node.booted_at = now_;
  node.clock_base = random_.Between(1, 1'000'000'000'000);
  node.wake_at = INT64_MAX;
  node.syncing = false;
  node.disk_hung = false;
  const Instant now = LocalTime(node, now_);
  const Duration boot_wait = node.ever_granted ? options_.liveness.support : Duration(0);
  node.liveness = std::make_unique<Liveness>(options_.liveness, node.boots, boot_wait, now);
  for (int i = 0; i < options_.nodes; ++i) {
    if (i != node.index) node.liveness->AddPeer(NodeIdOf(i), now);
  }
  node.cores.clear();
  node.cores.resize(options_.groups);
  node.resting.assign(options_.groups, std::nullopt);
  node.checked.assign(options_.groups, 0);
  for (int group = 0; group < options_.groups; ++group) StartReplica(node, group);
  if (options_.trace) Trace(Cat("boot ", node.index + 1, " incarnation ", node.boots));
  Settle(node);
}

void CoreHarness::StartReplica(Node& node, int group) {
  const StoredGroup& stored = node.stored[group];
  if (stored.replica == ReplicaId{}) return;
  node.resting[group].reset();
  node.cores[group] =
      std::make_unique<GroupCore>(options_.group, PartitionId{static_cast<uint64_t>(group) + 1},
                                  Member{stored.replica, NodeIdOf(node.index), stored.kind},
                                  stored.learner, stored.configuration, RecoveredOf(stored),
                                  random_.Next(), node.liveness.get(), LocalTime(node, now_));
  node.checked[group] = stored.applied;
}

GroupCore::Recovered CoreHarness::RecoveredOf(const StoredGroup& stored) const {
  GroupCore::Recovered recovered{
      .promised = stored.promised, .chosen = stored.chosen, .applied = stored.applied};
  recovered.configuration = stored.adopted;
  recovered.ended = stored.ended;
  recovered.named_in = stored.named_in;
  for (const auto& [slot, cell] : stored.slots) {
    if (cell.payload != nullptr) recovered.entries.push_back({slot, cell.ballot, cell.payload});
    if (cell.unknown != Ballot()) recovered.unknown.push_back({slot, cell.unknown});
  }
  return recovered;
}

void CoreHarness::Store(StoredGroup& stored, const GroupCore::Record& record) {
  stored.chosen = std::max(stored.chosen, record.chosen);
  if (record.is_state) {
    stored.promised = record.ballot;
    stored.adopted = record.configuration;
    stored.named_in = record.named_in;
    return;
  }
  StoredSlot& cell = stored.slots[record.slot];
  if (record.ballot < cell.ballot) return;
  cell.ballot = record.ballot;
  cell.payload = record.payload;
  if (cell.unknown <= record.ballot) {
    cell.unknown = Ballot();
    stored.damaged.erase(record.slot);
  }
}

void CoreHarness::StoreTorn(StoredGroup& stored, const GroupCore::Record& record) {
  stored.promised = std::max(stored.promised, record.ballot);
  if (record.is_state) return;
  StoredSlot& cell = stored.slots[record.slot];
  if (record.ballot > cell.ballot) cell.unknown = std::max(cell.unknown, record.ballot);
}

void CoreHarness::Crash(int index) {
  Node& node = *nodes_[index];
  if (!node.up) return;
  node.up = false;
  node.cores.clear();
  node.liveness.reset();
  // What was on its way to the disk may have reached it, may be torn, may be gone.
  size_t whole = random_.Below(node.pending.size() + 1);
  for (size_t i = 0; i < node.pending.size() && i <= whole; ++i) {
    if (node.pending[i].dropped) continue;
    StoredGroup& stored = node.stored[node.pending[i].group];
    if (i == whole && !random_.Chance(options_.torn)) break;
    for (const GroupCore::Record& record : node.pending[i].records) {
      i < whole ? Store(stored, record) : StoreTorn(stored, record);
    }
  }
  node.pending.clear();
  if (options_.trace) Trace(Cat("crash ", index + 1));
}

void CoreHarness::Restart(int index) {
  Node& node = *nodes_[index];
  if (node.up) return;
  if (faulty_ && random_.Chance(options_.damage)) MaybeDamage(node);
  Boot(node);
}

void CoreHarness::MaybeDamage(Node& node) {
  const int group = static_cast<int>(random_.Below(options_.groups));
  for (const auto& other : nodes_) {
    if (other.get() == &node) continue;
    for (const StoredGroup& stored : other->stored) {
      auto outstanding = stored.damaged.upper_bound(stored.applied);
      if (outstanding != stored.damaged.end()) return;
    }
  }
  std::vector<Slot> readable;
  for (const auto& [slot, cell] : node.stored[group].slots) {
    if (cell.payload != nullptr) readable.push_back(slot);
  }
  if (readable.empty()) return;
  // Mostly near the end, where it is not yet clear what is chosen.
  const size_t back = random_.Chance(0.7) ? std::min<size_t>(readable.size(), 4) : readable.size();
  Damage(node.index, readable[readable.size() - 1 - random_.Below(back)], group);
}

void CoreHarness::Damage(int index, Slot slot, int group) {
  StoredGroup& stored = nodes_[index]->stored[group];
  StoredSlot& cell = stored.slots[slot];
  DYNLIB_CHECK(cell.payload != nullptr);
  cell.unknown = std::max(cell.unknown, cell.ballot);
  cell.ballot = Ballot();
  cell.payload = nullptr;
  stored.damaged.insert(slot);
  if (options_.trace) Trace(Cat("damage at ", index + 1, " g", group + 1, " slot ", slot));
}

void CoreHarness::StartSync(Node& node) {
  if (node.syncing || node.disk_hung || node.pending.empty()) return;
  node.syncing = true;
  const bool slow = faulty_ && random_.Chance(options_.slow_sync);
  const Duration most = slow ? options_.slow_sync_max : options_.sync_max;
  const size_t batches = node.pending.size();
  const uint64_t boot = node.boots;
  At(now_ + random_.Between(options_.sync_min.count(), most.count()), [this, &node, batches, boot] {
    if (!node.up || node.boots != boot) return;
    node.syncing = false;
    if (node.disk_hung) return;
    for (size_t i = 0; i < batches; ++i) {
      Batch batch = std::move(node.pending.front());
      node.pending.pop_front();
      if (batch.dropped) continue;
      for (const GroupCore::Record& record : batch.records) {
        Store(node.stored[batch.group], record);
      }
      node.cores[batch.group]->Persisted(batch.last_record, LocalTime(node, now_));
    }
    Settle(node);
  });
}

void CoreHarness::HangDisk(int index, bool hang, bool noticed) {
  Node& node = *nodes_[index];
  node.disk_hung = hang;
  if (!node.up) return;
  node.liveness->SetLogHealthy(!(hang && noticed));
  StartSync(node);
}

// ---- What a driver does ----

void CoreHarness::Settle(Node& node) {
  TakeLivenessEffects(node);
  for (int group = 0; group < options_.groups; ++group) {
    if (node.cores[group] != nullptr) TakeGroupEffects(node, group);
  }
  StartSync(node);
  ScheduleWake(node);
  for (int group = 0; group < options_.groups; ++group) {
    if (node.cores[group] == nullptr) continue;
    if (!AnyFault(options_.faults)) node.cores[group]->CheckInvariants();
    CheckChosen(node, group);
    if (!AnyFault(options_.faults)) CheckConfiguration(node, group);
    CheckAcknowledged(node, group);
    CheckLeases(group);
    CheckReads(node, group);
  }
  if (options_.rest) RestWhoMay(node);
}

GroupCore& CoreHarness::Awake(Node& node, int group) {
  if (const auto rested = std::exchange(node.resting[group], std::nullopt)) {
    const GroupCore& old = *node.cores[group];
    const StoredGroup& stored = node.stored[group];
    const Instant now = LocalTime(node, now_);
    const bool held_lease = old.HoldsLease(now);
    auto core = std::make_unique<GroupCore>(options_.group, old.group(),
                                            Member{old.self(), NodeIdOf(node.index), stored.kind},
                                            *rested, random_.Next(), node.liveness.get(), now);
    const bool keeps_epochs = rested->configuration.members.size() <= RestingMember::kEpochs + 1;
    if (core->role() != old.role() || core->promised() != old.promised() ||
        core->chosen() != old.chosen() || core->ended() != old.ended() ||
        core->configuration() != old.configuration() || core->Nodes() != old.Nodes() ||
        (keeps_epochs && core->HoldsLease(now) != held_lease)) {
      Fail(Cat("node ", node.index + 1, " woke group ", group + 1, " as another"));
    }
    node.cores[group] = std::move(core);
  }
  return *node.cores[group];
}

void CoreHarness::RestWhoMay(Node& node) {
  for (int group = 0; group < options_.groups; ++group) {
    if (node.cores[group] == nullptr || node.resting[group].has_value()) continue;
    node.resting[group] = node.cores[group]->Rest(LocalTime(node, now_));
    rests_ += node.resting[group].has_value();
  }
}

void CoreHarness::WakeFollowersOf(Node& node, const Liveness::Event& event, int group) {
  const RestingMember& rested = *node.resting[group];
  const Member* leader = rested.configuration.Find(rested.promised.proposer());
  if (!rested.follows || leader->node != event.peer) return;
  if (event.kind != Liveness::Event::Kind::kPeerLost &&
      event.kind != Liveness::Event::Kind::kPeerRestarted) {
    return;
  }
  const uint64_t boot = node.boots;
  At(now_ + random_.Between(0, options_.wake_max.count()), [this, &node, group, boot] {
    if (!node.up || node.boots != boot || node.cores[group] == nullptr) return;
    Awake(node, group);
    Settle(node);
  });
}

void CoreHarness::TakeLivenessEffects(Node& node) {
  const Instant now = LocalTime(node, now_);
  Liveness::Effects effects = node.liveness->TakeEffects();
  for (const Liveness::Event& event : effects.events) {
    for (int group = 0; group < options_.groups; ++group) {
      if (node.cores[group] == nullptr) continue;
      if (node.resting[group].has_value()) {
        WakeFollowersOf(node, event, group);
      } else {
        node.cores[group]->OnPeerEvent(event, now);
      }
    }
  }
  for (auto& [to, message] : effects.messages) {
    if (const auto* grant = std::get_if<SupportGrant>(&message.body)) {
      if (grant->epoch != 0) node.ever_granted = true;
    }
    SendLiveness(node.index, IndexOf(to), message);
  }
}

void CoreHarness::TakeGroupEffects(Node& node, int group) {
  GroupCore& core = *node.cores[group];
  GroupCore::Effects effects = core.TakeEffects(LocalTime(node, now_));
  for (const GroupCore::Event& event : effects.events) {
    ++events_[event.kind];
    if (options_.trace) {
      Trace(Cat("node ", node.index + 1, " ", Describe(event)));
    }
  }
  if (!effects.records.empty()) {
    node.pending.push_back({group, std::move(effects.records), effects.last_record});
  }
  for (GroupMessage& message : effects.messages) SendGroup(node.index, std::move(message));
  StoredGroup& stored = node.stored[group];
  stored.slots.erase(stored.slots.begin(), stored.slots.upper_bound(core.released()));
  stored.damaged.erase(stored.damaged.begin(), stored.damaged.upper_bound(core.released()));
}

void CoreHarness::ScheduleWake(Node& node) {
  Instant deadline = node.liveness->next_deadline();
  for (const auto& core : node.cores) {
    if (core != nullptr) deadline = std::min(deadline, core->next_deadline());
  }
  const int64_t when = std::max(TrueTime(node, deadline), now_ + 1000);
  if (when == node.wake_at) return;
  node.wake_at = when;
  const uint64_t boot = node.boots;
  At(when, [this, &node, when, boot] {
    if (!node.up || node.boots != boot || node.wake_at != when) return;
    node.wake_at = INT64_MAX;
    Wake(node);
  });
}

void CoreHarness::Wake(Node& node) {
  const Instant now = LocalTime(node, now_);
  node.liveness->Tick(now);
  TakeLivenessEffects(node);
  for (auto& core : node.cores) {
    if (core != nullptr && core->next_deadline() <= now) core->Tick(now);
  }
  Settle(node);
}

void CoreHarness::SendGroup(int from, GroupMessage message) {
  ++group_messages_;
  if (options_.trace) Trace(Describe(message), /*is_message=*/true);
  const int to = IndexOf(message.to_node);
  const int group = static_cast<int>(ToUint(message.group)) - 1;
  Post(from, to, [this, to, group, message = std::move(message)] {
    Node& node = *nodes_[to];
    if (node.cores[group] == nullptr || node.cores[group]->self() != message.to) {
      AnswerForAbsent(message);
      return;
    }
    Awake(node, group).Step(message, LocalTime(node, now_));
    Settle(node);
  });
}

// As the driver does.
void CoreHarness::AnswerForAbsent(const GroupMessage& message) {
  if (!std::holds_alternative<HealthQuery>(message.body)) return;
  GroupMessage reply = message;
  std::swap(reply.from, reply.to);
  std::swap(reply.from_node, reply.to_node);
  reply.body = HealthReply{.healthy = false, .abandoned = message.ballot.proposer() == message.to};
  SendGroup(IndexOf(message.to_node), std::move(reply));
}

void CoreHarness::SendLiveness(int from, int to, LivenessMessage message) {
  Post(from, to, [this, from, to, message = std::move(message)] {
    Node& node = *nodes_[to];
    node.liveness->Step(NodeIdOf(from), message, LocalTime(node, now_));
    Settle(node);
  });
}

void CoreHarness::Post(int from, int to, std::function<void()> deliver) {
  if (cut_[from][to]) return;
  if (faulty_ && random_.Chance(options_.loss)) return;
  const int copies = faulty_ && random_.Chance(options_.repeat) ? 2 : 1;
  auto arrive = [this, to, deliver = std::move(deliver)] {
    if (nodes_[to]->up) deliver();
  };
  for (int i = 0; i < copies; ++i) {
    const bool slow = faulty_ && random_.Chance(options_.slow);
    const Duration usual = faulty_ ? options_.delay_max : options_.healed_delay_max;
    const Duration most = slow ? options_.slow_max : usual;
    const int64_t least = faulty_ ? 50'000 : options_.healed_delay_min.count();
    At(now_ + random_.Between(least, std::max(least, most.count())), arrive);
  }
}

// ---- Scenarios ----

void CoreHarness::Isolate(int node, bool cut) {
  for (int other = 0; other < options_.nodes; ++other) cut_[node][other] = cut_[other][node] = cut;
}

void CoreHarness::HealLinks() {
  cut_.assign(options_.nodes, std::vector<bool>(options_.nodes, false));
}

int CoreHarness::LeaseHolder(int group) const {
  for (const auto& node : nodes_) {
    if (!node->up || node->cores[group] == nullptr) continue;
    if (node->cores[group]->HoldsLease(LocalTime(*node, now_))) return node->index;
  }
  return -1;
}

Slot CoreHarness::Propose(int index, int group) {
  Node& node = *nodes_[index];
  if (!node.up || node.cores[group] == nullptr) return 0;
  std::string text = Cat("p", ++payloads_);
  text.resize(text.size() + random_.Below(60), '.');
  auto slot =
      Awake(node, group).Propose(std::make_shared<const std::string>(text), LocalTime(node, now_));
  if (!slot.ok()) return 0;
  if (options_.trace) Trace(Cat("propose at ", index + 1, " slot ", *slot, " ", text.substr(0, 8)));
  truth_[group].proposed.insert(text);
  truth_[group].waiting.push_back(
      {index, node.boots, node.cores[group]->promised(), *slot, std::move(text)});
  Settle(node);
  return *slot;
}

bool CoreHarness::ReadByQuorum(int index, int group) {
  Node& node = *nodes_[index];
  if (!node.up || node.cores[group] == nullptr) return false;
  GroupCore& core = Awake(node, group);
  GroupTruth& truth = truth_[group];
  const Slot newest = truth.chosen.empty() ? 0 : truth.chosen.rbegin()->first;
  const uint64_t round = core.AskForConfirmation(LocalTime(node, now_));
  if (round == 0) return false;
  truth.reading.push_back({index, node.boots, core.promised(), round, newest});
  Settle(node);
  return true;
}

bool CoreHarness::ChosenEverywhere(Slot slot, int group) const {
  for (const auto& node : nodes_) {
    if (!node->up || Newest(group).FindNode(NodeIdOf(node->index)) == nullptr) continue;
    if (node->cores[group] == nullptr || node->cores[group]->chosen() < slot) return false;
  }
  return true;
}

void CoreHarness::SetMayLead(int index, bool may_lead, int group) {
  Node& node = *nodes_[index];
  if (!node.up || node.cores[group] == nullptr) return;
  Awake(node, group).SetMayLead(may_lead, LocalTime(node, now_));
  Settle(node);
}

void CoreHarness::Checkpoint(int index, Slot slot, int group) {
  Node& node = *nodes_[index];
  StoredGroup& stored = node.stored[group];
  if (slot > stored.applied) {
    stored.applied = slot;
    stored.configuration = node.cores[group]->ConfigurationAt(slot);
    const Slot ended = node.cores[group]->ended();
    if (ended <= slot) stored.ended = ended;
  }
  Awake(node, group).SetCheckpoint(slot, LocalTime(node, now_));
  Settle(node);
}

bool CoreHarness::AtRest(int group) const {
  for (const auto& node : nodes_) {
    if (!node->up || node->cores[group] == nullptr) continue;
    if (node->cores[group]->next_deadline() != Instant::Infinite()) return false;
  }
  return true;
}

int CoreHarness::Events(GroupCore::Event::Kind kind) const {
  auto it = events_.find(kind);
  return it == events_.end() ? 0 : it->second;
}

}  // namespace dynlib::replication
