#include "dynlib/store/extent_allocator.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "dynlib/base/check.h"

namespace dynlib::store {
namespace {

// Calls f(word index, mask) for the words that the extent touches.
template <typename F>
void ForWords(Extent extent, F f) {
  for (uint64_t unit = extent.first; unit < extent.end();) {
    uint64_t bit = unit % 64;
    uint64_t count = std::min(64 - bit, extent.end() - unit);
    uint64_t ones = count == 64 ? ~uint64_t{0} : (uint64_t{1} << count) - 1;
    f(unit / 64, ones << bit);
    unit += count;
  }
}

}  // namespace

void UnitSet::Add(Extent extent) {
  if (words_.size() * 64 < extent.end()) words_.resize((extent.end() + 63) / 64);
  ForWords(extent, [this](uint64_t word, uint64_t mask) { words_[word] |= mask; });
}

void UnitSet::Remove(Extent extent) {
  ForWords(extent, [this](uint64_t word, uint64_t mask) {
    if (word < words_.size()) words_[word] &= ~mask;
  });
}

bool UnitSet::ContainsAny(Extent extent) const {
  return NextIn(extent.first, extent.end()) != extent.end();
}

void UnitSet::AddAll(const UnitSet& other) {
  if (words_.size() < other.words_.size()) words_.resize(other.words_.size());
  for (size_t i = 0; i < other.words_.size(); ++i) words_[i] |= other.words_[i];
}

void UnitSet::RemoveAll(const UnitSet& other) {
  size_t common = std::min(words_.size(), other.words_.size());
  for (size_t i = 0; i < common; ++i) words_[i] &= ~other.words_[i];
}

uint64_t UnitSet::Count() const { return CountWithout(UnitSet()); }

uint64_t UnitSet::CountWithout(const UnitSet& other) const {
  uint64_t count = 0;
  for (size_t i = 0; i < words_.size(); ++i) {
    count += std::popcount(words_[i] & ~(i < other.words_.size() ? other.words_[i] : 0));
  }
  return count;
}

uint64_t UnitSet::End() const {
  for (size_t i = words_.size(); i > 0; --i) {
    if (words_[i - 1] != 0) return i * 64 - std::countl_zero(words_[i - 1]);
  }
  return 0;
}

uint64_t UnitSet::Next(uint64_t from, uint64_t to, bool in) const {
  while (from < to) {
    uint64_t word = from / 64 < words_.size() ? words_[from / 64] : 0;
    if (!in) word = ~word;
    word >>= from % 64;
    if (word != 0) return std::min(to, from + std::countr_zero(word));
    from = (from / 64 + 1) * 64;
  }
  return to;
}

std::string UnitSet::Encode() const {
  std::string bytes((End() + 7) / 8, '\0');
  if (!bytes.empty()) std::memcpy(bytes.data(), words_.data(), bytes.size());
  return bytes;
}

UnitSet UnitSet::Decode(std::string_view bytes) {
  UnitSet set;
  set.words_.resize((bytes.size() + 7) / 8);
  if (!bytes.empty()) std::memcpy(set.words_.data(), bytes.data(), bytes.size());
  return set;
}

std::optional<Extent> ExtentAllocator::Allocate(uint64_t units) {
  std::lock_guard lock(mutex_);
  std::optional<Extent> extent = FindFree(cursor_, file_units_, units);
  if (!extent.has_value()) {
    extent = FindFree(0, std::min(file_units_, cursor_ + units), units);
  }
  if (!extent.has_value()) return std::nullopt;
  cursor_ = extent->end();
  live_.Add(*extent);
  used_.Add(*extent);
  return extent;
}

std::optional<Extent> ExtentAllocator::FindFree(uint64_t from, uint64_t to, uint64_t units) const {
  while (true) {
    uint64_t first = NextFree(from, to);
    if (to - first < units) return std::nullopt;
    uint64_t end = NextTaken(first, first + units);
    if (end - first == units) return Extent{first, units};
    from = end;
  }
}

uint64_t ExtentAllocator::NextFree(uint64_t from, uint64_t to) const {
  while (true) {
    uint64_t unused = used_.NextOut(from, to);
    from = discarded_.NextOut(unused, to);
    if (from == unused) return from;
  }
}

uint64_t ExtentAllocator::NextTaken(uint64_t from, uint64_t to) const {
  return discarded_.NextIn(from, used_.NextIn(from, to));
}

void ExtentAllocator::StartOver() {
  std::lock_guard lock(mutex_);
  cursor_ = 0;
}

std::vector<Extent> ExtentAllocator::DiscardRuns(uint64_t units, size_t count, uint64_t* from) {
  std::lock_guard lock(mutex_);
  std::vector<Extent> found;
  while (found.size() < count && *from < file_units_) {
    const uint64_t first = used_.NextOut(*from, file_units_);
    const uint64_t end = used_.NextIn(first, file_units_);
    *from = end;
    if (end - first < units) continue;
    for (uint64_t at = NextFree(first, end); at < end;) {
      const uint64_t to = discarded_.NextIn(at, end);
      found.push_back({at, to - at});
      at = NextFree(to, end);
    }
  }
  for (const Extent& extent : found) discarded_.Add(extent);
  return found;
}

std::optional<Extent> ExtentAllocator::DiscardedRun(uint64_t units, uint64_t units_max) const {
  std::lock_guard lock(mutex_);
  for (uint64_t from = 0;;) {
    uint64_t first = used_.NextOut(from, file_units_);
    if (file_units_ - first < units) return std::nullopt;
    from = used_.NextIn(first, std::min(file_units_, first + units_max));
    if (from - first >= units && discarded_.ContainsAny({first, from - first})) {
      return Extent{first, from - first};
    }
  }
}

void ExtentAllocator::Fill(Extent discarded) {
  std::lock_guard lock(mutex_);
  discarded_.Remove(discarded);
}

uint64_t ExtentAllocator::TrimTail(uint64_t floor) {
  std::lock_guard lock(mutex_);
  uint64_t end = std::max(floor, used_.End());
  if (end >= file_units_) return file_units_;
  discarded_.Remove({end, file_units_ - end});
  file_units_ = end;
  cursor_ = std::min(cursor_, end);
  return end;
}

void ExtentAllocator::Release(Extent extent) {
  std::lock_guard lock(mutex_);
  live_.Remove(extent);
  for (const Held& held : held_) {
    // An extent is in a checkpoint whole or not at all.
    if (held != nullptr && held->ContainsAny(extent)) return;
  }
  used_.Remove(extent);
}

void ExtentAllocator::ReleaseAll(const UnitSet& units) {
  std::lock_guard lock(mutex_);
  live_.RemoveAll(units);
  Recount();
}

void ExtentAllocator::SetLive(const UnitSet& live) {
  std::lock_guard lock(mutex_);
  live_ = live;
  Recount();
}

void ExtentAllocator::SetCheckpoints(std::array<Held, 2> checkpoints) {
  std::lock_guard lock(mutex_);
  std::move(checkpoints.begin(), checkpoints.end(), held_.begin());
  Recount();
}

void ExtentAllocator::Pin(Held units) {
  std::lock_guard lock(mutex_);
  held_.push_back(std::move(units));
  Recount();
}

void ExtentAllocator::Unpin(const Held& units) {
  std::lock_guard lock(mutex_);
  auto pin = std::find(held_.begin() + 2, held_.end(), units);
  DYNLIB_CHECK(pin != held_.end());
  held_.erase(pin);
  Recount();
}

uint64_t ExtentAllocator::file_units() const {
  std::lock_guard lock(mutex_);
  return file_units_;
}

void ExtentAllocator::SetFileUnits(uint64_t file_units) {
  std::lock_guard lock(mutex_);
  file_units_ = file_units;
}

uint64_t ExtentAllocator::used_units() const {
  std::lock_guard lock(mutex_);
  return used_.Count();
}

uint64_t ExtentAllocator::discarded_units() const {
  std::lock_guard lock(mutex_);
  return discarded_.Count();
}

uint64_t ExtentAllocator::idle_units() const {
  std::lock_guard lock(mutex_);
  return file_units_ - used_.Count() - discarded_.Count();
}

void ExtentAllocator::Recount() {
  used_ = live_;
  used_.Add({0, 2});  // the superblocks
  for (const Held& held : held_) {
    if (held != nullptr) used_.AddAll(*held);
  }
}

}  // namespace dynlib::store
