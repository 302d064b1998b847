// Protocol scenarios as text that people read: commands to a small group, and what it did.
//
//   # Node 1 crashes; the others notice, ask one another, and elect.
//   crash node=1
//   run 2s
//   ----
//   1000.0 ms  crash 1
//   1606.1 ms  node 2 calls an election (leader_silent), ballot 2.2, slot 1
//
// A block is comment lines, commands, `----`, and what came of them, up to an empty line. In the
// manner of etcd raft's data-driven tests: the output is written by the test itself when it is run
// with DYNLIB_REWRITE set, and read in review. Links take 1 ms, syncs 2 ms, and nothing else goes
// wrong than what the commands say, so that a transcript changes only with the protocol.
//
// Nodes are numbered from 1. Commands:
//
//   group nodes=3 [spares=1] [retained=BYTES]   first: replica i on node i; spares have none
//   run 500ms | 2s                              lets time pass
//   until lease [not=1]                         until somebody (else) holds the lease, 20 s at most
//   messages on | off                           whether messages of the group are shown
//   propose node=1 [count=3]
//   read node=1                                 by a quorum's word; shown when it is confirmed
//   crash | restart | isolate | join node=1
//   cut from=1 to=2                             one way
//   heal                                        all links
//   hang | unhang node=1                        its disk; the driver notices
//   damage node=1 slot=5                        unreadable at the next restart
//   checkpoint slot=5                           on each node that is up
//   transfer node=1                             of leadership, away from it
//   learner node=4 [kind=log] from=1            a replica there, over the tree of node 1
//   feed at=1 node=4                            the leader on node 1 feeds it
//   change at=1 nodes=1,2,4                     the leader on node 1 proposes these members
//   end at=1                                    the last entry of the log
//   drop node=3
//   show                                        each replica in a line
#ifndef DYNLIB_TESTS_REPLICATION_TRANSCRIPT_H_
#define DYNLIB_TESTS_REPLICATION_TRANSCRIPT_H_

#include <string>

namespace dynlib::replication {

// The transcript again, with the output that the commands have now. A violation of safety is part
// of the output.
std::string RunTranscript(const std::string& text);

}  // namespace dynlib::replication

#endif  // DYNLIB_TESTS_REPLICATION_TRANSCRIPT_H_
