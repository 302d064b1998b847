#include "dynlib/cluster/scrub_scan.h"

#include <algorithm>
#include <cstdint>

#include "dynlib/base/strings.h"
#include "dynlib/cluster/table_state_machine.h"
#include "dynlib/store/node.h"

namespace dynlib::cluster {
namespace {

constexpr size_t kDamageBytesMax = 4096;
constexpr uint64_t kReadBytesMax = 4 << 20;

}  // namespace

std::string ToStorageKey(std::string_view tree_key) {
  return std::string(tree_key < TableStateMachine::FirstItemKey() ? "" : tree_key.substr(1));
}

std::string ToStorageEnd(std::string_view tree_key) {
  if (tree_key.empty() || tree_key >= TableStateMachine::EndOfItemKeys()) return "";
  return ToStorageKey(tree_key);
}

std::string ToTreeEnd(std::string_view storage_end) {
  return storage_end.empty() ? TableStateMachine::EndOfItemKeys()
                             : TableStateMachine::ItemKey(storage_end);
}

scrub::ScanEnd ScanItems(const store::Snapshot& version, std::string_view first,
                         std::string_view end, scrub::Visitor visit, std::string* damage) {
  scrub::ScanEnd result;
  const absl::Status status = version.ScanReadable(
      TableStateMachine::ItemKey(first), ToTreeEnd(end),
      [&](std::string_view key, std::string_view value) { return visit(key.substr(1), value); },
      [&](std::string_view from, std::string_view to, const absl::Status& why) {
        result.status = why;
        result.unreadable = scrub::KeyRange{ToStorageKey(from), ToStorageEnd(to)};
        if (damage->size() < kDamageBytesMax && damage->find(ToStd(why.message())) == damage->npos)
          *damage += Cat(damage->empty() ? "" : "; ", ToStd(why.message()));
        return false;
      },
      store::ReadMode::kFromDisk);
  if (!status.ok()) result = {.status = status, .unreadable = {}};
  return result;
}

absl::Status ReadItems(const store::Snapshot& version, const wire::ScrubReadRequest& request,
                       wire::ScrubReadReply& reply) {
  const uint64_t bytes_max = std::clamp<uint64_t>(request.bytes_max(), 1, kReadBytesMax);
  uint64_t bytes = 0;
  for (int i = 0; i < request.ranges_size(); ++i) {
    const wire::KeyRange& range = request.ranges(i);
    bool full = false;
    const absl::Status status = version.Scan(
        TableStateMachine::ItemKey(range.first()), ToTreeEnd(range.end()),
        store::ScanOrder::kForward,
        [&](std::string_view key, std::string_view value) {
          full = bytes >= bytes_max;
          if (full) {
            reply.set_next_range(static_cast<uint64_t>(i));
            reply.set_next_first(std::string(key.substr(1)));
            return false;
          }
          wire::ScrubReadReply::Row& row = *reply.add_rows();
          row.set_key(key.data() + 1, key.size() - 1);
          row.set_item(value.data(), value.size());
          bytes += key.size() + value.size();
          return true;
        },
        store::ReadMode::kFromDisk);
    if (!status.ok()) {
      reply.Clear();
      return status;
    }
    if (full) return absl::OkStatus();
  }
  reply.set_done(true);
  return absl::OkStatus();
}

}  // namespace dynlib::cluster
