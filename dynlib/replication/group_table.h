// The groups of a node: a compact record of each that is at rest, a pointer for each that is awake.
//
// A process holds a million groups because one at rest takes 104 bytes here and about nine in the
// index by id, in memory that is allocated a thousand records at a time. What many groups share is
// held once: the nodes on which their members are (replica ids differ from group to group, and are
// short), and the apply executors.
//
//   const GroupTable::Index group = table.Add(id, &state_machine, apply_executor);
//   table.Rest(group, self, member, next_expiry);        // from now on it is a record
//   const GroupTable::Rested rested = table.Take(group);   // and now it is to be awake
//   table.SetAwake(group, std::move(hosted));
//
// Records of resting groups hang in lists: of those that follow a leader on some node, so that the
// loss of the node finds them without looking at the others; of those that are to be woken, in
// turn; of the rest. A list is moved into another in one step.
//
// Nothing depends on an order that differs from run to run: lists and awake groups are in the order
// in which they came, ids are hashed by a fixed function.
//
// Threads: one executor's.
#ifndef DYNLIB_REPLICATION_GROUP_TABLE_H_
#define DYNLIB_REPLICATION_GROUP_TABLE_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "dynlib/base/ids.h"
#include "dynlib/base/time.h"
#include "dynlib/replication/awake_group.h"
#include "dynlib/replication/resting.h"
#include "dynlib/replication/state_machine.h"
#include "dynlib/replication/types.h"
#include "dynlib/runtime/executor.h"

namespace dynlib::replication {

class GroupTable {
 public:
  using Index = uint32_t;
  static constexpr Index kNone = UINT32_MAX;

  // What is kept of a group at rest.
  struct Rested {
    ReplicaId self{};
    RestingMember member;
    WallTime next_expiry;  // Of sessions; whole seconds.
  };

  GroupTable();
  ~GroupTable();
  GroupTable(const GroupTable&) = delete;
  GroupTable& operator=(const GroupTable&) = delete;

  size_t size() const { return size_; }
  // Groups at rest that lead.
  size_t leaders() const { return leaders_; }
  // Indices are below this; some may be free.
  Index end() const { return static_cast<Index>(chunks_.size()) * kChunk; }

  Index Find(PartitionId id) const;
  // Neither at rest nor awake yet. The id must not be here. At most 2^30 groups.
  Index Add(PartitionId id, StateMachine* state_machine, Executor* apply_executor);
  void Remove(Index group);

  bool Has(Index group) const { return At(group).id != PartitionId{}; }
  PartitionId IdOf(Index group) const { return At(group).id; }
  StateMachine* StateMachineOf(Index group) const { return At(group).state_machine; }
  Executor* ApplyExecutorOf(Index group) const { return executors_[At(group).executor]; }

  // Null for a group at rest.
  AwakeGroup* Awake(Index group) const { return At(group).awake.get(); }
  void SetAwake(Index group, std::unique_ptr<AwakeGroup> awake);

  // Puts a group to rest, or, with `to_wake`, behind the others that are to be woken.
  void Rest(Index group, const Rested& rested, bool to_wake = false);
  // What Rest was given. Of a group that is at rest.
  Rested Look(Index group) const;
  // The same, and it is at rest no more.
  Rested Take(Index group);

  // Those at rest that follow a leader on the node are to be woken.
  void WakeFollowersOf(NodeId node);
  // The one to be woken next, or kNone.
  Index NextToWake() const;

  // What all of it takes, but for what is awake.
  size_t bytes() const;

 private:
  static constexpr Index kChunk = 1024;
  static constexpr Index kListBit = Index{1} << 31;
  static constexpr Index kQuiet = kListBit;  // The heads of the lists follow.
  static constexpr Index kToWake = kListBit + 1;
  static constexpr size_t kMembersMax = 7;

  struct Links {
    Index previous = kNone;
    Index next = kNone;
  };
  struct Record {
    PartitionId id{};
    StateMachine* state_machine = nullptr;
    std::unique_ptr<AwakeGroup> awake;
    // Of a group at rest.
    Ballot promised;
    Slot chosen = 0;
    uint64_t epoch = 0;
    std::array<uint64_t, RestingMember::kEpochs> peer_epochs{};
    Links links;
    uint32_t leader_incarnation = 0;
    uint32_t next_expiry_s = 0;
    uint32_t places = kNone;  // In places_.
    std::array<uint16_t, kMembersMax> replicas{};
    uint16_t executor = 0;
    uint8_t self = 0;  // Which of the replicas.
    uint8_t flags = 0;
  };
  static_assert(sizeof(Record) == 104);

  // Where the members of some groups are.
  using Places = std::vector<std::pair<NodeId, MemberKind>>;
  struct SharedPlaces {
    const Places* places = nullptr;
    uint32_t uses = 0;
  };

  Record& At(Index group) { return chunks_[group / kChunk][group % kChunk]; }
  const Record& At(Index group) const { return chunks_[group / kChunk][group % kChunk]; }
  Links& LinksOf(Index at) { return (at & kListBit) ? heads_[at & ~kListBit] : At(at).links; }
  const Links& LinksOf(Index at) const {
    return (at & kListBit) ? heads_[at & ~kListBit] : At(at).links;
  }
  Index NewList();
  Index ListOf(NodeId leader);
  void Append(Index list, Index group);
  void Unlink(Index group);
  uint32_t Share(const Configuration& configuration);
  void Unshare(uint32_t places);
  uint16_t ExecutorNumber(Executor* executor);
  size_t Bucket(PartitionId id) const;
  void InsertIntoIndex(Index group);
  void EraseFromIndex(PartitionId id);
  void GrowIndex();

  std::vector<std::unique_ptr<Record[]>> chunks_;
  Index first_free_ = kNone;  // Linked by `next`.
  size_t size_ = 0;
  size_t leaders_ = 0;
  std::vector<Index> index_;  // By id: open addressing, linear probing, at most 3/4 full.
  std::vector<Links> heads_;
  std::map<NodeId, Index> lists_;  // By the leader's node.
  std::map<Places, uint32_t> places_by_value_;
  std::vector<SharedPlaces> places_;
  std::vector<uint32_t> free_places_;
  std::vector<Executor*> executors_;
};

}  // namespace dynlib::replication

#endif  // DYNLIB_REPLICATION_GROUP_TABLE_H_
