// What GAC clients and servers tell one another, and its bytes.
//
// A client sends each server a GacReport now and then: how much was asked of each limit since the
// last one, and which grant it works with. The server answers with GacGrants: for each limit a rate
// that the client may admit at, for a limited time.
//
// Order and repetition: a client numbers its reports (`sequence`, over all servers); a server says
// which of its lives it is in (`generation`). Both sides drop what is late or repeated.
//
// Bytes: a version, then varints and little-endian doubles; each entry carries its length, so that
// a newer peer may append fields. Decode is safe on any bytes: kInvalidArgument for what is not a
// message of a known version, has more than kGacEntriesMax entries, or a rate that is not a number
// from 0 to 1e9. The bytes carry no checksum of their own: the transport's does.
#ifndef DYNLIB_ADMISSION_GAC_MESSAGE_H_
#define DYNLIB_ADMISSION_GAC_MESSAGE_H_

#include <compare>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "dynlib/admission/request_units.h"
#include "dynlib/base/ids.h"
#include "dynlib/base/time.h"

namespace dynlib::admission {

// What is limited: anything that a service numbers. For tables, LimitOf.
enum class LimitId : uint64_t {};

constexpr LimitId LimitOf(TableId table, Operation operation) {
  return LimitId{ToUint(table) << 1 | static_cast<uint64_t>(operation)};
}

inline constexpr size_t kGacEntriesMax = 4096;

// A limit as its owner set it; the one with the higher version is newer.
struct LimitRate {
  uint64_t version = 0;  // 0: not told
  double units_per_second = 0;

  friend bool operator==(const LimitRate&, const LimitRate&) = default;
};

// The grant that a client works with.
struct GacClaim {
  uint64_t generation = 0;  // of the server that gave it; 0: none
  uint64_t sequence = 0;    // of the report that it answered
  double units_per_second = 0;
  Duration valid_for{0};  // what is left of it

  friend bool operator==(const GacClaim&, const GacClaim&) = default;
};

struct GacReportEntry {
  LimitId limit{};
  LimitRate rate;
  uint64_t asked_units = 0;     // admitted or not, in `period`
  uint64_t admitted_units = 0;  // of these
  Duration period{0};
  GacClaim claim;

  friend bool operator==(const GacReportEntry&, const GacReportEntry&) = default;
};

struct GacReport {
  ClientId client{};
  uint64_t incarnation = 0;  // higher after each restart of the client
  uint64_t sequence = 0;     // from 1
  std::vector<GacReportEntry> entries;

  friend bool operator==(const GacReport&, const GacReport&) = default;
};

enum class GacAnswer : uint8_t {
  kGranted = 1,   // admit at units_per_second for valid_for
  kLearning = 2,  // so too, but the server was started lately: no less than the safe rate
  kUnknown = 3,   // the server was not told this limit
  kFull = 4,      // the server keeps no more limits or clients
};

struct GacGrantEntry {
  LimitId limit{};
  GacAnswer answer = GacAnswer::kGranted;
  bool scarce = false;  // the table is asked for more than its limit: reporting early is no use
  double units_per_second = 0;
  Duration valid_for{0};  // from when the report was sent

  friend bool operator==(const GacGrantEntry&, const GacGrantEntry&) = default;
};

struct GacGrants {
  uint64_t generation = 0;
  ClientId client{};
  uint64_t incarnation = 0;
  uint64_t sequence = 0;  // of the report
  Duration report_after{0};
  std::vector<GacGrantEntry> entries;

  friend bool operator==(const GacGrants&, const GacGrants&) = default;
};

std::string Encode(const GacReport& report);
std::string Encode(const GacGrants& grants);
absl::StatusOr<GacReport> DecodeGacReport(std::string_view bytes);
absl::StatusOr<GacGrants> DecodeGacGrants(std::string_view bytes);

}  // namespace dynlib::admission

#endif  // DYNLIB_ADMISSION_GAC_MESSAGE_H_
