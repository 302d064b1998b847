// Memory for direct writes: see File::WriteDurably.
//
// Threads: one at a time.
#ifndef DYNLIB_STORE_ALIGNED_BUFFER_H_
#define DYNLIB_STORE_ALIGNED_BUFFER_H_

#include <cstddef>
#include <memory>
#include <new>

#include "dynlib/runtime/disk.h"

namespace dynlib::store {

class AlignedBuffer {
 public:
  // At least `bytes`, whose contents are whatever they are; good until the next call.
  char* Get(size_t bytes) {
    if (bytes > size_) {
      const size_t size = (bytes + bytes / 4 + File::kDirectAlignment - 1) /
                          File::kDirectAlignment * File::kDirectAlignment;
      bytes_.reset(
          static_cast<char*>(::operator new (size, std::align_val_t{File::kDirectAlignment})));
      size_ = size;
    }
    return bytes_.get();
  }
  void Free() {
    bytes_.reset();
    size_ = 0;
  }

 private:
  struct Delete {
    void operator()(char* bytes) const {
      ::operator delete (bytes, std::align_val_t{File::kDirectAlignment});
    }
  };
  std::unique_ptr<char, Delete> bytes_;
  size_t size_ = 0;
};

}  // namespace dynlib::store

#endif  // DYNLIB_STORE_ALIGNED_BUFFER_H_
