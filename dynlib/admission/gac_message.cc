#include "dynlib/admission/gac_message.h"

#include <bit>
#include <limits>

#include "absl/status/status.h"
#include "dynlib/base/coding.h"
#include "dynlib/base/strings.h"

namespace dynlib::admission {
namespace {

constexpr uint8_t kVersion = 1;
constexpr uint8_t kReportKind = 'R';
constexpr uint8_t kGrantsKind = 'G';
constexpr double kRateMax = 1e9;

void PutRate(std::string& out, double rate) { PutFixed64(out, std::bit_cast<uint64_t>(rate)); }

void PutDuration(std::string& out, Duration duration) {
  PutVarint(out, duration.count() < 0 ? 0 : static_cast<uint64_t>(duration.count()));
}

double ReadRate(ByteReader& in) {
  const auto rate = std::bit_cast<double>(in.Fixed64());
  if (!(rate >= 0 && rate <= kRateMax)) in.Fail();
  return in.ok() ? rate : 0;
}

Duration ReadDuration(ByteReader& in) {
  const uint64_t nanos = in.Varint();
  if (nanos > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) in.Fail();
  return Duration(in.ok() ? static_cast<int64_t>(nanos) : 0);
}

std::string EncodeEntry(const GacReportEntry& entry) {
  std::string out;
  PutVarint(out, ToUint(entry.limit));
  PutVarint(out, entry.rate.version);
  PutRate(out, entry.rate.units_per_second);
  PutVarint(out, entry.asked_units);
  PutVarint(out, entry.admitted_units);
  PutDuration(out, entry.period);
  PutVarint(out, entry.claim.generation);
  PutVarint(out, entry.claim.sequence);
  PutRate(out, entry.claim.units_per_second);
  PutDuration(out, entry.claim.valid_for);
  return out;
}

GacReportEntry ReadReportEntry(ByteReader& in) {
  GacReportEntry entry;
  entry.limit = LimitId{in.Varint()};
  entry.rate.version = in.Varint();
  entry.rate.units_per_second = ReadRate(in);
  entry.asked_units = in.Varint();
  entry.admitted_units = in.Varint();
  entry.period = ReadDuration(in);
  entry.claim.generation = in.Varint();
  entry.claim.sequence = in.Varint();
  entry.claim.units_per_second = ReadRate(in);
  entry.claim.valid_for = ReadDuration(in);
  return entry;
}

std::string EncodeEntry(const GacGrantEntry& entry) {
  std::string out;
  PutVarint(out, ToUint(entry.limit));
  PutFixed8(out, static_cast<uint8_t>(entry.answer));
  PutFixed8(out, entry.scarce ? 1 : 0);
  PutRate(out, entry.units_per_second);
  PutDuration(out, entry.valid_for);
  return out;
}

GacGrantEntry ReadGrantEntry(ByteReader& in) {
  GacGrantEntry entry;
  entry.limit = LimitId{in.Varint()};
  const uint8_t answer = in.Fixed8();
  if (answer < static_cast<uint8_t>(GacAnswer::kGranted) ||
      answer > static_cast<uint8_t>(GacAnswer::kFull)) {
    in.Fail();
  }
  entry.answer = static_cast<GacAnswer>(answer);
  const uint8_t scarce = in.Fixed8();
  if (scarce > 1) in.Fail();
  entry.scarce = scarce == 1;
  entry.units_per_second = ReadRate(in);
  entry.valid_for = ReadDuration(in);
  return entry;
}

template <typename Entry>
void PutEntries(std::string& out, const std::vector<Entry>& entries) {
  PutVarint(out, entries.size());
  for (const Entry& entry : entries) PutLengthPrefixed(out, EncodeEntry(entry));
}

// `read` gets a reader of one entry's bytes; what it leaves unread, a newer peer appended.
template <typename Entry, typename Read>
void ReadEntries(ByteReader& in, std::vector<Entry>& entries, Read read) {
  const uint64_t count = in.Varint();
  if (count > kGacEntriesMax) in.Fail();
  for (uint64_t i = 0; i < count && in.ok(); ++i) {
    ByteReader entry(in.LengthPrefixed());
    entries.push_back(read(entry));
    if (!entry.ok()) in.Fail();
  }
}

absl::Status Malformed(const char* what) {
  return absl::InvalidArgumentError(Cat("not a ", what, " message of version ", kVersion));
}

}  // namespace

std::string Encode(const GacReport& report) {
  std::string out;
  PutFixed8(out, kVersion);
  PutFixed8(out, kReportKind);
  PutVarint(out, ToUint(report.client));
  PutVarint(out, report.incarnation);
  PutVarint(out, report.sequence);
  PutEntries(out, report.entries);
  return out;
}

std::string Encode(const GacGrants& grants) {
  std::string out;
  PutFixed8(out, kVersion);
  PutFixed8(out, kGrantsKind);
  PutVarint(out, grants.generation);
  PutVarint(out, ToUint(grants.client));
  PutVarint(out, grants.incarnation);
  PutVarint(out, grants.sequence);
  PutDuration(out, grants.report_after);
  PutEntries(out, grants.entries);
  return out;
}

absl::StatusOr<GacReport> DecodeGacReport(std::string_view bytes) {
  ByteReader in(bytes);
  if (in.Fixed8() != kVersion || in.Fixed8() != kReportKind) return Malformed("GAC report");
  GacReport report;
  report.client = ClientId{in.Varint()};
  report.incarnation = in.Varint();
  report.sequence = in.Varint();
  ReadEntries(in, report.entries, ReadReportEntry);
  if (!in.done()) return Malformed("GAC report");
  return report;
}

absl::StatusOr<GacGrants> DecodeGacGrants(std::string_view bytes) {
  ByteReader in(bytes);
  if (in.Fixed8() != kVersion || in.Fixed8() != kGrantsKind) return Malformed("GAC grants");
  GacGrants grants;
  grants.generation = in.Varint();
  grants.client = ClientId{in.Varint()};
  grants.incarnation = in.Varint();
  grants.sequence = in.Varint();
  grants.report_after = ReadDuration(in);
  ReadEntries(in, grants.entries, ReadGrantEntry);
  if (!in.done()) return Malformed("GAC grants");
  return grants;
}

}  // namespace dynlib::admission
