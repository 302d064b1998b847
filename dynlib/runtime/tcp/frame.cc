#include "dynlib/runtime/tcp/frame.h"

#include <algorithm>
#include <utility>

#include "dynlib/base/checksum.h"
#include "dynlib/base/coding.h"

namespace dynlib {
namespace {

constexpr uint32_t kMagic = 0x31545944;  // "DYT1"
constexpr size_t kCheckedBytes = 40;

}  // namespace

std::array<char, kFrameHeaderBytes> EncodeFrameHeader(const FrameHeader& header) {
  std::array<char, kFrameHeaderBytes> bytes;
  StoreFixed<uint32_t>(&bytes[0], kMagic);
  StoreFixed<uint32_t>(&bytes[4], header.length);
  StoreFixed<uint64_t>(&bytes[8], ToUint(header.from));
  StoreFixed<uint64_t>(&bytes[16], ToUint(header.to));
  StoreFixed<uint32_t>(&bytes[24], static_cast<uint32_t>(header.channel));
  StoreFixed<uint32_t>(&bytes[28], 0);
  StoreFixed<uint64_t>(&bytes[32], header.checksum);
  StoreFixed<uint64_t>(&bytes[40], Checksum(std::string_view(bytes.data(), kCheckedBytes)));
  return bytes;
}

bool FrameReader::Consume(std::string_view bytes, const Sink& sink) {
  while (true) {
    if (!in_message_) {
      const size_t take = std::min(bytes.size(), kFrameHeaderBytes - header_bytes_.size());
      header_bytes_.append(bytes.substr(0, take));
      bytes.remove_prefix(take);
      if (header_bytes_.size() < kFrameHeaderBytes) return true;
      if (!DecodeHeader()) return false;
      header_bytes_.clear();
      in_message_ = true;
      message_.reserve(header_.length);
    }
    const size_t take = std::min<size_t>(bytes.size(), header_.length - message_.size());
    message_.append(bytes.substr(0, take));
    bytes.remove_prefix(take);
    if (message_.size() < header_.length) return true;
    if (Checksum(message_) != header_.checksum) return false;
    in_message_ = false;
    sink(header_.from, header_.channel, std::exchange(message_, {}));
  }
}

bool FrameReader::DecodeHeader() {
  ByteReader in(header_bytes_);
  const uint32_t magic = in.Fixed32();
  header_.length = in.Fixed32();
  header_.from = NodeId{in.Fixed64()};
  header_.to = NodeId{in.Fixed64()};
  header_.channel = Channel{in.Fixed32()};
  const uint32_t reserved = in.Fixed32();
  header_.checksum = in.Fixed64();
  const uint64_t check = in.Fixed64();
  return magic == kMagic && reserved == 0 &&
         check == Checksum(std::string_view(header_bytes_).substr(0, kCheckedBytes)) &&
         header_.length <= Transport::kMaxMessageBytes && header_.to == self_ &&
         ToUint(header_.from) != 0;
}

}  // namespace dynlib
