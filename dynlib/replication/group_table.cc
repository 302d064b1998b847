#include "dynlib/replication/group_table.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "dynlib/base/check.h"

namespace dynlib::replication {
namespace {

enum Flag : uint8_t { kLeads = 1, kFollows = 2, kEnded = 4 };

constexpr size_t kIndexMin = 64;

uint32_t ToSeconds(WallTime time) {
  const int64_t seconds = time.nanos() / 1'000'000'000;
  return static_cast<uint32_t>(std::clamp<int64_t>(seconds, 0, UINT32_MAX));
}

}  // namespace

GroupTable::GroupTable() : index_(kIndexMin, kNone) {
  NewList();  // kQuiet
  NewList();  // kToWake
}

GroupTable::~GroupTable() = default;

// ---- By id ----

// Ids count up, or carry their meaning in their low or high bits: SplitMix64 spreads either.
size_t GroupTable::Bucket(PartitionId id) const {
  uint64_t x = ToUint(id) + 0x9e3779b97f4a7c15;
  x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
  x = (x ^ x >> 27) * 0x94d049bb133111eb;
  return (x ^ x >> 31) & (index_.size() - 1);
}

GroupTable::Index GroupTable::Find(PartitionId id) const {
  for (size_t at = Bucket(id);; at = (at + 1) & (index_.size() - 1)) {
    const Index group = index_[at];
    if (group == kNone || At(group).id == id) return group;
  }
}

void GroupTable::InsertIntoIndex(Index group) {
  size_t at = Bucket(At(group).id);
  while (index_[at] != kNone) at = (at + 1) & (index_.size() - 1);
  index_[at] = group;
}

// What lies behind moves up, so that nothing is left in the way of a search.
void GroupTable::EraseFromIndex(PartitionId id) {
  const size_t mask = index_.size() - 1;
  size_t hole = Bucket(id);
  while (At(index_[hole]).id != id) hole = (hole + 1) & mask;
  for (size_t at = (hole + 1) & mask; index_[at] != kNone; at = (at + 1) & mask) {
    const size_t home = Bucket(At(index_[at]).id);
    if (((at - home) & mask) < ((at - hole) & mask)) continue;
    index_[hole] = index_[at];
    hole = at;
  }
  index_[hole] = kNone;
}

void GroupTable::GrowIndex() {
  const std::vector<Index> old =
      std::exchange(index_, std::vector<Index>(2 * index_.size(), kNone));
  for (Index group : old) {
    if (group != kNone) InsertIntoIndex(group);
  }
}

GroupTable::Index GroupTable::Add(PartitionId id, StateMachine* state_machine,
                                  Executor* apply_executor) {
  DYNLIB_CHECK(id != PartitionId{} && Find(id) == kNone);
  if (first_free_ == kNone) {
    DYNLIB_CHECK(end() < (Index{1} << 30));
    const Index first = end();
    chunks_.push_back(std::make_unique<Record[]>(kChunk));
    for (Index group = first; group < end(); ++group) At(group).links.next = group + 1;
    At(end() - 1).links.next = kNone;
    first_free_ = first;
  }
  const Index group = first_free_;
  Record& record = At(group);
  first_free_ = std::exchange(record.links.next, kNone);
  record.id = id;
  record.state_machine = state_machine;
  record.executor = ExecutorNumber(apply_executor);
  ++size_;
  if (4 * size_ > 3 * index_.size()) GrowIndex();
  InsertIntoIndex(group);
  return group;
}

void GroupTable::Remove(Index group) {
  Record& record = At(group);
  EraseFromIndex(record.id);
  if (record.links.next != kNone) Unlink(group);
  Unshare(record.places);
  record = Record();
  record.links.next = std::exchange(first_free_, group);
  --size_;
}

// ---- At rest and awake ----

void GroupTable::SetAwake(Index group, std::unique_ptr<AwakeGroup> awake) {
  DYNLIB_CHECK(At(group).links.next == kNone);
  At(group).awake = std::move(awake);
}

void GroupTable::Rest(Index group, const Rested& rested, bool to_wake) {
  const RestingMember& member = rested.member;
  const std::vector<Member>& members = member.configuration.members;
  DYNLIB_CHECK(members.size() <= kMembersMax);
  Record& record = At(group);
  record.awake.reset();
  record.promised = member.promised;
  record.chosen = member.chosen;
  record.epoch = member.configuration.epoch;
  record.peer_epochs = member.peer_epochs;
  // Incarnations count boots, in 32 bits (Liveness).
  record.leader_incarnation = static_cast<uint32_t>(member.leader_incarnation);
  record.next_expiry_s = ToSeconds(rested.next_expiry);
  record.flags = static_cast<uint8_t>(
      (member.leads ? kLeads : 0) | (member.follows ? kFollows : 0) | (member.ended ? kEnded : 0));
  const uint32_t places = Share(member.configuration);
  Unshare(record.places);
  record.places = places;
  for (size_t i = 0; i < members.size(); ++i) {
    record.replicas[i] = static_cast<uint16_t>(ToUint(members[i].replica));
    if (members[i].replica == rested.self) record.self = static_cast<uint8_t>(i);
  }
  Index list = kQuiet;
  if (member.follows) list = ListOf(member.configuration.Find(member.promised.proposer())->node);
  leaders_ += member.leads;
  Append(to_wake ? kToWake : list, group);
}

GroupTable::Rested GroupTable::Look(Index group) const {
  const Record& record = At(group);
  DYNLIB_CHECK(record.links.next != kNone);
  Rested rested;
  RestingMember& member = rested.member;
  const Places& places = *places_[record.places].places;
  member.configuration.epoch = record.epoch;
  member.configuration.members.reserve(places.size());
  for (size_t i = 0; i < places.size(); ++i) {
    member.configuration.members.push_back({.replica = ReplicaId{record.replicas[i]},
                                            .node = places[i].first,
                                            .kind = places[i].second});
  }
  member.promised = record.promised;
  member.chosen = record.chosen;
  member.leads = (record.flags & kLeads) != 0;
  member.follows = (record.flags & kFollows) != 0;
  member.ended = (record.flags & kEnded) != 0;
  member.leader_incarnation = record.leader_incarnation;
  member.peer_epochs = record.peer_epochs;
  rested.self = ReplicaId{record.replicas[record.self]};
  rested.next_expiry = WallTime() + std::chrono::seconds(record.next_expiry_s);
  return rested;
}

// Its places stay shared, for when it rests again.
GroupTable::Rested GroupTable::Take(Index group) {
  Rested rested = Look(group);
  Unlink(group);
  return rested;
}

// ---- Lists: rings through a head, so that nobody need know in which list a group is ----

GroupTable::Index GroupTable::NewList() {
  const Index list = kListBit | static_cast<Index>(heads_.size());
  heads_.push_back({list, list});
  return list;
}

GroupTable::Index GroupTable::ListOf(NodeId leader) {
  auto [it, added] = lists_.try_emplace(leader, kNone);
  if (added) it->second = NewList();
  return it->second;
}

void GroupTable::Append(Index list, Index group) {
  const Index last = LinksOf(list).previous;
  At(group).links = {last, list};
  LinksOf(last).next = group;
  LinksOf(list).previous = group;
}

void GroupTable::Unlink(Index group) {
  const Links links = std::exchange(At(group).links, {});
  LinksOf(links.previous).next = links.next;
  LinksOf(links.next).previous = links.previous;
  leaders_ -= (At(group).flags & kLeads) != 0;
}

void GroupTable::WakeFollowersOf(NodeId node) {
  auto it = lists_.find(node);
  if (it == lists_.end()) return;
  Links& followers = LinksOf(it->second);
  if (followers.next == it->second) return;
  const Index last = LinksOf(kToWake).previous;
  LinksOf(last).next = followers.next;
  LinksOf(followers.next).previous = last;
  LinksOf(followers.previous).next = kToWake;
  LinksOf(kToWake).previous = followers.previous;
  followers = {it->second, it->second};
}

GroupTable::Index GroupTable::NextToWake() const {
  const Index first = LinksOf(kToWake).next;
  return first == kToWake ? kNone : first;
}

// ---- What groups share ----

uint32_t GroupTable::Share(const Configuration& configuration) {
  Places places;
  places.reserve(configuration.members.size());
  for (const Member& member : configuration.members) places.emplace_back(member.node, member.kind);
  auto [it, added] = places_by_value_.try_emplace(std::move(places), 0);
  if (added) {
    if (free_places_.empty()) {
      free_places_.push_back(static_cast<uint32_t>(places_.size()));
      places_.emplace_back();
    }
    it->second = free_places_.back();
    free_places_.pop_back();
    places_[it->second] = {&it->first, 0};
  }
  ++places_[it->second].uses;
  return it->second;
}

void GroupTable::Unshare(uint32_t places) {
  if (places == kNone || --places_[places].uses > 0) return;
  places_by_value_.erase(*places_[places].places);
  places_[places] = {};
  free_places_.push_back(places);
}

// Few: a search costs less than an index would.
uint16_t GroupTable::ExecutorNumber(Executor* executor) {
  const auto known = std::find(executors_.begin(), executors_.end(), executor);
  const auto number = known - executors_.begin();
  DYNLIB_CHECK(number <= UINT16_MAX);
  if (known == executors_.end()) executors_.push_back(executor);
  return static_cast<uint16_t>(number);
}

size_t GroupTable::bytes() const {
  return sizeof(*this) + chunks_.size() * kChunk * sizeof(Record) +
         chunks_.capacity() * sizeof(chunks_[0]) + index_.capacity() * sizeof(Index) +
         heads_.capacity() * sizeof(Links) + places_.capacity() * sizeof(SharedPlaces);
}

}  // namespace dynlib::replication
