#include "dynlib/partition_map/sync_session.h"

#include <algorithm>
#include <utility>

#include "dynlib/base/check.h"
#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"
#include "dynlib/partition_map/map_entry.h"

namespace dynlib::partition_map {
namespace {

// Digests cost about 10 bytes for each child, an entry about 60. So few entries are listed at once,
// and so are many of which we have next to none.
constexpr uint64_t kListAtMost = 3;
constexpr uint64_t kListWhenTimesOurs = 8;

// Far more than the largest map needs.
constexpr uint64_t kRequestsMax = 100'000;

// Entries and subtrees that wait to be sent, about 100 bytes each.
constexpr size_t kSendsMax = 100'000;

constexpr size_t kMessageBytesMin = 64 << 10;
constexpr size_t kMessageBytesMax = 16 << 20;

bool BetterListed(uint64_t theirs, uint64_t ours) {
  return theirs <= kListAtMost || ours * kListWhenTimesOurs < theirs;
}

bool IsBelow(const PerklePath& path, const PerklePath& above) {
  return path.CommonWith(above) == above.nibbles;
}

bool HasChild(const SyncAnswer& answer, uint32_t nibble) {
  return std::any_of(answer.children.begin(), answer.children.end(),
                     [&](const SyncChild& child) { return child.nibble == nibble; });
}

}  // namespace

absl::StatusOr<UpsertOutcome> JoinEntry(PartitionMap& map, std::string_view key,
                                        std::string_view value) {
  DYNLIB_ASSIGN_OR_RETURN(const MapEntry entry, DecodeEntry(key, value));
  if (const auto* table = std::get_if<TableRecord>(&entry)) return map.Upsert(*table);
  DYNLIB_ASSIGN_OR_RETURN(const Upserted result, map.Upsert(std::get<PartitionRecord>(entry)));
  return result.outcome;
}

SyncSession::SyncSession(PartitionMap* map, const SyncSessionOptions& options)
    : map_(map), options_(options), mine_(map->view()->entries()) {
  DYNLIB_CHECK(options.message_bytes_max >= kMessageBytesMin &&
               options.message_bytes_max <= kMessageBytesMax);
  asks_.push_back({.list = mine_.empty()});
}

absl::Status SyncSession::Fail(std::string_view why) {
  done_ = true;
  return absl::DataLossError(Cat("sync reply: ", why));
}

std::optional<SyncRequest> SyncSession::Next() {
  if (done_ || awaiting_) return std::nullopt;
  SyncRequest request{.digest = mine_.digest()};
  AddAsks(request);
  // Only when all is compared: what the peer joins trims records of its own, and so would move them
  // to where we have looked already.
  if (request.asks.empty()) AddEntries(request);
  // Nothing is left to compare or to send, and yet the last reply was of another map than ours: one
  // of the two changed meanwhile.
  done_ = request.entries.empty() && request.asks.empty();
  if (done_) return std::nullopt;
  awaiting_ = true;
  ++counts_.requests;
  return request;
}

void SyncSession::AddEntries(SyncRequest& request) {
  size_t bytes = kSyncHeaderBytesMax;
  while (!sends_.empty() && AddBelow(sends_.back(), request, bytes)) sends_.pop_back();
  counts_.sent += request.entries.size();
}

// False when the message is full before all was added; `send` is then what is left.
bool SyncSession::AddBelow(Send& send, SyncRequest& request, size_t& bytes) {
  bool full = false;
  auto add = [&](std::string_view key, std::string_view value) {
    if (!IsNews(key, value)) return true;
    SyncEntry entry{std::string(key), std::string(value)};
    const size_t size = SyncBytes(entry);
    full = !request.entries.empty() && bytes + size > options_.message_bytes_max;
    if (full) return false;
    bytes += size;
    send.after = entry.key;
    request.entries.push_back(std::move(entry));
    return true;
  };
  if (send.single) {
    add(send.path.bytes, *mine_.Find(send.path.bytes));
    return !full;
  }
  const auto after = send.after.empty() ? std::nullopt : std::make_optional(send.after);
  mine_.ScanSubtree(send.path, after, add);
  return !full;
}

void SyncSession::Queue(Send send) {
  if (send.single && !IsNews(send.path.bytes, *mine_.Find(send.path.bytes))) return;
  sends_.push_back(std::move(send));
}

// Whether an entry still holds for some key, after what was received since the session began.
// Joining it again says so, and cannot change the map: it has been in it.
bool SyncSession::IsNews(std::string_view key, std::string_view value) {
  const absl::StatusOr<UpsertOutcome> outcome = JoinEntry(*map_, key, value);
  return outcome.ok() && *outcome != UpsertOutcome::kStale;
}

// Whether all below a path belongs to a table that is dropped, as far as we know: the peer's
// records of it are not worth fetching, and our tombstone removes them.
bool SyncSession::IsDropped(const PerklePath& path) const {
  const std::optional<TableId> table =
      TableOfPartitionKey(std::string_view(path.bytes).substr(0, path.nibbles / 2));
  if (!table.has_value()) return false;
  const std::optional<TableRecord> record = map_->view()->FindTable(*table);
  return record.has_value() && record->dropped;
}

void SyncSession::AddAsks(SyncRequest& request) {
  size_t bytes = kSyncHeaderBytesMax;
  // What is found so far is sent, and the next session finds the rest.
  if (sends_.size() >= kSendsMax) asks_.clear();
  while (!asks_.empty()) {
    const size_t size = SyncBytes(asks_.back());
    if (!request.asks.empty() && bytes + size > options_.message_bytes_max) break;
    if (!IsDropped(asks_.back().path)) {
      bytes += size;
      request.asks.push_back(std::move(asks_.back()));
    }
    asks_.pop_back();
  }
  asked_ = request.asks;
}

absl::Status SyncSession::OnReply(const SyncReply& reply) {
  if (!awaiting_) return Fail("nothing was asked");
  awaiting_ = false;
  if (counts_.requests >= kRequestsMax) {
    done_ = true;
    return absl::ResourceExhaustedError(Cat("sync: no end after ", kRequestsMax, " requests"));
  }
  // A peer that is where we began has nothing that we have not, and lacks nothing that we had; it
  // answers no asks.
  done_ = reply.digest == mine_.digest();
  if (!done_) DYNLIB_RETURN_IF_ERROR(OnAnswers(reply.answers));
  in_step_ = reply.digest == map_->view()->digest();
  done_ |= in_step_;
  return absl::OkStatus();
}

absl::Status SyncSession::OnAnswers(const std::vector<SyncAnswer>& answers) {
  const std::vector<SyncAsk> asked = std::exchange(asked_, {});
  if (answers.size() > asked.size()) return Fail("more answers than asks");
  if (answers.empty() && !asked.empty()) return Fail("no answer");
  // What was not answered is asked again. What the first answer leads to comes to lie on top, so
  // that all goes on in the order of the keys, nearly: tables before partitions.
  for (size_t i = asked.size(); i > answers.size(); --i) asks_.push_back(asked[i - 1]);
  for (size_t i = answers.size(); i > 0; --i) {
    DYNLIB_RETURN_IF_ERROR(OnAnswer(asked[i - 1], answers[i - 1]));
  }
  return absl::OkStatus();
}

absl::Status SyncSession::OnAnswer(const SyncAsk& ask, const SyncAnswer& answer) {
  if (ask.list != answer.list) return Fail("an answer of the other kind");
  return ask.list ? OnList(ask, answer) : OnBranch(ask, answer);
}

absl::Status SyncSession::OnBranch(const SyncAsk& ask, const SyncAnswer& answer) {
  if (answer.children.empty() && answer.entries.empty()) {
    Queue({.path = ask.path});
    return absl::OkStatus();
  }
  if (!IsBelow(answer.branch, ask.path)) return Fail("a branch of another subtree");
  const bool has_own = !answer.entries.empty();
  if (answer.entries.size() > 1 ||
      (has_own && PerklePath::Prefix(answer.entries[0].key) != answer.branch)) {
    return Fail("an entry of another branch");
  }
  if (has_own && mine_.Find(answer.entries[0].key) != answer.entries[0].value) {
    Receive(answer.entries[0]);
  }
  for (auto child = answer.children.rbegin(); child != answer.children.rend(); ++child) {
    PerklePath path = answer.branch.Child(child->nibble);
    const Perkle::Subtree ours = mine_.Summarize(path);
    if (ours.entries == child->entries && ShortDigest(ours.digest) == child->digest) continue;
    asks_.push_back({std::move(path), BetterListed(child->entries, ours.entries)});
  }
  SendOutside(ask.path, answer);
  return absl::OkStatus();
}

// What we have below the path that was asked about, and outside all that the peer has there. Below
// the peer's children it is found when these are compared.
void SyncSession::SendOutside(const PerklePath& asked, const SyncAnswer& answer) {
  const PerklePath& theirs = answer.branch;
  PerklePath path = asked;
  while (const std::optional<Perkle::Branch> ours = mine_.BranchAt(path)) {
    const uint32_t common = ours->path.CommonWith(theirs);
    if (common == theirs.nibbles && ours->path.nibbles > common) {
      if (!HasChild(answer, ours->path.At(common))) Queue({.path = path});
      return;
    }
    if (common < ours->path.nibbles) {
      Queue({.path = path});
      return;
    }
    const bool level = theirs.nibbles == common;
    const bool shared = level && !answer.entries.empty() && ours->entry.has_value() &&
                        answer.entries[0].value == ours->entry->value;
    if (ours->entry.has_value() && !shared) Queue({.path = ours->path, .single = true});
    for (const Perkle::Subtree& child : ours->children) {
      const uint32_t nibble = child.path.At(common);
      const bool met = level ? HasChild(answer, nibble) : nibble == theirs.At(common);
      if (!met) Queue({.path = child.path});
    }
    if (level) return;
    path = ours->path.Child(theirs.At(common));
  }
}

absl::Status SyncSession::OnList(const SyncAsk& ask, const SyncAnswer& answer) {
  std::string_view previous = ask.after;
  bool first = ask.after.empty();
  for (const SyncEntry& entry : answer.entries) {
    if (!ask.path.Contains(entry.key) || (!first && entry.key <= previous)) {
      return Fail("a list out of order");
    }
    previous = entry.key;
    first = false;
  }
  if (answer.more && answer.entries.empty()) return Fail("an endless list");

  // Both in key order, up to where the list goes.
  auto theirs = answer.entries.begin();
  const auto after = ask.after.empty() ? std::nullopt : std::make_optional(ask.after);
  mine_.ScanSubtree(ask.path, after, [&](std::string_view key, std::string_view value) {
    while (theirs != answer.entries.end() && theirs->key < key) Receive(*theirs++);
    if (theirs == answer.entries.end()) {
      if (!answer.more) Queue({.path = ask.path, .after = std::string(previous)});
      return false;
    }
    const bool both = theirs->key == key;
    if (!both || theirs->value != value) {
      if (both) Receive(*theirs);
      Queue({.path = PerklePath::Prefix(key), .single = true});
    }
    theirs += both;
    return true;
  });
  while (theirs != answer.entries.end()) Receive(*theirs++);
  if (answer.more) asks_.push_back({ask.path, true, answer.entries.back().key});
  return absl::OkStatus();
}

void SyncSession::Receive(const SyncEntry& entry) {
  ++counts_.received;
  const absl::StatusOr<UpsertOutcome> outcome = JoinEntry(*map_, entry.key, entry.value);
  counts_.applied += outcome.ok() && *outcome == UpsertOutcome::kApplied;
  counts_.refused += !outcome.ok();
}

}  // namespace dynlib::partition_map
