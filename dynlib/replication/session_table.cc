#include "dynlib/replication/session_table.h"

#include <algorithm>
#include <utility>

#include "dynlib/base/check.h"
#include "dynlib/base/coding.h"
#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"

namespace dynlib::replication {
namespace {

constexpr uint8_t kRecordVersion = 1;
constexpr char kClientKey = 'c';
constexpr char kExpired[] = "the client's session expired; the command may be applied already";
constexpr char kExpiryKey[] = "x";

std::string ClientKey(ClientId client) {
  std::string key(1, kClientKey);
  PutFixed64(key, ToUint(client));
  return key;
}

}  // namespace

LoggedHead::LoggedHead(const LoggedCommand& command) {
  if (command.kind == LoggedCommand::Kind::kNoOp) return;
  char* at = bytes_;
  const auto put_time = [&](WallTime time) {
    StoreFixed<uint64_t>(at, static_cast<uint64_t>(time.nanos()));
    at += sizeof(uint64_t);
  };
  *at++ = static_cast<char>(command.kind);
  if (command.kind == LoggedCommand::Kind::kVersion) {
    size_ = static_cast<size_t>(StoreVarint(at, command.version) - bytes_);
    return;
  }
  if (command.kind != LoggedCommand::Kind::kExpireSessions) {
    at = StoreVarint(at, ToUint(command.client));
    at = StoreVarint(at, command.sequence);
    at = StoreVarint(at, command.acknowledged);
    put_time(command.issued);
  }
  put_time(command.proposed);
  size_ = static_cast<size_t>(at - bytes_);
}

std::string EncodeLogged(const LoggedCommand& command) {
  const LoggedHead head(command);
  std::string out;
  out.reserve(head.bytes().size() + command.command.size());
  out.append(head.bytes()).append(command.command);
  return out;
}

LoggedCommand DecodeLogged(std::string_view bytes) {
  ByteReader in(bytes);
  LoggedCommand command;
  if (bytes.empty()) return command;
  command.kind = static_cast<LoggedCommand::Kind>(in.Fixed8());
  if (command.kind == LoggedCommand::Kind::kVersion) {
    command.version = in.Varint();
    return in.done() ? command : LoggedCommand();
  }
  if (command.kind == LoggedCommand::Kind::kCommand || command.kind == LoggedCommand::Kind::kEnd) {
    command.client = ClientId{in.Varint()};
    command.sequence = in.Varint();
    command.acknowledged = in.Varint();
    command.issued = WallTime::FromNanos(static_cast<int64_t>(in.Fixed64()));
  } else if (command.kind != LoggedCommand::Kind::kExpireSessions) {
    return {};
  }
  command.proposed = WallTime::FromNanos(static_cast<int64_t>(in.Fixed64()));
  if (!in.ok()) return {};
  command.command = in.rest();
  return command;
}

absl::Status SessionTable::Load(std::string_view key, std::string_view value) {
  ByteReader in(value);
  const uint8_t version = in.Fixed8();
  if (key == kExpiryKey) {
    expired_before_ = WallTime::FromNanos(static_cast<int64_t>(in.Fixed64()));
  } else if (key.size() == 9 && key[0] == kClientKey) {
    Client client;
    client.acknowledged = in.Varint();
    client.last = WallTime::FromNanos(static_cast<int64_t>(in.Fixed64()));
    for (uint64_t count = in.Varint(); count > 0 && in.ok(); --count) {
      const uint64_t sequence = in.Varint();
      SessionResult result;
      result.code = static_cast<absl::StatusCode>(in.Fixed8());
      result.result = std::string(in.LengthPrefixed());
      client.results.emplace(sequence, std::move(result));
    }
    clients_[ClientId{LoadFixed<uint64_t>(key.data() + 1)}] = std::move(client);
  } else {
    in.Fail();
  }
  if (!in.done() || version != kRecordVersion) {
    return absl::DataLossError(Cat("session record ", Escape(key), " does not parse"));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> MergeSessionRecords(std::string_view key, std::string_view a,
                                                std::string_view b) {
  SessionTable table;
  SessionTable other;
  DYNLIB_RETURN_IF_ERROR(table.Load(key, a));
  DYNLIB_RETURN_IF_ERROR(other.Load(key, b));
  table.Merge(other);
  return table.TakeChanges().front().value;
}

void SessionTable::Merge(const SessionTable& other) {
  expired_before_ = std::max(expired_before_, other.expired_before_);
  expiry_changed_ = expiry_changed_ || expired_before_ != WallTime();
  for (const auto& [id, theirs] : other.clients_) {
    Client& client = clients_[id];
    client.last = std::max(client.last, theirs.last);
    client.acknowledged = std::max(client.acknowledged, theirs.acknowledged);
    client.results.insert(theirs.results.begin(), theirs.results.end());
    client.results.erase(client.results.begin(), client.results.upper_bound(client.acknowledged));
    changed_.push_back(id);
  }
}

SessionTable::Decision SessionTable::Admit(const LoggedCommand& command) {
  auto refuse = [](absl::StatusCode code, std::string why) {
    return Decision{.verdict = Verdict::kRefused, .refusal = {code, std::move(why)}};
  };
  // A refusal must not make a client that no stored record tells of.
  if (command.sequence == 0)
    return refuse(absl::StatusCode::kInvalidArgument, "sequence is 0; allowed: at least 1");
  auto it = clients_.find(command.client);
  if (it == clients_.end()) {
    if (command.issued < expired_before_) {
      return refuse(absl::StatusCode::kUnknown, kExpired);
    }
    it = clients_.try_emplace(command.client).first;
  }
  Client& client = it->second;
  if (command.sequence <= client.acknowledged) {
    return refuse(absl::StatusCode::kInvalidArgument,
                  Cat("sequence ", command.sequence, " is not above what the client acknowledged, ",
                      client.acknowledged));
  }
  changed_.push_back(command.client);
  client.last = std::max(client.last, command.proposed);
  // A client cannot have the answer to a command that it is only now sending.
  const uint64_t acknowledged = std::min(command.acknowledged, command.sequence - 1);
  Results::node_type dropped;
  if (acknowledged > client.acknowledged) {
    client.acknowledged = acknowledged;
    while (!client.results.empty() && client.results.begin()->first <= acknowledged)
      dropped = client.results.extract(client.results.begin());
  }
  if (client.results.contains(command.sequence))
    return {.verdict = Verdict::kDuplicate, .refusal = {}};
  // The client may have been dropped and have come again since.
  if (command.issued < expired_before_) return refuse(absl::StatusCode::kUnknown, kExpired);
  if (client.results.size() >= kResultsMax) {
    return refuse(absl::StatusCode::kResourceExhausted,
                  Cat("client has ", kResultsMax, " results that it did not acknowledge"));
  }
  // Whoever calls in turn acknowledges one with the next: its place is taken, without the
  // allocator.
  if (dropped.empty()) {
    client.results.emplace(command.sequence, SessionResult{});
  } else {
    dropped.key() = command.sequence;
    dropped.mapped() = {};
    client.results.insert(client.results.end(), std::move(dropped));
  }
  return {};
}

void SessionTable::SetResult(ClientId client, uint64_t sequence, SessionResult result) {
  auto it = clients_.find(client);
  if (it == clients_.end()) return;
  // A later command of the same step may have acknowledged it already.
  auto at = it->second.results.find(sequence);
  if (at != it->second.results.end()) at->second = std::move(result);
}

const SessionResult* SessionTable::Find(ClientId client, uint64_t sequence) const {
  auto it = clients_.find(client);
  if (it == clients_.end()) return nullptr;
  auto at = it->second.results.find(sequence);
  return at == it->second.results.end() ? nullptr : &at->second;
}

void SessionTable::Expire(WallTime before) {
  if (before <= expired_before_) return;
  expired_before_ = before;
  expiry_changed_ = true;
  for (auto it = clients_.begin(); it != clients_.end();) {
    if (it->second.last < before) {
      changed_.push_back(it->first);
      it = clients_.erase(it);
    } else {
      ++it;
    }
  }
}

std::vector<SessionRecord> SessionTable::TakeChanges() {
  std::vector<SessionRecord> records;
  records.reserve(changed_.size() + 1);
  std::sort(changed_.begin(), changed_.end());
  changed_.erase(std::unique(changed_.begin(), changed_.end()), changed_.end());
  for (ClientId id : changed_) {
    SessionRecord record{.key = ClientKey(id), .value = {}};
    if (auto it = clients_.find(id); it != clients_.end()) {
      const Client& client = it->second;
      PutFixed8(record.value, kRecordVersion);
      PutVarint(record.value, client.acknowledged);
      PutFixed64(record.value, static_cast<uint64_t>(client.last.nanos()));
      PutVarint(record.value, client.results.size());
      for (const auto& [sequence, result] : client.results) {
        PutVarint(record.value, sequence);
        PutFixed8(record.value, static_cast<uint8_t>(result.code));
        PutLengthPrefixed(record.value, result.result);
      }
    }
    records.push_back(std::move(record));
  }
  changed_.clear();
  if (expiry_changed_) {
    SessionRecord record{.key = kExpiryKey, .value = {}};
    PutFixed8(record.value, kRecordVersion);
    PutFixed64(record.value, static_cast<uint64_t>(expired_before_.nanos()));
    records.push_back(std::move(record));
    expiry_changed_ = false;
  }
  return records;
}

}  // namespace dynlib::replication
