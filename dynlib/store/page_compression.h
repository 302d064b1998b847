// Pages as they lie on disk when compression is on: as zstd frames, each page for itself, where
// that saves units. Bytes: docs/format/btree.md, "Compressed page".
//
// Only leaves and overflow values are compressed, and only those that then take at least one unit
// of 4,096 bytes less: a page that does not is written as it is, and costs nothing to read. In
// memory all pages are as they always are. Which form a page has is said by its own header, so a
// file has both, and compression can be on at one opening and off at the next.
//
//   PageCompressor compressor({.compression = Compression::kZstd});
//   std::string out;
//   if (compressor.Compress(page, out)) ... out goes to disk in the place of `page`
//   DYNLIB_ASSIGN_OR_RETURN(PageBytes page, compressor.Expand(read));
//
// Internal to the store. Threads: any; each call has zstd contexts of its own, which are kept.
#ifndef DYNLIB_STORE_PAGE_COMPRESSION_H_
#define DYNLIB_STORE_PAGE_COMPRESSION_H_

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/store/page.h"

namespace dynlib::store {

enum class Compression : uint8_t { kNone, kZstd };

class PageCompressor {
 public:
  struct Options {
    Compression compression = Compression::kNone;
    // Of zstd, 1 to 19: higher is smaller and slower. Reading is as fast at any.
    int level = 1;
  };

  explicit PageCompressor(const Options& options);
  ~PageCompressor();
  PageCompressor(const PageCompressor&) = delete;
  PageCompressor& operator=(const PageCompressor&) = delete;

  bool enabled() const { return options_.compression != Compression::kNone; }

  // Puts what takes the place of `page` on disk into `out`. False: it stays as it is, as nothing
  // would be saved, it is of a kind that is not compressed, or compression is off.
  bool Compress(std::string_view page, std::string& out);
  // What `page` takes on disk, in units.
  uint64_t UnitsOf(std::string_view page);

  static bool IsCompressed(std::string_view page);
  // The page that a compressed one holds, which CheckPage has yet to pass. kDataLoss saying what is
  // wrong; never more memory than the longest page, whatever the bytes say.
  absl::StatusOr<PageBytes> Expand(std::string_view page);

 private:
  struct Contexts;
  std::unique_ptr<Contexts> Take();
  void Return(std::unique_ptr<Contexts> contexts);

  const Options options_;
  std::mutex mutex_;
  std::vector<std::unique_ptr<Contexts>> idle_;  // as many as calls were ever running at once
};

}  // namespace dynlib::store

#endif  // DYNLIB_STORE_PAGE_COMPRESSION_H_
