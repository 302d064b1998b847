#include "dynlib/testing/overlay.h"

#include <algorithm>
#include <cstring>
#include <iterator>
#include <utility>

namespace dynlib {

void Overlay::Write(uint64_t offset, std::string_view data) {
  if (data.empty()) return;
  Erase(offset, offset + data.size());
  bytes_ += data.size();
  const auto next = ranges_.lower_bound(offset);
  if (next != ranges_.begin()) {
    auto& [begin, range] = *std::prev(next);
    if (begin + range.size() == offset && range.size() < kRangeBytes) {
      range.append(data);
      return;
    }
  }
  ranges_.emplace_hint(next, offset, data);
}

void Overlay::Erase(uint64_t begin, uint64_t end) {
  auto it = ranges_.erase(FirstEndingAfter(begin), FirstEndingAfter(begin));  // made mutable
  while (it != ranges_.end() && it->first < end) {
    const uint64_t start = it->first;
    std::string range = std::move(it->second);
    it = ranges_.erase(it);
    const uint64_t from = std::max(begin, start) - start;
    const uint64_t to = std::min<uint64_t>(end - start, range.size());
    bytes_ -= to - from;
    if (to < range.size()) ranges_.emplace_hint(it, start + to, range.substr(to));
    range.resize(from);
    if (!range.empty()) ranges_.emplace(start, std::move(range));
  }
}

void Overlay::Clear() {
  ranges_.clear();
  bytes_ = 0;
}

void Overlay::ApplyTo(uint64_t offset, std::span<char> out) const {
  const uint64_t end = offset + out.size();
  for (auto it = FirstEndingAfter(offset); it != ranges_.end() && it->first < end; ++it) {
    const uint64_t from = std::max(offset, it->first);
    const uint64_t to = std::min(end, it->first + it->second.size());
    std::memcpy(out.data() + (from - offset), it->second.data() + (from - it->first), to - from);
  }
}

uint64_t Overlay::end() const {
  return ranges_.empty() ? 0 : ranges_.rbegin()->first + ranges_.rbegin()->second.size();
}

Overlay::Ranges::const_iterator Overlay::FirstEndingAfter(uint64_t offset) const {
  auto it = ranges_.upper_bound(offset);
  if (it == ranges_.begin()) return it;
  const auto before = std::prev(it);
  return before->first + before->second.size() > offset ? before : it;
}

}  // namespace dynlib
