// Bytes that never change, shared by all who hold them: a piece of a block that lives as long as
// any of its pieces.
//
//   SharedBytes whole(std::string("from the wire"));
//   SharedBytes piece(whole.owner(), whole->substr(5, 3));   // "the", nothing is copied
//
// So what came in one message, or was encoded in one block, costs one allocation however many
// pieces it has; and all of it stays in memory until the last piece is let go.
//
// Threads: as std::shared_ptr.
#ifndef DYNLIB_BASE_SHARED_BYTES_H_
#define DYNLIB_BASE_SHARED_BYTES_H_

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

namespace dynlib {

class SharedBytes {
 public:
  // Null: no bytes, which is not the same as none of them.
  SharedBytes() = default;
  SharedBytes(std::nullptr_t) {}  // NOLINT: as a pointer's.
  explicit SharedBytes(std::string bytes)
      : SharedBytes(std::make_shared<const std::string>(std::move(bytes))) {}
  SharedBytes(std::shared_ptr<const std::string> bytes)  // NOLINT: the same thing.
      : bytes_(bytes == nullptr ? std::string_view() : std::string_view(*bytes)),
        owner_(std::move(bytes)) {}
  // `bytes` lie in what `owner`, which is not null, keeps alive.
  SharedBytes(std::shared_ptr<const void> owner, std::string_view bytes)
      : bytes_(bytes), owner_(std::move(owner)) {}

  std::string_view operator*() const { return bytes_; }
  const std::string_view* operator->() const { return &bytes_; }
  const std::shared_ptr<const void>& owner() const { return owner_; }

  friend bool operator==(const SharedBytes& bytes, std::nullptr_t) {
    return bytes.owner_ == nullptr;
  }
  // The same bytes, wherever they lie; null equals null alone.
  friend bool operator==(const SharedBytes& a, const SharedBytes& b) {
    return (a == nullptr) == (b == nullptr) && a.bytes_ == b.bytes_;
  }

 private:
  std::string_view bytes_;
  std::shared_ptr<const void> owner_;
};

}  // namespace dynlib

#endif  // DYNLIB_BASE_SHARED_BYTES_H_
