#include "dynlib/scrub/range_digester.h"

#include <algorithm>
#include <array>
#include <utility>

#include "dynlib/base/strings.h"

namespace dynlib::scrub {
namespace {

constexpr size_t kBoundariesMax = 100'000;

template <size_t kCount>
Digest128 DigestOf(const std::array<Digest128, kCount>& digests) {
  static_assert(sizeof(digests) == kCount * 16);
  return Digest({reinterpret_cast<const char*>(digests.data()), sizeof(digests)});
}

// One scan, cut into parts.
class PartWriter {
 public:
  PartWriter(std::string_view first, Answer* answer) : begin_(first), answer_(answer) {}

  void Add(std::string_view key, std::string_view value) {
    part_.digest = DigestOf<3>({part_.digest, Digest(key), Digest(value)});
    ++part_.items;
    part_.bytes += key.size() + value.size();
    answer_->bytes_read += key.size() + value.size();
    last_ = key;
  }
  bool empty() const { return part_.items == 0; }
  const Part& part() const { return part_; }
  // Where reading stands: behind the last item.
  std::string Position() const { return empty() ? begin_ : After(last_); }
  void Close(std::string end) {
    part_.end = std::move(end);
    begin_ = part_.end;
    answer_->parts.push_back(std::exchange(part_, Part{}));
  }
  void CloseUnreadable(std::string end) {
    part_ = Part{.unreadable = true};
    Close(std::move(end));
  }

 private:
  std::string begin_;
  std::string last_;
  Part part_;
  Answer* const answer_;
};

// What of a request's range cannot be read, after a loss behind `position`.
UnreadableRange Lost(const ScanEnd& scan_end, const std::string& position, const std::string& end) {
  UnreadableRange lost{position, end, /*exact=*/false};
  if (!scan_end.unreadable.has_value()) return lost;
  const KeyRange& known = *scan_end.unreadable;
  const std::string& first = std::max(known.first, position);
  // A scan that names a range where it has not been names nothing.
  if (!IsBefore(first, EarlierEnd(known.end, end))) return lost;
  return {first, std::string(EarlierEnd(known.end, end)), /*exact=*/true};
}

// A position, behind an item, that is the end of the range.
bool AtEnd(const std::string& position, const std::string& end) {
  return !end.empty() && position == end;
}

bool Failed(const absl::Status& status) { return !status.ok() && !absl::IsDataLoss(status); }

absl::Status Split(const Request& request, Scanner scan, Answer* answer) {
  PartWriter writer(request.first, answer);
  std::string from = request.first;
  for (;;) {
    bool full = false;
    const ScanEnd scan_end =
        scan(from, request.end, [&](std::string_view key, std::string_view value) {
          writer.Add(key, value);
          full = answer->bytes_read >= request.bytes_max;
          if (!full && (writer.part().items >= request.part_items ||
                        writer.part().bytes >= request.part_bytes)) {
            writer.Close(After(key));
            full = answer->parts.size() >= request.parts_max;
          }
          return !full;
        });
    if (Failed(scan_end.status)) return scan_end.status;
    const std::string position = writer.Position();
    if (scan_end.status.ok() && !full && !AtEnd(position, request.end)) {
      writer.Close(request.end);
      return absl::OkStatus();
    }
    if (scan_end.status.ok() || AtEnd(position, request.end)) {
      if (!writer.empty()) writer.Close(position);
      return absl::OkStatus();
    }
    const UnreadableRange lost = Lost(scan_end, position, request.end);
    if (!writer.empty() || lost.first > position) writer.Close(lost.first);
    writer.CloseUnreadable(lost.end);
    from = lost.end;
    if (from == request.end || answer->parts.size() >= request.parts_max) return absl::OkStatus();
  }
}

absl::Status Exact(const Request& request, Scanner scan, Answer* answer) {
  PartWriter writer(request.first, answer);
  std::string from = request.first;
  for (size_t i = 0; i <= request.boundaries.size(); ++i) {
    const std::string& end = i < request.boundaries.size() ? request.boundaries[i] : request.end;
    bool full = false;
    const ScanEnd scan_end = scan(from, end, [&](std::string_view key, std::string_view value) {
      writer.Add(key, value);
      full = answer->bytes_read >= request.bytes_max;
      return !full;
    });
    if (Failed(scan_end.status)) return scan_end.status;
    if (!scan_end.status.ok()) {
      writer.CloseUnreadable(end);
    } else if (full && EndBefore(writer.Position(), end)) {
      writer.Close(writer.Position());
      return absl::OkStatus();
    } else {
      writer.Close(end);
      if (full) return absl::OkStatus();
    }
    from = end;
  }
  return absl::OkStatus();
}

absl::Status List(const Request& request, Scanner scan, Answer* answer) {
  std::string from = request.first;
  for (;;) {
    bool full = false;
    std::string position = from;
    const ScanEnd scan_end =
        scan(from, request.end, [&](std::string_view key, std::string_view value) {
          const uint64_t bytes = key.size() + value.size();
          answer->items.push_back({std::string(key), DigestItem(key, value), bytes});
          answer->bytes_read += bytes;
          position = After(key);
          full =
              answer->bytes_read >= request.bytes_max || answer->items.size() >= request.items_max;
          return !full;
        });
    if (Failed(scan_end.status)) return scan_end.status;
    if (scan_end.status.ok()) {
      answer->end = full ? std::string(EarlierEnd(position, request.end)) : request.end;
      return absl::OkStatus();
    }
    from = request.end;
    if (!AtEnd(position, request.end)) {
      answer->unreadable.push_back(Lost(scan_end, position, request.end));
      from = answer->unreadable.back().end;
    }
    if (from == request.end || answer->unreadable.size() >= request.items_max) {
      answer->end = from;
      return absl::OkStatus();
    }
  }
}

absl::Status Check(const Request& request) {
  std::string_view before = request.first;
  for (const std::string& boundary : request.boundaries) {
    if (boundary <= before || !IsBefore(boundary, request.end))
      return absl::InvalidArgumentError("scrub request: boundaries are not increasing within it");
    before = boundary;
  }
  if (!IsBefore(request.first, request.end))
    return absl::InvalidArgumentError("scrub request: its range is empty");
  if (request.boundaries.size() > kBoundariesMax) {
    return absl::InvalidArgumentError(Cat("scrub request: ", request.boundaries.size(),
                                          " boundaries; allowed: up to ", kBoundariesMax));
  }
  const bool limits = request.bytes_max > 0 &&
                      (request.kind != RequestKind::kItems || request.items_max > 0) &&
                      (request.kind != RequestKind::kSplit ||
                       (request.part_items > 0 && request.part_bytes > 0 && request.parts_max > 0));
  if (!limits) return absl::InvalidArgumentError("scrub request: a limit is 0");
  return absl::OkStatus();
}

}  // namespace

Digest128 DigestItem(std::string_view key, std::string_view value) {
  return DigestOf<2>({Digest(key), Digest(value)});
}

absl::StatusOr<Answer> RangeDigester::Digest(const Request& request, Scanner scan) const {
  if (absl::Status status = Check(request); !status.ok()) return status;
  Request bounded = request;
  bounded.bytes_max = std::min(request.bytes_max, limits_.bytes_max);
  bounded.parts_max = std::min(request.parts_max, limits_.parts_max);
  bounded.items_max = std::min(request.items_max, limits_.items_max);
  Answer answer;
  absl::Status status;
  switch (request.kind) {
    case RequestKind::kSplit:
      status = Split(bounded, scan, &answer);
      break;
    case RequestKind::kExact:
      status = Exact(bounded, scan, &answer);
      break;
    case RequestKind::kItems:
      status = List(bounded, scan, &answer);
      break;
    default:
      status = absl::InvalidArgumentError(
          Cat("scrub request: kind is ", request.kind, "; allowed: 1 to 3"));
  }
  if (!status.ok()) return status;
  if (request.kind != RequestKind::kItems) answer.end = answer.parts.back().end;
  return answer;
}

}  // namespace dynlib::scrub
