#include "dynlib/cache/snapshot.h"

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/base/coding.h"
#include "dynlib/base/time.h"
#include "dynlib/cache/constant_work_cache.h"
#include "dynlib/cache/flat_index.h"
#include "dynlib/cache/hash_index.h"
#include "dynlib/cache/range_index.h"
#include "dynlib/testing/status_matchers.h"
#include "gtest/gtest.h"
#include "tests/cache/manual_executor.h"
#include "tests/cache/values.h"

namespace dynlib::cache {
namespace {

std::string EncodeItem(const Item& item) {
  std::string bytes;
  PutFixed32(bytes, static_cast<uint32_t>(item.key));
  PutFixed32(bytes, static_cast<uint32_t>(item.version));
  return bytes;
}

absl::StatusOr<Item> DecodeItem(std::string_view bytes) {
  ByteReader in(bytes);
  const Item item{static_cast<int>(in.Fixed32()), static_cast<int>(in.Fixed32())};
  if (!in.done()) return absl::DataLossError("no item");
  return item;
}

std::string EncodeSpan(const Span& span) {
  return EncodeItem({span.first, span.version}) + EncodeItem({span.end.value_or(-1), 0});
}

absl::StatusOr<Span> DecodeSpan(std::string_view bytes) {
  ByteReader in(bytes);
  Span span{.first = static_cast<int>(in.Fixed32()), .end = {}};
  span.version = static_cast<int>(in.Fixed32());
  if (const int end = static_cast<int>(in.Fixed32()); end != -1) span.end = end;
  return span;
}

template <typename Index>
std::unique_ptr<ConstantWorkCache<Index>> Make(ManualExecutor& executor) {
  return std::make_unique<ConstantWorkCache<Index>>(CacheOptions{}, &executor, &executor,
                                                    [](size_t, const int&, auto) {});
}

template <typename Index>
void SaveAndLoad() {
  using Cache = ConstantWorkCache<Index>;
  ManualExecutor executor;
  auto cache = Make<Index>(executor);
  for (int key = 0; key < 100; ++key)
    cache->Apply(Cache::Own({key, key + 1}), std::chrono::seconds(key));
  executor.Advance(std::chrono::seconds(10));
  const std::string bytes = SaveSnapshot(*cache, executor, EncodeItem);
  executor.Advance(std::chrono::seconds(20));
  cache = Make<Index>(executor);
  cache->Apply(Cache::Own({5, 1'000}));
  DYNLIB_ASSERT_OK_AND_ASSIGN(const size_t held, LoadSnapshot(*cache, executor, bytes, DecodeItem));
  EXPECT_EQ(held, 100u);
  for (int key = 0; key < 100; ++key) {
    const auto found = cache->Held(key);
    ASSERT_TRUE(found.has_value());
    EXPECT_EQ(found->value->version, key == 5 ? 1'000 : key + 1) << "what is newer stays";
    EXPECT_EQ(found->AgeAt(executor.Now()), std::chrono::seconds(key == 5 ? 0 : key + 30));
  }
}

TEST(CacheSnapshot, AnotherCacheStartsWarm) {
  SaveAndLoad<HashIndex<ItemTraits>>();
  SaveAndLoad<FlatIndex<ItemTraits>>();
}

TEST(CacheSnapshot, CutRangesComeOutTheSame) {
  ManualExecutor executor;
  auto cache = Make<RangeIndex<SpanTraits>>(executor);
  using Cache = ConstantWorkCache<RangeIndex<SpanTraits>>;
  cache->Apply(Cache::Own({0, std::nullopt, 1}));
  cache->Apply(Cache::Own({10, 20, 2}));
  const std::string bytes = SaveSnapshot(*cache, executor, EncodeSpan);
  cache = Make<RangeIndex<SpanTraits>>(executor);
  DYNLIB_ASSERT_OK(LoadSnapshot(*cache, executor, bytes, DecodeSpan));
  for (int key = 0; key < 30; ++key)
    EXPECT_EQ(cache->Held(key)->value->version, key >= 10 && key < 20 ? 2 : 1) << key;
}

TEST(CacheSnapshot, DamageAtEachByteIsFoundAndChangesNothing) {
  ManualExecutor executor;
  auto cache = Make<FlatIndex<ItemTraits>>(executor);
  for (int key = 0; key < 5; ++key) cache->Apply(Item{key, 1});
  const std::string bytes = SaveSnapshot(*cache, executor, EncodeItem);
  cache = Make<FlatIndex<ItemTraits>>(executor);
  for (size_t at = 0; at < bytes.size(); ++at) {
    for (int bit = 0; bit < 8; ++bit) {
      std::string damaged = bytes;
      damaged[at] = static_cast<char>(damaged[at] ^ 1 << bit);
      EXPECT_THAT(LoadSnapshot(*cache, executor, damaged, DecodeItem),
                  StatusIs(absl::StatusCode::kDataLoss));
    }
    EXPECT_THAT(LoadSnapshot(*cache, executor, bytes.substr(0, at), DecodeItem),
                StatusIs(absl::StatusCode::kDataLoss));
  }
  EXPECT_EQ(cache->Stats().entries, 0u);
  EXPECT_THAT(LoadSnapshot(*cache, executor, bytes,
                           [](std::string_view) -> absl::StatusOr<Item> {
                             return absl::InvalidArgumentError("unknown");
                           }),
              StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_EQ(cache->Stats().entries, 0u);
}

TEST(CacheSnapshot, AnEmptyOneIsFine) {
  ManualExecutor executor;
  auto cache = Make<FlatIndex<ItemTraits>>(executor);
  DYNLIB_ASSERT_OK_AND_ASSIGN(
      const size_t held,
      LoadSnapshot(*cache, executor, SaveSnapshot(*cache, executor, EncodeItem), DecodeItem));
  EXPECT_EQ(held, 0u);
}

}  // namespace
}  // namespace dynlib::cache
