// Routing metadata on two directory nodes: a partition splits while one of them is away, the other
// answers without a gap, and when it is back the two exchange what differs, and no more.
#include <cstdio>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "dynlib/base/ids.h"
#include "dynlib/base/time.h"
#include "dynlib/partition_map/memds.h"
#include "dynlib/partition_map/partition_record.h"
#include "dynlib/partition_map/sync_message.h"
#include "dynlib/partition_map/sync_session.h"

namespace {

using namespace dynlib;  // An example's liberty.
using namespace dynlib::partition_map;

constexpr TableId kOrders{1};
constexpr NodeId kStorageNode{11};
const Instant kNow = Instant::FromNanos(1);  // from a Clock, in an application

PartitionRecord Partition(uint64_t id, std::string first, std::string end, uint64_t generation) {
  return {.table = kOrders,
          .partition = PartitionId{id},
          .first = std::move(first),
          .end = std::move(end),
          .generation = generation,
          .members = {{ReplicaId{1}, NodeId{11}}, {ReplicaId{2}, NodeId{12}}},
          .leader = NodeId{11}};
}

// Over the network, in an application: Encode, send, DecodeSyncRequest, and back.
bool BringInStep(MemDs& node, MemDs& peer) {
  SyncSession session = node.StartSync();
  while (auto request = session.Next()) {
    const SyncReply reply = peer.AnswerSync(*request);
    std::printf("  %zu bytes asked, %zu answered\n", Encode(*request).size(), Encode(reply).size());
    if (!session.OnReply(reply).ok()) return false;
  }
  node.OnSynced(NodeId{2}, session, kNow);
  return session.in_step();
}

uint64_t Holder(const MemDs& node, std::string_view key) {
  const LookUpAnswer answer = node.LookUp(kOrders, key, kNow);
  return answer.outcome == LookUpOutcome::kFound ? ToUint(answer.record->partition) : 0;
}

}  // namespace

int main() {
  auto here = MemDs::Create({}, kNow), away = MemDs::Create({}, kNow);
  if (!here.ok() || !away.ok()) return 1;
  const PartitionRecord parent = Partition(1, "", "", 1);
  for (MemDs* node : {here->get(), away->get()}) node->Push(kStorageNode, {{parent}}, kNow);

  // The partition splits at "m". Its right half is the first to be heard of: what is left of the
  // parent goes on to serve the rest. A late push of the parent takes nothing back.
  (*here)->Push(kStorageNode, {{Partition(3, "m", "", 2)}}, kNow);
  (*here)->Push(kStorageNode, {{parent}}, kNow);
  std::printf("apple: partition %lu, pear: partition %lu\n", Holder(**here, "apple"),
              Holder(**here, "pear"));
  if (Holder(**here, "apple") != 1 || Holder(**here, "pear") != 3) return 1;
  (*here)->Push(kStorageNode, {{Partition(2, "", "m", 2)}}, kNow);

  if (!BringInStep(**away, **here)) return 1;
  std::printf("the node that was away: apple: partition %lu, pear: partition %lu\n",
              Holder(**away, "apple"), Holder(**away, "pear"));
  return Holder(**away, "apple") == 2 && Holder(**away, "pear") == 3 ? 0 : 1;
}
