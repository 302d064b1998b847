#include "dynlib/partition_map/sync_message.h"

#include "absl/status/status.h"
#include "dynlib/base/coding.h"
#include "dynlib/base/digest_coding.h"

namespace dynlib::partition_map {
namespace {

constexpr uint8_t kFormat = 2;

constexpr size_t kVarintBytesMax = 10;
constexpr size_t kChildBytesMax = 1 + sizeof(uint64_t) + kVarintBytesMax;

// Flags of asks and answers.
constexpr uint8_t kList = 1;
constexpr uint8_t kMore = 2;

void Put(std::string& out, const PerklePath& path) {
  PutVarint(out, path.nibbles);
  out += path.bytes;
}
PerklePath ReadPath(ByteReader& in) {
  PerklePath path;
  const uint64_t nibbles = in.Varint();
  if (nibbles > 2 * Perkle::kKeyBytesMax) in.Fail();
  path.nibbles = static_cast<uint32_t>(nibbles);
  path.bytes = in.Bytes((nibbles + 1) / 2);
  if (in.ok() && !path.valid()) in.Fail();
  return path;
}

void Put(std::string& out, const SyncEntry& entry) {
  PutLengthPrefixed(out, entry.key);
  PutLengthPrefixed(out, entry.value);
}
SyncEntry ReadEntry(ByteReader& in) {
  SyncEntry entry;
  entry.key = in.LengthPrefixed();
  entry.value = in.LengthPrefixed();
  if (entry.key.size() > Perkle::kKeyBytesMax || entry.value.size() > Perkle::kValueBytesMax) {
    in.Fail();
  }
  return entry;
}

void Put(std::string& out, const SyncAsk& ask) {
  PutFixed8(out, ask.list ? kList : 0);
  Put(out, ask.path);
  PutLengthPrefixed(out, ask.after);
}
SyncAsk ReadAsk(ByteReader& in) {
  SyncAsk ask;
  const uint8_t flags = in.Fixed8();
  if (flags > kList) in.Fail();
  ask.list = flags == kList;
  ask.path = ReadPath(in);
  ask.after = in.LengthPrefixed();
  return ask;
}

void Put(std::string& out, const SyncChild& child) {
  PutFixed8(out, child.nibble);
  PutFixed64(out, child.digest);
  PutVarint(out, child.entries);
}
SyncChild ReadChild(ByteReader& in) {
  SyncChild child;
  child.nibble = in.Fixed8();
  if (child.nibble > 15) in.Fail();
  child.digest = in.Fixed64();
  child.entries = in.Varint();
  return child;
}

void Put(std::string& out, const SyncAnswer& answer);

template <typename Part>
void PutAll(std::string& out, const std::vector<Part>& parts) {
  PutVarint(out, parts.size());
  for (const Part& part : parts) Put(out, part);
}
// Every part takes bytes, so a count that lies runs out of them.
template <typename Part>
void ReadAll(ByteReader& in, std::vector<Part>& parts, Part (*read)(ByteReader&)) {
  const uint64_t count = in.Varint();
  for (uint64_t i = 0; i < count && in.ok(); ++i) parts.push_back(read(in));
}

void Put(std::string& out, const SyncAnswer& answer) {
  PutFixed8(out, static_cast<uint8_t>((answer.list ? kList : 0) | (answer.more ? kMore : 0)));
  PutAll(out, answer.entries);
  if (answer.list) return;
  Put(out, answer.branch);
  PutAll(out, answer.children);
}
SyncAnswer ReadAnswer(ByteReader& in) {
  SyncAnswer answer;
  const uint8_t flags = in.Fixed8();
  answer.list = (flags & kList) != 0;
  answer.more = (flags & kMore) != 0;
  if (flags > (kList | kMore) || (answer.more && !answer.list)) in.Fail();
  ReadAll(in, answer.entries, ReadEntry);
  if (answer.list) return answer;
  answer.branch = ReadPath(in);
  ReadAll(in, answer.children, ReadChild);
  for (size_t i = 1; i < answer.children.size(); ++i) {
    if (answer.children[i - 1].nibble >= answer.children[i].nibble) in.Fail();
  }
  return answer;
}

}  // namespace

size_t SyncBytes(const SyncEntry& entry) {
  return entry.key.size() + entry.value.size() + 2 * kVarintBytesMax;
}

size_t SyncBytes(const SyncAsk& ask) {
  return 1 + ask.path.bytes.size() + ask.after.size() + 2 * kVarintBytesMax;
}

size_t SyncBytes(const SyncAnswer& answer) {
  size_t bytes = 1 + 3 * kVarintBytesMax + answer.branch.bytes.size() +
                 answer.children.size() * kChildBytesMax;
  for (const SyncEntry& entry : answer.entries) bytes += SyncBytes(entry);
  return bytes;
}

std::string Encode(const SyncRequest& request) {
  std::string out;
  PutFixed8(out, kFormat);
  PutDigest(out, request.digest);
  PutAll(out, request.entries);
  PutAll(out, request.asks);
  return out;
}

std::string Encode(const SyncReply& reply) {
  std::string out;
  PutFixed8(out, kFormat);
  PutDigest(out, reply.digest);
  PutAll(out, reply.answers);
  return out;
}

absl::StatusOr<SyncRequest> DecodeSyncRequest(std::string_view bytes) {
  ByteReader in(bytes);
  SyncRequest request;
  if (in.Fixed8() != kFormat) in.Fail();
  request.digest = ReadDigest(in);
  ReadAll(in, request.entries, ReadEntry);
  ReadAll(in, request.asks, ReadAsk);
  if (!in.done()) return absl::DataLossError("sync request is malformed");
  return request;
}

absl::StatusOr<SyncReply> DecodeSyncReply(std::string_view bytes) {
  ByteReader in(bytes);
  SyncReply reply;
  if (in.Fixed8() != kFormat) in.Fail();
  reply.digest = ReadDigest(in);
  ReadAll(in, reply.answers, ReadAnswer);
  if (!in.done()) return absl::DataLossError("sync reply is malformed");
  return reply;
}

}  // namespace dynlib::partition_map
