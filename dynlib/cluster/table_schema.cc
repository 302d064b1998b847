#include "dynlib/cluster/table_schema.h"

#include "dynlib/base/coding.h"
#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"
#include "dynlib/cluster/utf8.h"

namespace dynlib::cluster {
namespace {

constexpr uint8_t kFormatVersion = 1;

absl::Status ValidateKey(std::string_view field, const KeyAttribute& key) {
  if (key.name.empty() || key.name.size() > kKeyAttributeNameBytesMax) {
    return absl::InvalidArgumentError(Cat(field, ".name '", Escape(key.name), "' has ",
                                          key.name.size(), " bytes, allowed are 1 to ",
                                          kKeyAttributeNameBytesMax));
  }
  if (!IsUtf8(key.name)) {
    return absl::InvalidArgumentError(Cat(field, ".name '", Escape(key.name), "' is not UTF-8"));
  }
  if (key.type != KeyType::kNumber && key.type != KeyType::kString &&
      key.type != KeyType::kBinary) {
    return absl::InvalidArgumentError(
        Cat(field, ".type ", key.type, ", allowed are number, string and binary"));
  }
  return absl::OkStatus();
}

void AppendKey(std::string& out, const KeyAttribute& key) {
  PutFixed8(out, static_cast<uint8_t>(key.type));
  PutLengthPrefixed(out, key.name);
}

KeyAttribute ReadKey(ByteReader& in) {
  KeyAttribute key;
  key.type = static_cast<KeyType>(in.Fixed8());
  key.name = std::string(in.LengthPrefixed());
  return key;
}

}  // namespace

absl::Status ValidateSchema(const TableSchema& schema) {
  DYNLIB_RETURN_IF_ERROR(ValidateKey("partition_key", schema.partition_key));
  if (!schema.sort_key) return absl::OkStatus();
  DYNLIB_RETURN_IF_ERROR(ValidateKey("sort_key", *schema.sort_key));
  if (schema.sort_key->name == schema.partition_key.name) {
    return absl::InvalidArgumentError(Cat("sort_key.name '", Escape(schema.sort_key->name),
                                          "' is also the partition key's; they must differ"));
  }
  return absl::OkStatus();
}

std::string EncodeSchema(const TableSchema& schema) {
  std::string out;
  PutFixed8(out, kFormatVersion);
  PutFixed8(out, schema.sort_key ? 2 : 1);
  AppendKey(out, schema.partition_key);
  if (schema.sort_key) AppendKey(out, *schema.sort_key);
  return out;
}

absl::StatusOr<TableSchema> DecodeSchema(std::string_view bytes) {
  ByteReader in(bytes);
  uint8_t version = in.Fixed8();
  if (in.ok() && version != kFormatVersion) {
    return absl::DataLossError(
        Cat("table schema: format version ", version, ", this release reads ", kFormatVersion));
  }
  uint8_t keys = in.Fixed8();
  TableSchema schema;
  schema.partition_key = ReadKey(in);
  if (keys == 2) schema.sort_key = ReadKey(in);
  if (!in.done() || keys < 1 || keys > 2) {
    return absl::DataLossError(Cat("table schema of ", bytes.size(), " bytes is malformed"));
  }
  absl::Status valid = ValidateSchema(schema);
  if (!valid.ok()) return absl::DataLossError(Cat("table schema: ", ToStd(valid.message())));
  return schema;
}

}  // namespace dynlib::cluster
