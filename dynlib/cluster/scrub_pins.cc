#include "dynlib/cluster/scrub_pins.h"

#include <algorithm>
#include <utility>

#include "dynlib/base/checksum.h"

namespace dynlib::cluster {

void ScrubPins::Pin(uint64_t scrub, store::Snapshot version) {
  std::map<uint64_t, Entry>::node_type gone;  // destroyed without the lock
  std::lock_guard lock(mutex_);
  if (pins_.contains(scrub)) return;
  if (pins_.size() >= kPinsMax) {
    const auto oldest = std::min_element(pins_.begin(), pins_.end(), [](auto& a, auto& b) {
      return a.second.order < b.second.order;
    });
    gone = pins_.extract(oldest);
  }
  pins_[scrub] =
      Entry{.order = ++last_order_, .version = std::move(version), .used = {}, .written = {}};
}

std::optional<store::Snapshot> ScrubPins::Find(uint64_t scrub, Instant now) {
  std::lock_guard lock(mutex_);
  const auto pin = pins_.find(scrub);
  if (pin == pins_.end()) return std::nullopt;
  pin->second.used = now;
  return pin->second.version;
}

void ScrubPins::Written(std::string_view tree_key) {
  std::lock_guard lock(mutex_);
  if (pins_.empty()) return;
  const uint64_t hash = Checksum(tree_key);
  for (auto& [scrub, pin] : pins_) {
    if (pin.written.size() <= kWrittenMax) pin.written.insert(hash);
  }
}

bool ScrubPins::WasWritten(uint64_t scrub, std::string_view tree_key) const {
  std::lock_guard lock(mutex_);
  const auto pin = pins_.find(scrub);
  return pin == pins_.end() || pin->second.written.size() > kWrittenMax ||
         pin->second.written.contains(Checksum(tree_key));
}

std::optional<store::Snapshot> ScrubPins::Release(uint64_t scrub) {
  std::lock_guard lock(mutex_);
  auto pin = pins_.extract(scrub);
  if (pin.empty()) return std::nullopt;
  return std::move(pin.mapped().version);
}

std::vector<store::Snapshot> ScrubPins::Expire(Instant now, Duration idle) {
  std::vector<store::Snapshot> gone;
  std::lock_guard lock(mutex_);
  for (auto pin = pins_.begin(); pin != pins_.end();) {
    Entry& entry = pin->second;
    if (!entry.used.has_value()) entry.used = now;
    if (*entry.used + idle > now) {
      ++pin;
      continue;
    }
    gone.push_back(std::move(entry.version));
    pin = pins_.erase(pin);
  }
  return gone;
}

std::vector<store::Snapshot> ScrubPins::ReleaseAll() {
  std::vector<store::Snapshot> gone;
  std::lock_guard lock(mutex_);
  for (auto& [scrub, pin] : pins_) gone.push_back(std::move(pin.version));
  pins_.clear();
  return gone;
}

size_t ScrubPins::size() const {
  std::lock_guard lock(mutex_);
  return pins_.size();
}

}  // namespace dynlib::cluster
