// What fuzzers feed to the readers of the store's formats, the log's apart (log_fuzz.h), and what
// must hold of any input: no crash, nothing read beyond the bytes, no more memory than they allow,
// and what is taken for good is whole.
//
// Each returns whether the bytes were taken for good.
#ifndef TESTS_STORE_FORMAT_FUZZ_H_
#define TESTS_STORE_FORMAT_FUZZ_H_

#include <cstdint>
#include <cstring>
#include <set>
#include <string>
#include <string_view>
#include <variant>

#include "absl/status/status.h"
#include "dynlib/base/check.h"
#include "dynlib/base/checksum.h"
#include "dynlib/base/coding.h"
#include "dynlib/base/ids.h"
#include "dynlib/store/backup_format.h"
#include "dynlib/store/page.h"
#include "dynlib/store/page_compression.h"
#include "dynlib/store/store_catalogue.h"
#include "dynlib/store/store_folder.h"
#include "dynlib/store/store_record.h"
#include "dynlib/store/superblock.h"
#include "dynlib/store/write_batch.h"

namespace dynlib::store {

inline PageBytes PageOf(std::string_view bytes) {
  PageBytes page = PageBytes::Allocate(static_cast<uint32_t>(bytes.size()));
  if (!bytes.empty()) std::memcpy(page.data.get(), bytes.data(), bytes.size());
  return page;
}

// A log record of a store: a group of batches.
inline bool FuzzGroup(std::string_view bytes) {
  const auto group = DecodeGroup(bytes);
  if (!group.ok()) return false;
  DYNLIB_CHECK(group->writes <= bytes.size());
  uint64_t held = 0;
  for (const LoggedChange& change : group->changes) {
    if (const auto* apply = std::get_if<LoggedChange::Apply>(&change.what)) {
      held += apply->batch.bytes() + apply->batch.size();
    }
  }
  DYNLIB_CHECK(held <= bytes.size());
  return true;
}

// A page that CheckPage passes can be looked at anywhere, and searched.
inline bool FuzzPage(std::string_view bytes) {
  const PageBytes page = PageOf(bytes);
  if (!CheckPage(page.view()).ok()) return false;
  const PageView view(page.data.get());
  if (!view.is_tree_page()) {
    DYNLIB_CHECK(view.payload().size() + kPageHeaderBytes == bytes.size());
    return true;
  }
  uint64_t read = view.prefix().size();
  for (uint32_t i = 0; i < view.count(); ++i) {
    const std::string key = std::string(view.prefix()) + std::string(view.suffix(i));
    const PageView::Position at = view.Find(key);
    DYNLIB_CHECK(at.found && at.index == i);
    read += view.suffix(i).size();
    if (view.level() > 0) {
      DYNLIB_CHECK(view.ChildFor(key) == i + 1);
    } else if (const LeafValue value = view.value(i); value.overflow) {
      DYNLIB_CHECK(value.child < view.child_count());
    } else {
      read += std::string(value.inlined).size();
    }
  }
  for (uint32_t i = 0; i < view.child_count(); ++i) view.child(i);
  DYNLIB_CHECK(read <= bytes.size());
  return true;
}

inline bool FuzzCompressedPage(std::string_view bytes) {
  if (!PageCompressor::IsCompressed(bytes)) return false;
  PageCompressor compressor({});
  const auto page = compressor.Expand(bytes);
  if (!page.ok()) return false;
  DYNLIB_CHECK(page->length <= kPageHeaderBytes + kMaxValueBytes);
  return FuzzPage(page->view());
}

// With `seal`, behind a checksum that is right.
inline bool FuzzSuperblock(std::string_view bytes, bool seal) {
  std::string block(bytes.substr(0, kSuperblockBytes));
  block.resize(kSuperblockBytes);
  const uint64_t index = LoadFixed<uint64_t>(block.data() + 32) % 2;
  if (seal) {
    const std::string_view body = std::string_view(block).substr(0, kSuperblockBytes - 8);
    StoreFixed(block.data() + kSuperblockBytes - 8, Checksum(body, index));
  }
  const auto superblock = DecodeSuperblock(block, index);
  if (!superblock.ok()) return false;
  const auto again = DecodeSuperblock(EncodeSuperblock(*superblock), index);
  DYNLIB_CHECK(again.ok() && again->generation == superblock->generation &&
               again->directory == superblock->directory && again->bitmap == superblock->bitmap &&
               again->file_id == superblock->file_id);
  return true;
}

// The blobs that a superblock names.
inline bool FuzzBlobs(std::string_view bytes) {
  const PageBytes page = PageOf(bytes);
  if (!CheckPage(page.view()).ok()) return false;
  const auto trees = DecodeDirectory(page);
  if (trees.ok()) {
    DYNLIB_CHECK(EncodeDirectory(*trees).length == page.length);
    return true;
  }
  const auto units = DecodeBitmap(page, 1000);
  if (units.ok()) DYNLIB_CHECK(units->End() <= 1000);
  return units.ok();
}

inline bool FuzzManifest(std::string_view bytes, bool seal) {
  std::string sealed(bytes);
  if (seal && bytes.size() >= 8) {
    sealed.resize(bytes.size() - 8);
    PutFixed64(sealed, Checksum(sealed));
  }
  const auto manifest = DecodeManifest(sealed);
  if (!manifest.ok()) return false;
  const std::string again = EncodeManifest(*manifest);
  const auto same = DecodeManifest(again);
  DYNLIB_CHECK(same.ok() && EncodeManifest(*same) == again);
  return true;
}

inline bool FuzzChunk(std::string_view bytes) {
  uint64_t held = 0;
  const absl::Status read = ReadChunk(bytes, [&](std::string_view key, std::string_view value) {
    held += std::string(key).size() + std::string(value).size();
    return absl::OkStatus();
  });
  DYNLIB_CHECK(held <= bytes.size());
  return read.ok();
}

inline bool FuzzStoreMark(std::string_view bytes) {
  const auto mark = DecodeStoreMark(bytes);
  if (mark.ok()) DYNLIB_CHECK(EncodeStoreMark(*mark).size() == bytes.size());
  return mark.ok();
}

// The rows of a store's catalogue, each a name and a value, both with their lengths before them:
// what is taken for trees has names and ids of its own, and is written as the same rows.
inline bool FuzzCatalogue(std::string_view bytes) {
  ByteReader in(bytes);
  Catalogue catalogue;
  while (!in.rest().empty()) {
    const std::string_view name = in.LengthPrefixed();
    const std::string_view value = in.LengthPrefixed();
    if (!in.ok() || !AddCatalogueRow(name, value, catalogue).ok()) return false;
  }
  if (!CheckCatalogue(catalogue).ok()) return false;
  std::set<TreeId> ids;
  Catalogue again;
  for (const auto& [name, id] : catalogue.trees) {
    DYNLIB_CHECK(!name.empty() && name.size() <= kMaxTreeNameBytes);
    DYNLIB_CHECK(ToUint(id) >= kFirstNamedTree && ToUint(id) < catalogue.next_id);
    DYNLIB_CHECK(ids.insert(id).second);
    WriteBatch rows;
    AddTreeRow(name, id, rows);
    for (const auto& row : rows.operations()) {
      DYNLIB_CHECK(AddCatalogueRow(row.key, *row.value, again).ok());
    }
  }
  DYNLIB_CHECK(again.trees == catalogue.trees && again.next_id <= catalogue.next_id);
  return true;
}

}  // namespace dynlib::store

#endif  // TESTS_STORE_FORMAT_FUZZ_H_
