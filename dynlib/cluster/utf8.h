// Whether bytes are UTF-8: Unicode scalar values in their shortest form (RFC 3629).
//
// Threads: a pure function.
#ifndef DYNLIB_CLUSTER_UTF8_H_
#define DYNLIB_CLUSTER_UTF8_H_

#include <cstddef>
#include <string_view>

namespace dynlib::cluster {

// How many leading bytes are whole, valid characters; bytes.size() when all of it is UTF-8.
size_t ValidUtf8Prefix(std::string_view bytes);
inline bool IsUtf8(std::string_view bytes) { return ValidUtf8Prefix(bytes) == bytes.size(); }

}  // namespace dynlib::cluster

#endif  // DYNLIB_CLUSTER_UTF8_H_
