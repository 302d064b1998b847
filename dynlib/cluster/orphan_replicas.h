// Replicas that nobody will ask for again: of tables that were deleted while their node was away,
// and of creations that failed or were placed anew.
//
// The rule: a replica is dropped when its table's id is one that this catalogue gave out
// (table_ids.h), and no entry has it, neither a table's nor a creation's under way, in a read of
// the whole catalogue that began after some node had shown a replica of the table.
//
// Why that is safe: an id is given out once; its entry is written before the first replica is made,
// so that a replica shown proves that the entry was there; and an entry that is gone never comes
// back, for nobody has a use for the id. So it holds for ever once it is seen, and whoever acts
// upon it may be late. A creation is protected by its entry from before its first replica on. An
// entry that cannot be read might be anybody's: then nothing is dropped; nor by a catalogue that
// was made anew, which gave out none of the ids that it finds.
//
// Internal to the cluster. Threads: pure functions.
#ifndef DYNLIB_CLUSTER_ORPHAN_REPLICAS_H_
#define DYNLIB_CLUSTER_ORPHAN_REPLICAS_H_

#include <map>
#include <set>
#include <vector>

#include "dynlib/base/ids.h"
#include "dynlib/cluster/admin_planner.h"
#include "dynlib/cluster/cluster.pb.h"
#include "dynlib/cluster/table_ids.h"

namespace dynlib::cluster {

// What the catalogue says, when all of it was read and could be.
struct KnownTables {
  TableIds given;
  std::set<TableId> entries;  // tables', those being deleted, and creations'
};

// The tables that nodes show replicas of.
std::set<TableId> TablesShown(const std::map<NodeId, NodeView>& nodes);

// The replicas on live nodes to be dropped; `shown_before` is what was shown before `known` was
// read.
std::vector<AdminCall<wire::DropReplicaRequest>> DropOrphans(
    const KnownTables& known, const std::set<TableId>& shown_before,
    const std::map<NodeId, NodeView>& nodes);

}  // namespace dynlib::cluster

#endif  // DYNLIB_CLUSTER_ORPHAN_REPLICAS_H_
