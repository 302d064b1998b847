#include "dynlib/cluster/tree_repair.h"

#include <algorithm>
#include <utility>

#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"
#include "dynlib/cluster/scrub_codec.h"
#include "dynlib/cluster/scrub_scan.h"
#include "dynlib/cluster/table_state_machine.h"
#include "dynlib/scrub/range_digester.h"
#include "dynlib/store/node.h"

namespace dynlib::cluster {
namespace {

using scrub::KeyRange;
using store::ReadMode;
using store::Snapshot;

bool Holds(const KeyRange& range, std::string_view key) {
  return key >= range.first && scrub::IsBefore(key, range.end);
}

std::string_view Later(std::string_view a, std::string_view b) {
  return scrub::EndBefore(a, b) ? b : a;
}

}  // namespace

absl::StatusOr<TreeRepair> TreeRepair::Make(const wire::RepairRequest& request, Snapshot version) {
  TreeRepair repair;
  repair.scrub_ = request.scrub();
  repair.version_ = std::move(version);
  for (const wire::RepairRequest::Item& item : request.items()) {
    std::optional<Digest128>& digest = repair.items_[TableStateMachine::ItemKey(item.key())];
    if (item.digest().empty()) continue;
    DYNLIB_ASSIGN_OR_RETURN(digest, DecodeDigest(item.digest()));
  }
  for (const wire::KeyRange& range : request.ranges()) {
    if (!scrub::IsBefore(range.first(), range.end()))
      return absl::InvalidArgumentError("a range to be repaired is empty");
    repair.ranges_.push_back({TableStateMachine::ItemKey(range.first()), ToTreeEnd(range.end())});
  }
  return repair;
}

bool TreeRepair::IsOnPage(std::string_view tree_key) const {
  return std::any_of(pages_.begin(), pages_.end(),
                     [&](const KeyRange& page) { return Holds(page, tree_key); });
}

absl::Status TreeRepair::Examine() {
  auto examine = [&](const std::string& key) -> absl::StatusOr<std::string> {
    DYNLIB_ASSIGN_OR_RETURN(std::optional<Snapshot::Unreadable> damage,
                            version_.FindDamage(key, ReadMode::kFromDisk));
    if (!damage.has_value()) return scrub::After(key);
    pages_.push_back({std::move(damage->first), damage->end});
    return std::move(damage->end);
  };
  for (const auto& [key, digest] : items_) {
    const bool known = IsOnPage(key);
    if (!known) DYNLIB_RETURN_IF_ERROR(examine(key).status());
  }
  for (const KeyRange& range : ranges_) {
    // The whole of it is damaged: by one page, or some in a row.
    std::string next = range.first;
    for (size_t before = SIZE_MAX; pages_.size() != before && scrub::IsBefore(next, range.end);) {
      before = pages_.size();
      DYNLIB_ASSIGN_OR_RETURN(next, examine(next));
      if (next.empty()) break;
    }
  }
  std::sort(pages_.begin(), pages_.end(),
            [](const KeyRange& a, const KeyRange& b) { return a.first < b.first; });
  pages_.erase(std::unique(pages_.begin(), pages_.end(),
                           [](const KeyRange& a, const KeyRange& b) { return a.first == b.first; }),
               pages_.end());
  for (const KeyRange& page : pages_) {
    const KeyRange items{ToStorageKey(page.first), ToStorageEnd(page.end)};
    if (scrub::IsBefore(items.first, items.end)) wanted_.push_back(items);
  }
  for (const auto& [key, digest] : items_) {
    const bool known = IsOnPage(key);
    const std::string storage_key = ToStorageKey(key);
    if (!known) wanted_.push_back({storage_key, scrub::After(storage_key)});
  }
  std::sort(wanted_.begin(), wanted_.end(),
            [](const KeyRange& a, const KeyRange& b) { return a.first < b.first; });
  return absl::OkStatus();
}

absl::Status TreeRepair::AddRow(std::string key, std::string item) {
  bytes_ += key.size() + item.size();
  if (bytes_ > kRowBytesMax) {
    return absl::ResourceExhaustedError(
        Cat("a repair of more than ", kRowBytesMax, " bytes of items"));
  }
  right_[TableStateMachine::ItemKey(key)] = std::move(item);
  return absl::OkStatus();
}

// The copy that is taken over must be the one that was found to be good.
absl::Status TreeRepair::CheckRows() const {
  for (const auto& [key, digest] : items_) {
    const auto row = right_.find(key);
    const bool as_agreed =
        digest.has_value()
            ? row != right_.end() &&
                  scrub::DigestItem(std::string_view(key).substr(1), row->second) == *digest
            : row == right_.end();
    if (!as_agreed) {
      return absl::DataLossError(
          Cat("the copy of ", Escape(std::string_view(key).substr(1)),
              " that the repair was to take is not the one that was found good"));
    }
  }
  return absl::OkStatus();
}

TreeRepair::Outcome TreeRepair::Apply(store::Tree& tree, const ScrubPins& pins) {
  Outcome outcome;
  outcome.status = CheckRows();
  if (!outcome.status.ok()) return outcome;
  for (const KeyRange& page : pages_) {
    outcome.status = RepairPage(page, tree, pins, outcome);
    if (!outcome.status.ok() || outcome.rebuild) return outcome;
  }
  store::WriteBatch batch;
  for (const auto& [key, digest] : items_) {
    if (pins.WasWritten(scrub_, key)) {
      ++outcome.changed;
      continue;
    }
    ++outcome.repaired;
    const bool in_page = IsOnPage(key);
    if (in_page) continue;
    if (const auto row = right_.find(key); row != right_.end()) {
      batch.Put(key, row->second);
    } else {
      batch.Delete(key);
    }
  }
  outcome.repaired += ranges_.size();
  outcome.status = tree.Apply(batch, tree.position());
  if (absl::IsDataLoss(outcome.status)) outcome.rebuild = true;
  return outcome;
}

// Of keys in `range` that the log has not written since the marker.
void TreeRepair::TakeRight(const KeyRange& range, const ScrubPins& pins, Rows& rows) const {
  for (auto row = rows.lower_bound(range.first);
       row != rows.end() && scrub::IsBefore(row->first, range.end);) {
    const bool item = row->first >= TableStateMachine::FirstItemKey();
    const bool wrong = item && !right_.contains(row->first) && !pins.WasWritten(scrub_, row->first);
    row = wrong ? rows.erase(row) : std::next(row);
  }
  for (auto row = right_.lower_bound(range.first);
       row != right_.end() && scrub::IsBefore(row->first, range.end); ++row) {
    if (!pins.WasWritten(scrub_, row->first)) rows[row->first] = row->second;
  }
}

absl::Status TreeRepair::RepairPage(const KeyRange& page, store::Tree& tree, const ScrubPins& pins,
                                    Outcome& outcome) const {
  const Snapshot now = tree.snapshot();
  KeyRange replaced = page;
  Rows rows;
  uint64_t bytes = 0;
  std::optional<std::string> lost;  // the first key of a page that memory does not have either
  for (std::string from = page.first; scrub::IsBefore(from, page.end);) {
    lost.reset();
    DYNLIB_RETURN_IF_ERROR(now.ScanReadable(
        from, page.end,
        [&](std::string_view key, std::string_view value) {
          bytes += key.size() + value.size();
          rows.emplace(key, value);
          return bytes <= kRowBytesMax;
        },
        [&](std::string_view first, std::string_view, const absl::Status&) {
          lost = std::string(first);
          return false;
        },
        ReadMode::kMayBlock));
    outcome.rebuild = bytes > kRowBytesMax;
    if (outcome.rebuild) return absl::OkStatus();
    if (!lost.has_value()) break;
    DYNLIB_ASSIGN_OR_RETURN(std::optional<Snapshot::Unreadable> damage,
                            now.FindDamage(*lost, ReadMode::kMayBlock));
    if (!damage.has_value()) return absl::UnavailableError("a page is damaged by turns");
    // What is more than items can be had from nobody.
    outcome.rebuild = damage->first < TableStateMachine::FirstItemKey();
    if (outcome.rebuild) return absl::OkStatus();
    replaced.first = std::min(replaced.first, damage->first);
    replaced.end = Later(replaced.end, damage->end);
    if (damage->end.empty()) break;
    from = damage->end;
  }
  TakeRight(page, pins, rows);
  store::WriteBatch batch;
  for (auto& [key, value] : rows) batch.Put(key, std::move(value));
  const absl::Status status = tree.Replace(replaced.first, replaced.end, batch, tree.position());
  outcome.rebuild = absl::IsDataLoss(status);
  return outcome.rebuild ? absl::OkStatus() : status;
}

bool TreeRepair::MetadataIsDamaged(const Snapshot& version) {
  auto none = [](std::string_view, std::string_view) { return true; };
  return absl::IsDataLoss(version.Scan("", TableStateMachine::FirstItemKey(),
                                       store::ScanOrder::kForward, none, ReadMode::kFromDisk));
}

absl::Status TreeRepair::RepairMetadata(store::Tree& tree) {
  const std::string end = TableStateMachine::FirstItemKey();
  store::WriteBatch rows;
  DYNLIB_RETURN_IF_ERROR(tree.snapshot().Scan("", end, store::ScanOrder::kForward,
                                              [&](std::string_view key, std::string_view value) {
                                                rows.Put(std::string(key), std::string(value));
                                                return true;
                                              }));
  return tree.Replace("", end, rows, tree.position());
}

}  // namespace dynlib::cluster
