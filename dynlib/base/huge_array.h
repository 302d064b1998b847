// An array of fixed size whose memory asks for huge pages (2 MiB), where it is large enough for one
// and the system has them: for tables that are read all over. With 4 KiB pages nearly every read of
// a table of 100 MB misses the processor's page table cache too, which costs a look-up in it about
// a quarter of its time.
//
// The elements are value-initialised, and all the memory is touched, at construction.
#ifndef DYNLIB_BASE_HUGE_ARRAY_H_
#define DYNLIB_BASE_HUGE_ARRAY_H_

#include <algorithm>
#include <cstddef>
#include <memory>
#include <new>

namespace dynlib {

// `bytes` at an address that is a multiple of `alignment` or, of 2 MiB and more, of 2 MiB.
void* AllocateHuge(size_t bytes, size_t alignment);
void FreeHuge(void* memory, size_t bytes, size_t alignment);

template <typename T>
class HugeArray {
 public:
  explicit HugeArray(size_t size)
      : size_(size), data_(static_cast<T*>(AllocateHuge(size * sizeof(T), alignof(T)))) {
    std::uninitialized_value_construct_n(data_, size);
  }
  ~HugeArray() {
    std::destroy_n(data_, size_);
    FreeHuge(data_, size_ * sizeof(T), alignof(T));
  }
  HugeArray(const HugeArray&) = delete;
  HugeArray& operator=(const HugeArray&) = delete;

  T& operator[](size_t i) { return data_[i]; }
  const T& operator[](size_t i) const { return data_[i]; }
  size_t size() const { return size_; }

 private:
  const size_t size_;
  T* const data_;
};

}  // namespace dynlib

#endif  // DYNLIB_BASE_HUGE_ARRAY_H_
