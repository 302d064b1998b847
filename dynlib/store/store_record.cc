#include "dynlib/store/store_record.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/status/status.h"
#include "dynlib/base/coding.h"
#include "dynlib/base/ids.h"
#include "dynlib/base/strings.h"

namespace dynlib::store {
namespace {

constexpr uint8_t kEndOfWrite = 0;
constexpr uint8_t kPut = 1;
constexpr uint8_t kDelete = 2;
constexpr uint8_t kDeleteRange = 3;
constexpr uint8_t kTree = 4;  // What follows in this write is of that tree.
constexpr uint8_t kCreateTree = 5;
constexpr uint8_t kDropTree = 6;

class Decoder {
 public:
  explicit Decoder(std::string_view payload) : in_(payload) {}

  absl::StatusOr<LoggedGroup> Run() {
    const uint8_t version = in_.Fixed8();
    if (in_.ok() && version > kStoreRecordVersion) {
      return absl::FailedPreconditionError(Cat("a log record of version ", version,
                                               "; this program knows versions up to ",
                                               kStoreRecordVersion));
    }
    if (version == 0) in_.Fail();
    if (version == 1) return OneWrite();
    while (in_.ok() && !in_.rest().empty()) {
      tree_ = kDefaultTree;
      while (Operation()) {
      }
      ++group_.writes;
    }
    if (!in_.done()) return absl::DataLossError("a log record that is no group of writes");
    return std::move(group_);
  }

 private:
  // Version 1: the number of operations, and those of one write of the default tree, without end.
  absl::StatusOr<LoggedGroup> OneWrite() {
    group_.writes = 1;
    uint64_t left = in_.Varint();
    const auto known = [this] { return !in_.rest().empty() && in_.rest().front() <= kDelete; };
    while (left > 0 && known() && Operation()) --left;
    if (left > 0 || !in_.done()) return absl::DataLossError("a log record that is no write");
    return std::move(group_);
  }

  // False at the end of a write, or of what can be read.
  bool Operation() {
    switch (in_.Fixed8()) {
      case kPut: {
        const std::string_view key = in_.LengthPrefixed();
        Batch().Put(key, in_.LengthPrefixed());
        break;
      }
      case kDelete:
        Batch().Delete(in_.LengthPrefixed());
        break;
      case kDeleteRange: {
        const std::string_view first = in_.LengthPrefixed();
        Batch().DeleteRange(first, in_.LengthPrefixed());
        break;
      }
      case kTree:
        tree_ = TreeId{in_.Varint()};
        break;
      case kCreateTree:
        tree_ = TreeId{in_.Varint()};
        group_.changes.push_back({tree_, LoggedChange::Create{std::string(in_.LengthPrefixed())}});
        break;
      case kDropTree:
        tree_ = TreeId{in_.Varint()};
        group_.changes.push_back({tree_, LoggedChange::Drop{}});
        break;
      case kEndOfWrite:
        return false;
      default:
        in_.Fail();
    }
    return in_.ok();
  }

  WriteBatch& Batch() {
    if (group_.changes.empty() || group_.changes.back().tree != tree_ ||
        !std::holds_alternative<LoggedChange::Apply>(group_.changes.back().what)) {
      group_.changes.push_back({tree_, LoggedChange::Apply{}});
    }
    return std::get<LoggedChange::Apply>(group_.changes.back().what).batch;
  }

  ByteReader in_;
  LoggedGroup group_;
  TreeId tree_ = kDefaultTree;
};

char* StoreLengthPrefixed(char* to, std::string_view bytes) {
  to = StoreVarint(to, bytes.size());
  if (!bytes.empty()) std::memcpy(to, bytes.data(), bytes.size());
  return to + bytes.size();
}

}  // namespace

void GroupEncoder::Begin() {
  if (payload_.empty()) PutFixed8(payload_, kStoreRecordVersion);
}

void GroupEncoder::Add(TreeId tree, const WriteBatch& batch) {
  const size_t room = payload_.size() + BytesFor(batch);
  if (room > payload_.capacity()) payload_.reserve(std::max(room, 2 * payload_.capacity()));
  Begin();
  if (tree != tree_) {
    PutFixed8(payload_, kTree);
    PutVarint(payload_, ToUint(tree));
    tree_ = tree;
  }
  // Without a look at the string's end for each piece: half of the time for a thousand short rows.
  const size_t begin = payload_.size();
  payload_.resize(room);
  char* to = payload_.data() + begin;
  for (const WriteBatch::Operation& operation : batch.operations()) {
    const bool range = operation.range_end.has_value();
    *to++ = static_cast<char>(range ? kDeleteRange : operation.value.has_value() ? kPut : kDelete);
    to = StoreLengthPrefixed(to, operation.key);
    if (operation.value.has_value()) to = StoreLengthPrefixed(to, *operation.value);
    if (range) to = StoreLengthPrefixed(to, *operation.range_end);
  }
  payload_.resize(static_cast<size_t>(to - payload_.data()));
}

void GroupEncoder::CreateTree(TreeId tree, std::string_view name) {
  Begin();
  PutFixed8(payload_, kCreateTree);
  PutVarint(payload_, ToUint(tree));
  PutLengthPrefixed(payload_, name);
  tree_ = tree;
}

void GroupEncoder::DropTree(TreeId tree) {
  Begin();
  PutFixed8(payload_, kDropTree);
  PutVarint(payload_, ToUint(tree));
  tree_ = tree;
}

void GroupEncoder::EndWrite() {
  Begin();
  PutFixed8(payload_, kEndOfWrite);
  tree_ = kDefaultTree;
}

std::string GroupEncoder::Take() { return std::exchange(payload_, {}); }

absl::StatusOr<LoggedGroup> DecodeGroup(std::string_view payload) { return Decoder(payload).Run(); }

}  // namespace dynlib::store
