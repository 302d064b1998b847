// How routers and storage nodes meet: channels, methods, ids that are fixed.
//
// Every method's request and reply are the messages of cluster.proto with its name. What went wrong
// with a request is in the reply's Outcome; an rpc-level error means that no node answered for it.
//
//   Outcome code         from               meaning
//   OK
//   ABORTED              Write              the condition did not hold; nothing changed
//   FAILED_PRECONDITION  Write, strong      not the leader; leader_node may be. Nothing was logged
//   NOT_FOUND            all                this node has no such partition
//   OUT_OF_RANGE         all                the key or range lies outside the partition
//   INVALID_ARGUMENT     all                the request does not parse or is past a limit
//   RESOURCE_EXHAUSTED   all                a bound was reached; nothing was logged: later. With
//                                           retry_after_us: throttled, and the caller is told; with
//                                           `full` besides: so is a caller who has no more time
//   UNAVAILABLE          strong reads       no lease now: again
//   UNKNOWN              Write              may be applied or not: again with the same client and
//                                           sequence
//   CANCELLED            all                the node shuts down; a write may be applied or not
//   DATA_LOSS            reads              a page is damaged on this replica: another has it
//
// Of metadata nodes, see metadata_node.h.
#ifndef DYNLIB_CLUSTER_SERVICE_H_
#define DYNLIB_CLUSTER_SERVICE_H_

#include <cstddef>

#include "dynlib/base/ids.h"
#include "dynlib/runtime/rpc.h"
#include "dynlib/runtime/transport.h"

namespace dynlib::cluster {

inline constexpr Channel kReplicationChannel{1};
inline constexpr Channel kRpcChannel{2};

inline constexpr Rpc::Method kWrite{1};
inline constexpr Rpc::Method kRead{2};
inline constexpr Rpc::Method kQuery{3};
inline constexpr Rpc::Method kCreateReplica{4};
inline constexpr Rpc::Method kNodeStatus{5};
// Of storage nodes, asked by the admin.
inline constexpr Rpc::Method kAddLearner{6};
inline constexpr Rpc::Method kChangeMembers{7};
inline constexpr Rpc::Method kSplit{8};
inline constexpr Rpc::Method kMerge{9};
inline constexpr Rpc::Method kDropReplica{10};
inline constexpr Rpc::Method kCopyTree{11};
inline constexpr Rpc::Method kUnpin{12};
inline constexpr Rpc::Method kScrubMark{13};
inline constexpr Rpc::Method kScrubDigest{14};
inline constexpr Rpc::Method kRepair{15};
// Among storage nodes.
inline constexpr Rpc::Method kNodeLoad{16};
inline constexpr Rpc::Method kScrubRead{17};
// Of the acting admin's node.
inline constexpr Rpc::Method kScrubNow{18};
// Of the leader, when every node runs a program that reads the version (rule R10).
inline constexpr Rpc::Method kRaiseVersion{19};
// Of metadata nodes.
inline constexpr Rpc::Method kLookUp{20};
inline constexpr Rpc::Method kDescribeTable{21};
inline constexpr Rpc::Method kPush{22};
inline constexpr Rpc::Method kMetadataSync{23};
inline constexpr Rpc::Method kAdmissionReport{24};
inline constexpr Rpc::Method kMetadataStatus{25};
inline constexpr Rpc::Method kLookUpBatch{26};

// The catalogue is a table like others, of one partition, that every cluster is born with: table
// "catalogue", partition key "name" (string); attribute "table" (binary) holds the encoded
// wire::Table.
inline constexpr TableId kCatalogueTable{1};
inline constexpr PartitionId kCataloguePartition{1};

// A Query answers with at most this many bytes of rows, and at least one row.
inline constexpr size_t kQueryBytesMax = 1 << 20;

}  // namespace dynlib::cluster

#endif  // DYNLIB_CLUSTER_SERVICE_H_
