// The one way in which a digest is written to disk and wire: 16 bytes, low half first.
#ifndef DYNLIB_BASE_DIGEST_CODING_H_
#define DYNLIB_BASE_DIGEST_CODING_H_

#include <string>

#include "dynlib/base/checksum.h"
#include "dynlib/base/coding.h"

namespace dynlib {

inline void PutDigest(std::string& out, const Digest128& digest) {
  PutFixed64(out, digest.low);
  PutFixed64(out, digest.high);
}

inline Digest128 ReadDigest(ByteReader& in) {
  Digest128 digest;
  digest.low = in.Fixed64();
  digest.high = in.Fixed64();
  return digest;
}

}  // namespace dynlib

#endif  // DYNLIB_BASE_DIGEST_CODING_H_
