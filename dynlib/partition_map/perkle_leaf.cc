#include "dynlib/partition_map/perkle_leaf.h"

#include "dynlib/base/check.h"

namespace dynlib::partition_map::internal {
namespace {

// Fewer make searches shorter and leaves larger: at 6, a floor in 10 M entries takes 0.5 bytes an
// entry for its restarts.
constexpr size_t kRunEntries = 6;

char* WriteVarint(char* to, uint64_t value) {
  for (; value >= 128; value >>= 7) *to++ = static_cast<char>(value | 128);
  *to++ = static_cast<char>(value);
  return to;
}

uint32_t ReadVarint(const char*& at) {
  uint32_t value = 0;
  for (uint32_t shift = 0;; shift += 7) {
    const auto byte = static_cast<uint8_t>(*at++);
    value |= (byte & 127u) << shift;
    if (byte < 128) return value;
  }
}

char* WriteBytes(char* to, std::string_view bytes) {
  return std::copy(bytes.begin(), bytes.end(), to);
}

}  // namespace

LeafEncoder::LeafEncoder(std::span<const LeafItem> items) : items_(items) {
  DYNLIB_CHECK(!items.empty() && items.size() <= kLeafItemsMax);
  PlanKeys();
  PlanValues();
}

void LeafEncoder::PlanKeys() {
  prefix_ = CommonBytes(items_.front().key, items_.back().key);
  size_t run = 0;
  uint32_t previous_head = 0;
  for (size_t i = 0; i < items_.size(); ++i, ++run) {
    const std::string_view key = items_[i].key;
    const uint32_t head = LeafHead(key.substr(prefix_));
    const bool restart = run >= kRunEntries && head != previous_head;
    if (restart) {
      run = 0;
      ++restarts_;
    }
    const size_t shared = i == 0 || restart ? prefix_ : CommonBytes(items_[i - 1].key, key);
    plans_[i].restart = restart;
    plans_[i].added = static_cast<uint16_t>(key.size() - shared);
    previous_head = head;
  }
}

void LeafEncoder::PlanValues() {
  size_ = LeafBlock::kHeaderBytes + 6 * restarts_ + prefix_;
  for (size_t i = 0; i < items_.size(); ++i) {
    Plan& plan = plans_[i];
    const std::string_view value = items_[i].value;
    std::string_view rest;
    if (i + 1 < items_.size()) {
      const std::string_view key = items_[i + 1].key;
      rest = key.substr(key.size() - plans_[i + 1].added);
    }
    plan.continues = !rest.empty() && value.ends_with(rest);
    plan.head_size = static_cast<uint16_t>(value.size() - (plan.continues ? rest.size() : 0));
    const size_t shared = items_[i].key.size() - plan.added - prefix_;
    size_ +=
        LeafBlock::SizesBytes(shared, plan.added, plan.head_size) + plan.added + plan.head_size;
  }
}

void LeafEncoder::Write(char* to) const {
  StoreFixed(to, static_cast<uint16_t>(prefix_));
  StoreFixed(to + 2, static_cast<uint16_t>(restarts_));
  char* head = to + LeafBlock::kHeaderBytes;
  char* offset = head + 4 * restarts_;
  to = WriteBytes(offset + 2 * restarts_, items_[0].key.substr(0, prefix_));
  const char* entries = to;
  for (size_t i = 0; i < items_.size(); ++i) {
    const auto& [key, value] = items_[i];
    const Plan& plan = plans_[i];
    if (plan.restart) {
      StoreFixed(head, LeafHead(key.substr(prefix_)));
      StoreFixed(offset, static_cast<uint16_t>(to - entries));
      head += 4;
      offset += 2;
    }
    const size_t shared = key.size() - plan.added - prefix_;
    to = LeafBlock::WriteSizes(to, shared, plan.continues, plan.added, plan.head_size);
    to = WriteBytes(to, key.substr(key.size() - plan.added));
    to = WriteBytes(to, value.substr(0, plan.head_size));
  }
}

size_t LeafBlock::SizesBytes(size_t shared, size_t added, size_t head_size) {
  size_t bytes = 3;
  if (shared >= kSharedMax) bytes += VarintLength(shared - kSharedMax);
  if (added >= kSizeMax) bytes += VarintLength(added - kSizeMax);
  if (head_size >= kSizeMax) bytes += VarintLength(head_size - kSizeMax);
  return bytes;
}

char* LeafBlock::WriteSizes(char* to, size_t shared, bool continues, size_t added,
                            size_t head_size) {
  *to++ = static_cast<char>(std::min<size_t>(shared, kSharedMax) | (continues ? kContinues : 0));
  *to++ = static_cast<char>(std::min<size_t>(added, kSizeMax));
  *to++ = static_cast<char>(std::min<size_t>(head_size, kSizeMax));
  if (shared >= kSharedMax) to = WriteVarint(to, shared - kSharedMax);
  if (added >= kSizeMax) to = WriteVarint(to, added - kSizeMax);
  if (head_size >= kSizeMax) to = WriteVarint(to, head_size - kSizeMax);
  return to;
}

const char* LeafBlock::ReadLongSizes(const char* at, uint32_t& shared, uint32_t& added,
                                     uint32_t& head_size) {
  if (shared == kSharedMax) shared += ReadVarint(at);
  if (added == kSizeMax) added += ReadVarint(at);
  if (head_size == kSizeMax) head_size += ReadVarint(at);
  return at;
}

const char* LeafBlock::RunBefore(const char* at) const {
  size_t run = restarts_;
  while (RunAt(run) >= at) --run;
  return RunAt(run);
}

LeafSlot LeafBlock::LastBefore(const char* end) const {
  LeafSlot slot = ReadSlot(RunBefore(end));
  while (slot.next() != end) slot = ReadSlot(slot.next());
  return slot;
}

bool LeafBlock::Previous(const LeafSlot& slot, LeafSlot& previous) const {
  if (slot.at == entries_) return false;
  previous = LastBefore(slot.at);
  return true;
}

LeafBlock::Run LeafBlock::FindRunOutside(std::string_view key, size_t common) const {
  const bool before = common == key.size() ||
                      static_cast<uint8_t>(key[common]) < static_cast<uint8_t>(prefix()[common]);
  if (before) return {};
  return {.begin = end_, .end = end_, .after_all = true};
}

// The floor is not in the run: it is the last entry before it, if there is one.
bool LeafBlock::TakeBefore(std::string_view key, const Run& run, Found& found) const {
  if (run.begin == nullptr || run.begin == entries_) return false;
  found.slot = LastBefore(run.begin);
  std::string own;
  ReadKey(found.slot, own);
  found.matched = static_cast<uint32_t>(CommonBytes(own, key));
  found.exact = false;
  return true;
}

bool LeafBlock::FloorInRun(std::string_view key, const Run& run, Found& found) const {
  if (run.begin == nullptr || run.after_all) [[unlikely]]
    return TakeBefore(key, run, found);
  LeafSlot slot = ReadSlot(run.begin);
  std::string_view rest = key.substr(prefix_);
  size_t common = CommonBytes(rest, slot.added);
  // Whether a key that the one sought shares `common` bytes with is greater than it.
  auto is_greater = [&](std::string_view added) {
    return common < added.size() &&
           (common == rest.size() ||
            static_cast<uint8_t>(added[common]) > static_cast<uint8_t>(rest[common]));
  };
  if (is_greater(slot.added)) [[unlikely]]
    return TakeBefore(key, run, found);
  size_t matched = prefix_ + common;
  while (slot.next() != run.end && !(matched == key.size() && slot.key_size() == matched)) {
    const LeafSlot next = ReadSlot(slot.next());
    // Greater than this one in a place where the key is like this one, or less than the key as
    // this one is.
    if (next.shared < matched) break;
    if (next.shared == matched) {
      rest = key.substr(matched);
      common = CommonBytes(rest, next.added);
      if (is_greater(next.added)) break;
      matched += common;
    }
    slot = next;
  }
  found.slot = slot;
  found.matched = static_cast<uint32_t>(matched);
  found.exact = matched == key.size() && slot.key_size() == matched;
  return true;
}

void LeafBlock::WriteWithValue(const LeafSlot& slot, std::string_view value,
                               std::string& to) const {
  const char* begin = heads_ - kHeaderBytes;
  std::string_view rest;
  if (slot.next() != end_) rest = ReadSlot(slot.next()).added;
  const bool continues = !rest.empty() && value.ends_with(rest);
  if (continues) value.remove_suffix(rest.size());
  const size_t shared = slot.shared - prefix_;
  const size_t sizes = SizesBytes(shared, slot.added.size(), value.size());
  const auto before = static_cast<size_t>(slot.at - begin);
  const auto after = static_cast<size_t>(end_ - slot.next());
  const size_t fresh = sizes + slot.added.size() + value.size();
  to.resize(before + fresh + after);
  char* out = WriteBytes(to.data(), {begin, before});
  out = WriteSizes(out, shared, continues, slot.added.size(), value.size());
  out = WriteBytes(out, slot.added);
  out = WriteBytes(out, value);
  WriteBytes(out, {slot.next(), after});
  // The runs after it have moved.
  const size_t moved = fresh - static_cast<size_t>(slot.next() - slot.at);
  for (size_t i = 0; i < restarts_; ++i) {
    if (RunAt(i + 1) <= slot.at) continue;
    char* offset = to.data() + kHeaderBytes + 4 * restarts_ + 2 * i;
    StoreFixed(offset, static_cast<uint16_t>(LoadFixed<uint16_t>(offset) + moved));
  }
}

void LeafBlock::ReadKey(const LeafSlot& slot, std::string& key) const {
  key = prefix();
  for (LeafSlot at = ReadSlot(RunBefore(slot.at + 1));; at = ReadSlot(at.next())) {
    key.resize(at.shared);
    key += at.added;
    if (at.at == slot.at) return;
  }
}

void LeafItems::Append(const LeafBlock& block, uint64_t weight) {
  char* to = bytes_.emplace_back(std::make_unique_for_overwrite<char[]>(weight)).get();
  std::string_view previous = block.prefix();
  LeafSlot slot = block.First();
  do {
    const char* key = to;
    to = WriteBytes(to, previous.substr(0, slot.shared));
    to = WriteBytes(to, slot.added);
    const char* value = to;
    to = WriteBytes(to, slot.value);
    to = WriteBytes(to, block.ValueRest(slot));
    previous = {key, static_cast<size_t>(value - key)};
    items_.push_back({previous, {value, static_cast<size_t>(to - value)}});
  } while (block.Next(slot, slot));
}

}  // namespace dynlib::partition_map::internal
