#include "dynlib/cluster/scrub_codec.h"

#include "dynlib/base/coding.h"
#include "dynlib/base/digest_coding.h"
#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"

namespace dynlib::cluster {

std::string EncodeDigest(const Digest128& digest) {
  std::string bytes;
  PutDigest(bytes, digest);
  return bytes;
}

absl::StatusOr<Digest128> DecodeDigest(std::string_view bytes) {
  if (bytes.size() != 16) {
    return absl::InvalidArgumentError(Cat("a digest of ", bytes.size(), " bytes; allowed: 16"));
  }
  ByteReader in(bytes);
  return ReadDigest(in);
}

void ToWire(const scrub::Request& request, wire::ScrubQuery& to) {
  to.set_kind(static_cast<uint32_t>(request.kind));
  to.set_first(request.first);
  to.set_end(request.end);
  for (const std::string& boundary : request.boundaries) to.add_boundaries(boundary);
  to.set_part_items(request.part_items);
  to.set_part_bytes(request.part_bytes);
  to.set_parts_max(request.parts_max);
  to.set_bytes_max(request.bytes_max);
  to.set_items_max(request.items_max);
}

scrub::Request FromWire(const wire::ScrubQuery& query) {
  scrub::Request request;
  // 0 is no kind: the digester refuses it.
  request.kind = static_cast<scrub::RequestKind>(query.kind() > 255 ? 0 : query.kind());
  request.first = query.first();
  request.end = query.end();
  for (const std::string& boundary : query.boundaries()) request.boundaries.push_back(boundary);
  request.part_items = query.part_items();
  request.part_bytes = query.part_bytes();
  request.parts_max = query.parts_max();
  request.bytes_max = query.bytes_max();
  request.items_max = query.items_max();
  return request;
}

void ToWire(const scrub::Answer& answer, wire::ScrubAnswer& to) {
  for (const scrub::Part& part : answer.parts) {
    wire::ScrubAnswer::Part& out = *to.add_parts();
    out.set_end(part.end);
    out.set_unreadable(part.unreadable);
    out.set_digest(EncodeDigest(part.digest));
    out.set_items(part.items);
    out.set_bytes(part.bytes);
  }
  for (const scrub::ItemDigest& item : answer.items) {
    wire::ScrubAnswer::Item& out = *to.add_items();
    out.set_key(item.key);
    out.set_digest(EncodeDigest(item.digest));
    out.set_bytes(item.bytes);
  }
  for (const scrub::UnreadableRange& range : answer.unreadable) {
    wire::ScrubAnswer::Unreadable& out = *to.add_unreadable();
    out.set_first(range.first);
    out.set_end(range.end);
    out.set_exact(range.exact);
  }
  to.set_end(answer.end);
  to.set_bytes_read(answer.bytes_read);
}

absl::StatusOr<scrub::Answer> FromWire(const wire::ScrubAnswer& answer) {
  scrub::Answer out;
  for (const wire::ScrubAnswer::Part& part : answer.parts()) {
    DYNLIB_ASSIGN_OR_RETURN(const Digest128 digest, DecodeDigest(part.digest()));
    out.parts.push_back({part.end(), part.unreadable(), digest, part.items(), part.bytes()});
  }
  for (const wire::ScrubAnswer::Item& item : answer.items()) {
    DYNLIB_ASSIGN_OR_RETURN(const Digest128 digest, DecodeDigest(item.digest()));
    out.items.push_back({item.key(), digest, item.bytes()});
  }
  for (const wire::ScrubAnswer::Unreadable& range : answer.unreadable())
    out.unreadable.push_back({range.first(), range.end(), range.exact()});
  out.end = answer.end();
  out.bytes_read = answer.bytes_read();
  return out;
}

}  // namespace dynlib::cluster
