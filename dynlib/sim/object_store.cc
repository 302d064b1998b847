#include "dynlib/sim/object_store.h"

#include <chrono>

#include "dynlib/base/checksum.h"
#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"
#include "dynlib/runtime/object_name.h"

namespace dynlib::sim {

SimObjectStore::SimObjectStore(uint64_t seed) : SimObjectStore(seed, nullptr, nullptr) {}

SimObjectStore::SimObjectStore(uint64_t seed, Scheduler* scheduler, const FaultOptions* faults)
    : scheduler_(scheduler), faults_(faults), random_(seed) {}

absl::Status SimObjectStore::Unavailable(std::string_view operation, std::string_view name) const {
  return absl::UnavailableError(
      Cat(operation, " '", Escape(name, 200), "': the object store does not answer"));
}

absl::StatusOr<SimObjectStore::Outcome> SimObjectStore::Start(std::string_view operation,
                                                              std::string_view name) {
  if (scheduler_ != nullptr && !scheduler_->Delay(std::chrono::milliseconds(2))) {
    return absl::AbortedError(Cat(operation, " '", Escape(name, 200), "': the process has ended"));
  }
  std::lock_guard lock(mutex_);
  if (unavailable_) return Outcome::kFail;
  if (faults_ == nullptr || !random_.Chance(faults_->object_store_error)) return Outcome::kProceed;
  if (scheduler_ != nullptr) scheduler_->CountFault("object_store.error");
  return random_.Below(2) == 0 ? Outcome::kFail : Outcome::kFailAfter;
}

absl::Status SimObjectStore::Put(std::string_view name, std::string_view data, uint64_t checksum) {
  DYNLIB_RETURN_IF_ERROR(CheckObjectName(name));
  DYNLIB_ASSIGN_OR_RETURN(const Outcome outcome, Start("put", name));
  if (outcome == Outcome::kFail) return Unavailable("put", name);
  const uint64_t received = Checksum(data);
  if (received != checksum) {
    return absl::DataLossError(Cat("put '", name, "': received data with checksum ", Hex(received),
                                   ", wanted ", Hex(checksum)));
  }
  std::lock_guard lock(mutex_);
  objects_.insert_or_assign(std::string(name), Object{std::string(data), checksum});
  if (outcome == Outcome::kFailAfter) return Unavailable("put", name);
  return absl::OkStatus();
}

absl::StatusOr<std::string> SimObjectStore::Get(std::string_view name) {
  DYNLIB_RETURN_IF_ERROR(CheckObjectName(name));
  DYNLIB_ASSIGN_OR_RETURN(const Outcome outcome, Start("get", name));
  if (outcome != Outcome::kProceed) return Unavailable("get", name);
  std::lock_guard lock(mutex_);
  const auto it = objects_.find(name);
  if (it == objects_.end()) return absl::NotFoundError(Cat("get '", name, "': no such object"));
  const uint64_t stored = Checksum(it->second.data);
  if (stored != it->second.checksum) {
    return absl::DataLossError(Cat("get '", name, "': stored data with checksum ", Hex(stored),
                                   ", wanted ", Hex(it->second.checksum)));
  }
  return it->second.data;
}

absl::StatusOr<std::vector<ObjectInfo>> SimObjectStore::List(std::string_view prefix,
                                                             std::string_view after, size_t limit) {
  DYNLIB_ASSIGN_OR_RETURN(const Outcome outcome, Start("list", prefix));
  if (outcome != Outcome::kProceed) return Unavailable("list", prefix);
  std::lock_guard lock(mutex_);
  std::vector<ObjectInfo> found;
  auto it = after < prefix ? objects_.lower_bound(prefix) : objects_.upper_bound(after);
  for (; it != objects_.end() && found.size() < limit; ++it) {
    if (!it->first.starts_with(prefix)) break;
    found.push_back({it->first, it->second.data.size()});
  }
  return found;
}

absl::Status SimObjectStore::Delete(std::string_view name) {
  DYNLIB_RETURN_IF_ERROR(CheckObjectName(name));
  DYNLIB_ASSIGN_OR_RETURN(const Outcome outcome, Start("delete", name));
  if (outcome == Outcome::kFail) return Unavailable("delete", name);
  std::lock_guard lock(mutex_);
  if (const auto it = objects_.find(name); it != objects_.end()) objects_.erase(it);
  if (outcome == Outcome::kFailAfter) return Unavailable("delete", name);
  return absl::OkStatus();
}

bool SimObjectStore::FlipBit(std::string_view name, uint64_t bit_offset) {
  std::lock_guard lock(mutex_);
  const auto it = objects_.find(name);
  if (it == objects_.end() || bit_offset / 8 >= it->second.data.size()) return false;
  char& byte = it->second.data[bit_offset / 8];
  byte = static_cast<char>(byte ^ (1 << (bit_offset % 8)));
  return true;
}

}  // namespace dynlib::sim
