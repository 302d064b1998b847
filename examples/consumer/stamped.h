// A message with its checksum in front, by dynlib's base alone.
#ifndef STAMPED_H_
#define STAMPED_H_

#include <optional>
#include <string>
#include <string_view>

std::string Stamp(std::string_view message);

// The message, or nothing when its bytes are not those that were stamped.
std::optional<std::string_view> Unstamp(std::string_view stamped);

#endif  // STAMPED_H_
