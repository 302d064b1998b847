// The exactly-once table: which (client, sequence) was applied, and with what result (PROTOCOL rule
// R10).
//
// It is a function of the log: every replica has the same table at the same slot. A client keeps
// several commands in flight and says with each up to where it has its answers; results at or below
// that are dropped. Clients that fall silent are dropped by a logged command with a wall time in
// it; a command of an unknown client that was issued before that time is refused, since its result
// may be among what was dropped.
//
// Threads: one executor's.
#ifndef DYNLIB_REPLICATION_SESSION_TABLE_H_
#define DYNLIB_REPLICATION_SESSION_TABLE_H_

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/base/coding.h"
#include "dynlib/base/ids.h"
#include "dynlib/base/time.h"
#include "dynlib/replication/state_machine.h"

namespace dynlib::replication {

// What an entry of the log holds: a client's command, also one that ends the log, or one that
// expires sessions or raises the version of the commands after it, or nothing. Changes of members
// (entry.h) are nothing here. The numbers are those of EntryKind.
struct LoggedCommand {
  enum class Kind : uint8_t {
    kNoOp = 0,
    kCommand = 1,
    kExpireSessions = 2,
    kEnd = 4,
    kVersion = 5
  };
  Kind kind = Kind::kNoOp;
  ClientId client{};
  uint64_t sequence = 0;
  uint64_t acknowledged = 0;
  WallTime issued;       // by the client, when it first sent the command
  WallTime proposed;     // by the leader; of kExpireSessions: drop who was silent since before this
  uint64_t version = 0;  // of kVersion, which has nothing else
  std::string_view command;
};
// An entry is its head and then the command.
class LoggedHead {
 public:
  explicit LoggedHead(const LoggedCommand& command);
  std::string_view bytes() const { return {bytes_, size_}; }

 private:
  char bytes_[1 + 3 * kVarintBytesMax + 2 * sizeof(uint64_t)];
  size_t size_ = 0;
};
std::string EncodeLogged(const LoggedCommand& command);
// Views into `bytes`. Bytes that do not parse decode as a no-op, the same on every replica.
LoggedCommand DecodeLogged(std::string_view bytes);

// How a command ended, as kept in the table and told to the proposer.
struct SessionResult {
  absl::StatusCode code = absl::StatusCode::kOk;
  std::string result;  // Of the state machine, when OK; else what was wrong.
};

// Of two tables' records under one key the one for the partition that comes of both: a client's
// results together, and what it acknowledged to either; the later of two expiries. (A client of a
// partition that was split is in the tables of both children; rule R11.) kDataLoss for a record
// that does not parse.
absl::StatusOr<std::string> MergeSessionRecords(std::string_view key, std::string_view a,
                                                std::string_view b);

class SessionTable {
 public:
  // A client may have this many results that it has not acknowledged; commands beyond are refused.
  static constexpr size_t kResultsMax = 4096;

  enum class Verdict { kApply, kDuplicate, kRefused };
  struct Decision {
    Verdict verdict = Verdict::kApply;
    SessionResult refusal;  // With kRefused.
  };

  // Of a stored record; bytes that do not parse are kDataLoss.
  absl::Status Load(std::string_view key, std::string_view value);

  // Takes over what another table holds, as MergeSessionRecords says.
  void Merge(const SessionTable& other);

  // Decides on a command and, for kApply, notes it with an empty result, to be filled in by
  // SetResult.
  Decision Admit(const LoggedCommand& command);
  void SetResult(ClientId client, uint64_t sequence, SessionResult result);
  const SessionResult* Find(ClientId client, uint64_t sequence) const;
  void Expire(WallTime before);

  // The records that changed since the last call, to be stored.
  std::vector<SessionRecord> TakeChanges();

  size_t clients() const { return clients_.size(); }

 private:
  using Results = std::map<uint64_t, SessionResult>;
  struct Client {
    uint64_t acknowledged = 0;
    WallTime last;
    Results results;
  };

  std::map<ClientId, Client> clients_;
  WallTime expired_before_;
  std::vector<ClientId> changed_;  // In any order, and any number of times.
  bool expiry_changed_ = false;
};

}  // namespace dynlib::replication

#endif  // DYNLIB_REPLICATION_SESSION_TABLE_H_
