#include "stamped.h"

#include <cstdint>
#include <cstring>

#include "dynlib/base/checksum.h"

std::string Stamp(std::string_view message) {
  const uint64_t checksum = dynlib::Checksum(message);
  std::string stamped(sizeof(checksum), '\0');
  std::memcpy(stamped.data(), &checksum, sizeof(checksum));
  stamped.append(message);
  return stamped;
}

std::optional<std::string_view> Unstamp(std::string_view stamped) {
  uint64_t checksum = 0;
  if (stamped.size() < sizeof(checksum)) return std::nullopt;
  std::memcpy(&checksum, stamped.data(), sizeof(checksum));
  stamped.remove_prefix(sizeof(checksum));
  if (dynlib::Checksum(stamped) != checksum) return std::nullopt;
  return stamped;
}
