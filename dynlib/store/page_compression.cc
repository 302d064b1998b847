#include "dynlib/store/page_compression.h"

#include <zstd.h>

#include <utility>

#include "dynlib/base/coding.h"
#include "dynlib/base/strings.h"

namespace dynlib::store {
namespace {

// Of those that are compressed: an overflow value of the greatest length.
constexpr uint32_t kLongestPage = kPageHeaderBytes + kMaxValueBytes;

absl::Status Bad(std::string_view what, uint64_t value) {
  return absl::DataLossError(Cat("malformed compressed page: ", what, " ", value));
}

uint64_t Units(size_t bytes) {
  return PageRef{.length = static_cast<uint32_t>(bytes)}.extent().count;
}

// The length of the page inside, or what is wrong.
absl::StatusOr<uint32_t> CheckCompressed(std::string_view page) {
  if (page.size() < kPageHeaderBytes) return Bad("length", page.size());
  const PageView view(page.data());
  const uint16_t version = LoadFixed<uint16_t>(page.data() + 4);
  if (version != kPageVersion) return Bad("version", version);
  if (view.length() != page.size()) return Bad("length field", view.length());
  if (view.level() != 0) return Bad("level", view.level());
  if (view.child_count() != 0) return Bad("child count", view.child_count());
  const uint32_t rest = LoadFixed<uint32_t>(page.data() + 28);
  if (rest != 0) return Bad("prefix", rest);
  const uint32_t expanded = view.count();
  if (expanded <= page.size() || expanded > kLongestPage) {
    return Bad("length of the page inside", expanded);
  }
  return expanded;
}

}  // namespace

struct PageCompressor::Contexts {
  ~Contexts() {
    ZSTD_freeCCtx(compress);
    ZSTD_freeDCtx(expand);
  }
  ZSTD_CCtx* compress = nullptr;
  ZSTD_DCtx* expand = nullptr;
};

PageCompressor::PageCompressor(const Options& options) : options_(options) {}
PageCompressor::~PageCompressor() = default;

std::unique_ptr<PageCompressor::Contexts> PageCompressor::Take() {
  {
    std::lock_guard lock(mutex_);
    if (!idle_.empty()) {
      std::unique_ptr<Contexts> contexts = std::move(idle_.back());
      idle_.pop_back();
      return contexts;
    }
  }
  return std::make_unique<Contexts>();
}

void PageCompressor::Return(std::unique_ptr<Contexts> contexts) {
  std::lock_guard lock(mutex_);
  idle_.push_back(std::move(contexts));
}

bool PageCompressor::Compress(std::string_view page, std::string& out) {
  if (!enabled() || page.size() <= kUnitBytes) return false;
  const PageView view(page.data());
  if (view.kind() != PageKind::kLeaf && view.kind() != PageKind::kOverflow) return false;
  // Room for what would save a unit, and no more: zstd gives up sooner.
  const size_t room = (Units(page.size()) - 1) * kUnitBytes;
  out.resize(room);
  std::unique_ptr<Contexts> contexts = Take();
  if (contexts->compress == nullptr) contexts->compress = ZSTD_createCCtx();
  const size_t size =
      ZSTD_compressCCtx(contexts->compress, out.data() + kPageHeaderBytes, room - kPageHeaderBytes,
                        page.data(), page.size(), options_.level);
  Return(std::move(contexts));
  if (ZSTD_isError(size) != 0) return false;
  out.resize(kPageHeaderBytes + size);
  PutBlobHeader(out.data(), PageKind::kCompressed, view.tree(), static_cast<uint32_t>(page.size()),
                static_cast<uint32_t>(out.size()));
  return true;
}

uint64_t PageCompressor::UnitsOf(std::string_view page) {
  std::string compressed;
  return Units(Compress(page, compressed) ? compressed.size() : page.size());
}

bool PageCompressor::IsCompressed(std::string_view page) {
  return page.size() >= kPageHeaderBytes && LoadFixed<uint32_t>(page.data()) == kPageMagic &&
         PageView(page.data()).kind() == PageKind::kCompressed;
}

absl::StatusOr<PageBytes> PageCompressor::Expand(std::string_view page) {
  const absl::StatusOr<uint32_t> length = CheckCompressed(page);
  if (!length.ok()) return length.status();
  PageBytes expanded = PageBytes::Allocate(*length);
  const std::string_view frame = PageView(page.data()).payload();
  std::unique_ptr<Contexts> contexts = Take();
  if (contexts->expand == nullptr) contexts->expand = ZSTD_createDCtx();
  const size_t size = ZSTD_decompressDCtx(contexts->expand, expanded.data.get(), *length,
                                          frame.data(), frame.size());
  Return(std::move(contexts));
  if (ZSTD_isError(size) != 0) {
    return absl::DataLossError(Cat("malformed compressed page: ", ZSTD_getErrorName(size)));
  }
  if (size != *length) return Bad("length after expansion", size);
  return expanded;
}

}  // namespace dynlib::store
