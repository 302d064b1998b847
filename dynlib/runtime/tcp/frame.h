// The bytes of TcpTransport: a header of 48 bytes, then the message.
//
//   bytes 0..3    "DYT1"
//   bytes 4..7    length of the message
//   bytes 8..15   node that sends
//   bytes 16..23  node that it is for: an address may have passed to another node
//   bytes 24..27  channel
//   bytes 28..31  zero
//   bytes 32..39  checksum of the message
//   bytes 40..47  checksum of bytes 0..39, so that a length is believed before the message is there
#ifndef DYNLIB_RUNTIME_TCP_FRAME_H_
#define DYNLIB_RUNTIME_TCP_FRAME_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "dynlib/base/ids.h"
#include "dynlib/runtime/transport.h"

namespace dynlib {

inline constexpr size_t kFrameHeaderBytes = 48;

struct FrameHeader {
  uint32_t length = 0;
  NodeId from{};
  NodeId to{};
  Channel channel{};
  uint64_t checksum = 0;
};

std::array<char, kFrameHeaderBytes> EncodeFrameHeader(const FrameHeader& header);

// Cuts a stream of bytes into messages.
class FrameReader {
 public:
  using Sink = std::function<void(NodeId from, Channel channel, std::string message)>;

  explicit FrameReader(NodeId self) : self_(self) {}

  // Takes the next bytes of the stream and hands over the messages that they complete. False if the
  // stream is damaged: nothing more may be taken from it.
  bool Consume(std::string_view bytes, const Sink& sink);

 private:
  bool DecodeHeader();

  const NodeId self_;
  std::string header_bytes_;  // until it is whole
  bool in_message_ = false;
  FrameHeader header_;
  std::string message_;
};

}  // namespace dynlib

#endif  // DYNLIB_RUNTIME_TCP_FRAME_H_
