// Whether what a write demands holds: against the trees, and what is before it in its group.

#include "dynlib/base/checksum.h"
#include "dynlib/base/ids.h"
#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"
#include "dynlib/store/store_impl.h"

namespace dynlib::store {
namespace {

using Condition = StoreBatch::Condition;

// A power of two; two keys share a slot once in 65,536 writes that came since.
constexpr size_t kRecentSlots = 1 << 16;

// What the batches before it in the group make of a key: nothing, when they leave it alone.
std::optional<std::optional<std::string>> After(const WriteBatch& batch, std::string_view key) {
  for (auto at = batch.operations().rbegin(); at != batch.operations().rend(); ++at) {
    if (!at->Covers(key)) continue;
    if (!at->value.has_value()) return std::optional<std::string>();
    return std::optional<std::string>(*at->value);
  }
  return std::nullopt;
}

std::string Describe(const std::optional<std::string>& value) {
  return value.has_value() ? Cat("is ", Escape(*value)) : "is absent";
}

}  // namespace

absl::Status Store::Impl::CheckConditions(const Group& group, size_t index) {
  Request& request = *group.requests[index];
  const std::vector<Condition>& conditions = request.batch.conditions();
  for (size_t i = 0; i < conditions.size(); ++i) {
    DYNLIB_ASSIGN_OR_RETURN(const std::string why, WhyNot(group, index, conditions[i]));
    if (why.empty()) continue;
    request.result.failed_condition = i;
    return absl::FailedPreconditionError(
        Cat("condition ", i, " does not hold: key ", Escape(conditions[i].key), " ", why));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> Store::Impl::WhyNot(const Group& group, size_t index,
                                                const Condition& condition) {
  if (condition.kind == Condition::Kind::kNotWrittenSince) {
    const uint64_t last = LastWriteOf(condition);
    if (last <= condition.sequence) return std::string();
    return Cat("may have been written since ", condition.sequence, ", at ", last);
  }
  DYNLIB_ASSIGN_OR_RETURN(const std::optional<std::string> value,
                          ValueBefore(group, index, condition));
  switch (condition.kind) {
    case Condition::Kind::kAbsent:
      return value.has_value() ? Describe(value) : std::string();
    case Condition::Kind::kPresent:
      return value.has_value() ? std::string() : Describe(value);
    default:
      if (value == condition.value) return std::string();
      return Cat(Describe(value), ", not ", Escape(condition.value));
  }
}

absl::StatusOr<std::optional<std::string>> Store::Impl::ValueBefore(const Group& group,
                                                                    size_t index,
                                                                    const Condition& condition) {
  for (size_t i = index; i-- > 0;) {
    const Request& earlier = *group.requests[i];
    if (earlier.result.sequence == 0) continue;
    const std::vector<StoreBatch::Part>& parts = earlier.batch.parts();
    for (auto part = parts.rbegin(); part != parts.rend(); ++part) {
      if (part->tree != condition.tree) continue;
      if (auto value = After(part->batch, condition.key)) return *std::move(value);
    }
  }
  const Tree* tree = TreeOf(condition.tree);
  if (tree == nullptr) {
    return absl::FailedPreconditionError(
        Cat("tree ", Escape(condition.tree.name()), " was dropped"));
  }
  return tree->Get(condition.key);
}

size_t Store::Impl::RecentSlot(const NamedTree& tree, std::string_view key) {
  const uint64_t seed = tree.is_default() ? ToUint(kDefaultTree) : ToUint(tree.entry_->id);
  return Checksum(key, seed) % kRecentSlots;
}

uint64_t Store::Impl::LastWriteOf(const Condition& condition) {
  if (recent_.empty()) recent_.assign(kRecentSlots, last_sequence_);
  return recent_[RecentSlot(condition.tree, condition.key)];
}

void Store::Impl::NoteWritten(const Request& request) {
  for (const StoreBatch::Part& part : request.batch.parts()) {
    for (const WriteBatch::Operation& operation : part.batch.operations()) {
      if (operation.range_end.has_value()) {  // of any key, for all that the slots can tell
        recent_.assign(kRecentSlots, request.result.sequence);
      } else {
        recent_[RecentSlot(part.tree, operation.key)] = request.result.sequence;
      }
    }
  }
}

}  // namespace dynlib::store
