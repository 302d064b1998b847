#include "dynlib/store/node_log_recovery.h"

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <map>
#include <set>
#include <span>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"
#include "dynlib/store/node_log_scan.h"
#include "dynlib/store/node_log_segments.h"

namespace dynlib::store {
namespace {

constexpr std::string_view kSegmentSuffix = ".seg";
constexpr std::string_view kUnfinishedSuffix = ".new";
constexpr size_t kMaxNotes = 100;

struct SegmentFile {
  uint64_t number = 0;
  uint64_t size = 0;
  uint64_t unreadable_bytes = 0;
  ScannedSegment scanned;
};

// Which sequences a segment in use holds, as far as the log says.
struct LiveRange {
  uint64_t first = 0;
  uint64_t last = UINT64_MAX;
  bool torn = false;  // The last one was found torn before.
};

std::optional<uint64_t> ParseSegmentName(std::string_view name) {
  if (!name.ends_with(kSegmentSuffix)) return std::nullopt;
  name.remove_suffix(kSegmentSuffix.size());
  uint64_t number = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), number);
  if (error != std::errc() || end != name.data() + name.size()) return std::nullopt;
  return number;
}

class Recoverer {
 public:
  Recoverer(const NodeLog::Options& options, Disk* disk, const std::string& dir,
            NodeLog::Entries entries, LogAccess access, const NodeLog::ReadProgress& progress,
            NodeLog::Recovery* found)
      : options_(options),
        disk_(disk),
        dir_(dir),
        entries_(entries),
        access_(access),
        progress_(progress),
        found_(found) {}

  absl::StatusOr<RecoveredLog> Run() {
    DYNLIB_RETURN_IF_ERROR(ReadFiles());
    FindLiveSegments();
    OrderBatches();
    DYNLIB_RETURN_IF_ERROR(CheckPayloadVersions());
    Replay();
    FindMissingBatches();
    if (access_ == LogAccess::kMayWrite) {
      // Nothing is changed before all that may be of a newer format was looked at.
      DYNLIB_RETURN_IF_ERROR(RemoveUnfinished());
      DYNLIB_RETURN_IF_ERROR(MakeDurable());
    }
    DYNLIB_RETURN_IF_ERROR(ReadPayloads());
    ReportStreams();
    DecideWhereToGoOn();
    found_->last_batch = log_.last_sequence;
    return std::move(log_);
  }

 private:
  struct Placed {
    const SegmentFile* file = nullptr;
    const ScannedBatch* batch = nullptr;
    uint64_t sequence() const { return batch->header.sequence; }
  };

  absl::Status ReadFiles();
  absl::Status ReadSegment(uint64_t number);
  void FindLiveSegments();
  void OrderBatches();
  absl::Status CheckPayloadVersions() const;
  absl::Status RemoveUnfinished();
  void Replay();
  void Judge(const Placed& placed);
  bool KnownTorn(const Placed& placed) const;
  bool OriginalsAreThere(const Placed& placed) const;
  void FindMissingBatches();
  void CheckFiles();
  void Lose(uint64_t first, uint64_t last, std::string why);
  bool KnownGap(uint64_t first, uint64_t last) const;
  absl::Status MakeDurable();
  absl::Status ReadPayloads();
  void ReportStreams();
  void DecideWhereToGoOn();

  void Note(std::string note) {
    if (found_->notes.size() < kMaxNotes) found_->notes.push_back(std::move(note));
  }
  // Of what is counted as damaged or lost.
  void NoteDamage(std::string note) {
    if (found_->first_damage.empty()) found_->first_damage = note;
    Note(std::move(note));
  }
  std::string Where(const Placed& placed) const {
    return Cat(SegmentPath(dir_, placed.file->number), " offset ", placed.batch->offset, " batch ",
               placed.sequence());
  }

  const NodeLog::Options& options_;
  Disk* const disk_;
  const std::string& dir_;
  const NodeLog::Entries entries_;
  const LogAccess access_;
  const NodeLog::ReadProgress& progress_;
  NodeLog::Recovery* const found_;

  AlignedBuffer buffer_;
  uint64_t total_bytes_ = 0;             // Of all segment files.
  std::vector<std::string> unfinished_;  // Paths.
  std::vector<SegmentFile> files_;
  std::map<uint64_t, const SegmentFile*> by_generation_;
  std::map<uint64_t, LiveRange> live_;
  std::vector<Placed> batches_;  // Of segments in use, in the order of sequences.
  RecoveredLog log_;
};

absl::Status Recoverer::ReadFiles() {
  DYNLIB_ASSIGN_OR_RETURN(std::vector<std::string> names, disk_->List(dir_));
  std::vector<uint64_t> numbers;
  for (const std::string& name : names) {
    if (name.ends_with(kUnfinishedSuffix)) {
      unfinished_.push_back(Cat(dir_, "/", name));
    } else if (std::optional<uint64_t> number = ParseSegmentName(name); number.has_value()) {
      numbers.push_back(*number);
    }
  }
  for (uint64_t number : numbers) {
    if (progress_ == nullptr) break;
    DYNLIB_ASSIGN_OR_RETURN(const auto file,
                            disk_->Open(SegmentPath(dir_, number), OpenMode::kRead));
    DYNLIB_ASSIGN_OR_RETURN(const uint64_t size, file->Size());
    total_bytes_ += size;
  }
  for (uint64_t number : numbers) DYNLIB_RETURN_IF_ERROR(ReadSegment(number));
  buffer_.Free();
  for (const SegmentFile& file : files_) {
    log_.last_number = std::max(log_.last_number, file.number);
    log_.last_generation = std::max(log_.last_generation, file.scanned.generation);
    if (!file.scanned.batches.empty()) by_generation_[file.scanned.generation] = &file;
  }
  return absl::OkStatus();
}

absl::Status Recoverer::ReadSegment(uint64_t number) {
  const std::string path = SegmentPath(dir_, number);
  SegmentFile segment = {.number = number};
  DYNLIB_ASSIGN_OR_RETURN(std::unique_ptr<File> file, disk_->Open(path, OpenMode::kRead));
  DYNLIB_ASSIGN_OR_RETURN(segment.size, file->Size());
  // One buffer for all: to fault in fresh memory for each took longer than to read.
  const std::span<char> bytes(buffer_.Get(segment.size), segment.size);
  const auto go_on = [this](uint64_t length) {
    found_->read_bytes += length;
    return progress_ == nullptr || progress_(found_->read_bytes, total_bytes_);
  };
  DYNLIB_ASSIGN_OR_RETURN(segment.unreadable_bytes, ReadWhole(file.get(), bytes, go_on));
  segment.scanned =
      ScanSegment(std::string_view(bytes.data(), bytes.size()), options_.identity, number);
  if (segment.unreadable_bytes > 0) {
    found_->unreadable_bytes += segment.unreadable_bytes;
    Note(Cat(path, ": the device fails to read ", segment.unreadable_bytes, " bytes"));
  }
  const std::optional<SegmentHeader>& header = segment.scanned.header;
  if (header.has_value() && header->format_version > kLogFormatVersion) {
    return absl::FailedPreconditionError(Cat(path, ": log format version ", header->format_version,
                                             "; this program knows versions up to ",
                                             kLogFormatVersion));
  }
  if (header.has_value() && header->life.identity != options_.identity) {
    return absl::FailedPreconditionError(
        Cat(path, " belongs to log ", header->life.identity, ", not to ", options_.identity));
  }
  files_.push_back(std::move(segment));
  return absl::OkStatus();
}

// The first batch of a segment lists the segments that were in use when it was begun; the newest
// such list that can be read, what was begun after it and what was freed, say which are in use now.
void Recoverer::FindLiveSegments() {
  uint64_t list_generation = 0;
  for (auto it = by_generation_.rbegin(); it != by_generation_.rend(); ++it) {
    const BatchHeader& first = it->second->scanned.batches.front().header;
    if (first.sequence != first.segment_first_sequence) continue;
    list_generation = it->first;
    for (const FrameInfo& frame : first.frames) {
      const bool torn = frame.kind == FrameKind::kLiveTorn;
      if (frame.kind != FrameKind::kLive && !torn) continue;
      live_[frame.slot] = {frame.stream, frame.ballot, torn};
    }
    break;
  }
  for (const auto& [generation, file] : by_generation_) {
    if (generation < list_generation || live_.contains(generation)) continue;
    live_[generation] = {.first = file->scanned.batches.front().header.segment_first_sequence};
  }
  // A generation is never used twice, so whoever says that it is free is right for good.
  std::set<uint64_t> freed;
  for (const auto& [generation, file] : by_generation_) {
    for (const ScannedBatch& batch : file->scanned.batches) {
      for (const FrameInfo& frame : batch.header.frames) {
        if (frame.kind == FrameKind::kFree) freed.insert(frame.slot);
      }
    }
  }
  for (uint64_t generation : freed) live_.erase(generation);
}

void Recoverer::OrderBatches() {
  for (const auto& [generation, range] : live_) {
    auto it = by_generation_.find(generation);
    if (it == by_generation_.end()) continue;
    const SegmentFile& file = *it->second;
    const std::optional<SegmentHeader>& header = file.scanned.header;
    log_.index.AddSegment(
        {.generation = generation,
         .number = file.number,
         .segment_bytes = header.has_value() ? header->segment_bytes : file.size,
         .block_bytes = header.has_value() ? header->block_bytes : options_.block_bytes,
         .first_sequence = range.first,
         .last_sequence = range.last == UINT64_MAX ? 0 : range.last,
         .torn = range.torn});
    for (const ScannedBatch& batch : file.scanned.batches) {
      const Placed placed = {&file, &batch};
      if (placed.sequence() >= range.first && placed.sequence() <= range.last) {
        batches_.push_back(placed);
      } else {
        Note(Cat(Where(placed), ": cut by an earlier recovery, left out"));
      }
    }
  }
  std::stable_sort(batches_.begin(), batches_.end(),
                   [](const Placed& a, const Placed& b) { return a.sequence() < b.sequence(); });
  const auto twice = std::unique(batches_.begin(), batches_.end(), [&](const auto& a, auto& b) {
    return a.sequence() == b.sequence();
  });
  if (twice != batches_.end()) Note(Cat(dir_, ": batches of equal sequence, the later left out"));
  batches_.erase(twice, batches_.end());
}

absl::Status Recoverer::CheckPayloadVersions() const {
  const uint8_t newest = options_.payload_version_max;
  if (newest == 0) return absl::OkStatus();
  for (const Placed& placed : batches_) {
    const ScannedBatch& batch = *placed.batch;
    for (size_t i = 0; i < batch.header.frames.size(); ++i) {
      const bool readable = batch.damaged.empty() || !batch.damaged[i];
      const auto version = static_cast<uint8_t>(batch.first_bytes[i]);
      if (batch.header.frames[i].kind != FrameKind::kEntry || !readable) continue;
      if (version <= newest) continue;
      return absl::FailedPreconditionError(Cat(Where(placed), ": a log record of version ", version,
                                               "; this program knows versions up to ", newest));
    }
  }
  return absl::OkStatus();
}

absl::Status Recoverer::RemoveUnfinished() {
  for (const std::string& path : unfinished_) DYNLIB_RETURN_IF_ERROR(disk_->Remove(path));
  return absl::OkStatus();
}

void Recoverer::Replay() {
  for (const Placed& placed : batches_) log_.index.ForetellDrops(placed.batch->header);
  for (const Placed& placed : batches_) {
    Judge(placed);
    log_.index.Apply(placed.batch->header, placed.batch->offset, placed.batch->damaged,
                     OriginalsAreThere(placed));
  }
  found_->segments = log_.index.segments().size();
  if (batches_.empty()) return;
  const BatchHeader& last = batches_.back().batch->header;
  log_.last_sequence = last.sequence;
  log_.last_checksum = last.checksum;
}

bool Closes(const BatchHeader& header) {
  return std::any_of(header.frames.begin(), header.frames.end(),
                     [](const FrameInfo& frame) { return frame.kind == FrameKind::kClose; });
}

// Of a copy: while the segment that it was made from is in use. Torn at the log's end it left its
// originals where they were, and they have been looked after since.
bool Recoverer::OriginalsAreThere(const Placed& placed) const {
  const uint64_t source = placed.batch->header.copied_from;
  return source != 0 && (live_.contains(source) || KnownTorn(placed));
}

bool Recoverer::KnownTorn(const Placed& placed) const {
  const LiveRange& range = live_.at(placed.batch->header.life.generation);
  return range.torn && placed.sequence() == range.last;
}

// Rule L2: torn above what is known to have been durable, damaged below it.
void Recoverer::Judge(const Placed& placed) {
  const bool last = placed.sequence() == batches_.back().sequence();
  const bool closes = Closes(placed.batch->header);
  if (last && closes) found_->clean_close = true;
  if (placed.batch->whole()) {
    ++found_->batches;
  } else if (KnownTorn(placed)) {
    Note(Cat(Where(placed), ": found torn by an earlier recovery"));
  } else if (last && !closes) {
    ++found_->torn_batches;
    log_.index.SetTorn(placed.batch->header.life.generation);
    Note(Cat(Where(placed), ", the last: torn or damaged; ", placed.batch->problem));
  } else {
    ++found_->damaged_batches;
    NoteDamage(Cat(Where(placed), ": damaged; ", placed.batch->problem));
  }
}

bool Recoverer::KnownGap(uint64_t first, uint64_t last) const {
  const auto covers = [&](const LogIndex::Gap& gap) {
    return gap.first <= first && last <= gap.last;
  };
  return std::any_of(log_.index.gaps().begin(), log_.index.gaps().end(), covers) ||
         std::any_of(log_.new_gaps.begin(), log_.new_gaps.end(), covers);
}

void Recoverer::Lose(uint64_t first, uint64_t last, std::string why) {
  if (KnownGap(first, last)) return;
  found_->lost_batches += last - first + 1;
  NoteDamage(std::move(why));
  log_.index.LoseBatch(last);
  log_.new_gaps.push_back({first, last});
}

// Within a segment the sequences follow one another, and each batch carries the checksum of the one
// before it.
void Recoverer::FindMissingBatches() {
  std::map<uint64_t, std::vector<const Placed*>> by_generation;
  for (const Placed& placed : batches_) {
    by_generation[placed.batch->header.life.generation].push_back(&placed);
  }
  for (const auto& [generation, range] : live_) {
    uint64_t expected = range.first;
    for (const Placed* placed : by_generation[generation]) {
      if (placed->sequence() > expected) {
        Lose(expected, placed->sequence() - 1,
             Cat(Where(*placed), ": batches ", expected, " to ", placed->sequence() - 1,
                 " before it are missing"));
      }
      expected = placed->sequence() + 1;
    }
    if (range.last != UINT64_MAX && expected <= range.last) {
      Lose(expected, range.last,
           Cat(dir_, ": batches ", expected, " to ", range.last, " of segment generation ",
               generation, " are missing"));
    }
  }
  for (size_t i = 1; i < batches_.size(); ++i) {
    const Placed& before = batches_[i - 1];
    const BatchHeader& header = batches_[i].batch->header;
    if (header.sequence != before.sequence() + 1) continue;
    if (header.previous_checksum == before.batch->header.checksum) continue;
    Lose(before.sequence(), before.sequence(),
         Cat(Where(before), " has checksum ", Hex(before.batch->header.checksum),
             ", the batch after it says ", Hex(header.previous_checksum)));
  }
  CheckFiles();
}

// The newest segment cut off or unreadable, or a file of which nothing can be read: the newest
// batches may have been there.
void Recoverer::CheckFiles() {
  for (const SegmentFile& file : files_) {
    const std::optional<SegmentHeader>& header = file.scanned.header;
    const auto live = live_.find(file.scanned.generation);
    const bool newest = live != live_.end() && live->second.last == UINT64_MAX;
    const bool is_short = header.has_value() && file.size < header->segment_bytes;
    const bool nameless = live == live_.end() && !header.has_value();
    if (newest && (is_short || file.unreadable_bytes > 0)) {
      // One more sequence than is known, so that the next recovery finds it missing as well.
      const uint64_t lost = ++log_.last_sequence;
      log_.index.ExtendSegment(file.scanned.generation, lost);
      Lose(lost, lost, Cat(SegmentPath(dir_, file.number), ": cut off or unreadable at the end"));
    } else if (nameless && file.unreadable_bytes > 0) {
      ++found_->lost_batches;
      NoteDamage(
          Cat(SegmentPath(dir_, file.number), ": unreadable, and nothing says what was in it"));
      log_.index.LoseBatch(UINT64_MAX);
      log_.unreadable.push_back(file.number);
    }
  }
}

// What was read may be in the kernel's cache alone: the process was killed before its sync, or the
// sync failed. Each batch vouches for those before it, so only the last one is in doubt. Written
// again, byte for byte, it is dirty in the cache whatever the cache thinks, and the sync is real.
absl::Status Recoverer::MakeDurable() {
  if (batches_.empty()) return absl::OkStatus();
  const Placed& last = batches_.back();
  uint64_t start = last.batch->offset;
  const uint64_t end = start + last.batch->header.total_length;
  if (last.sequence() == last.batch->header.segment_first_sequence) start = 0;
  DYNLIB_ASSIGN_OR_RETURN(std::unique_ptr<File> file,
                          disk_->Open(SegmentPath(dir_, last.file->number), OpenMode::kReadWrite));
  std::string bytes(std::min(end, last.file->size) - start, '\0');
  absl::Status status = ReadStubbornly(file.get(), start, std::span<char>(bytes));
  if (status.ok()) {
    DYNLIB_RETURN_IF_ERROR(file->WriteAt(start, bytes));
  } else if (status.code() != absl::StatusCode::kDataLoss) {
    return status;
  }
  return file->Sync();
}

absl::Status Recoverer::ReadPayloads() {
  PayloadReader reader(disk_, dir_, options_.identity);
  for (const auto& [generation, segment] : log_.index.segments()) {
    for (const LogIndex::LiveRecord& record : log_.index.LiveRecordsOf(generation)) {
      if (record.kind != FrameKind::kEntry && record.kind != FrameKind::kState) continue;
      if (record.kind == FrameKind::kEntry && entries_ == NodeLog::Entries::kLater) continue;
      const RecordKind kind =
          record.kind == FrameKind::kEntry ? RecordKind::kEntry : RecordKind::kState;
      absl::StatusOr<std::string> payload = reader.Read(segment, record.ref);
      if (payload.status().code() == absl::StatusCode::kDataLoss) {
        ++found_->damaged_batches;
        NoteDamage(std::string(payload.status().message()));
        log_.index.MakeUnknown(record.stream, kind, record.slot, record.ref);
        continue;
      }
      DYNLIB_RETURN_IF_ERROR(payload.status());
      LogRecord read = {record.stream, kind, record.slot, record.ref.ballot, *std::move(payload)};
      NodeLog::RecoveredStream& stream = found_->streams[record.stream];
      if (kind == RecordKind::kState) {
        stream.state = std::move(read);
      } else {
        stream.entries.push_back(std::move(read));
      }
    }
  }
  return absl::OkStatus();
}

void Recoverer::ReportStreams() {
  for (const auto& [id, stream] : log_.index.streams()) {
    if (stream.unknown_entries.empty() && !stream.unknown_state && !stream.lost) continue;
    NodeLog::RecoveredStream& report = found_->streams[id];
    report.lost_batch = stream.lost;
    for (const auto& [slot, ref] : stream.unknown_entries) {
      report.unknown.push_back({slot, ref.ballot, RecordKind::kEntry});
    }
    if (stream.unknown_state) {
      report.unknown.push_back(
          {stream.unknown_state->slot, stream.unknown_state->ref.ballot, RecordKind::kState});
    }
  }
  for (auto& [id, report] : found_->streams) {
    std::sort(report.entries.begin(), report.entries.end(),
              [](const LogRecord& a, const LogRecord& b) { return a.slot < b.slot; });
  }
}

void Recoverer::DecideWhereToGoOn() {
  for (const SegmentFile& file : files_) {
    const auto segment = log_.index.segments().find(file.scanned.generation);
    if (segment != log_.index.segments().end() && segment->second.number == file.number) continue;
    if (std::count(log_.unreadable.begin(), log_.unreadable.end(), file.number) > 0) continue;
    log_.unused.push_back({file.number, file.size == options_.segment_bytes});
  }
  const bool damage = found_->damaged_batches + found_->lost_batches + found_->torn_batches +
                          found_->unreadable_bytes >
                      0;
  if (!found_->clean_close || damage) return;
  const Placed& last = batches_.back();
  const std::optional<SegmentHeader>& header = last.file->scanned.header;
  const uint64_t end = last.batch->offset + last.batch->header.total_length;
  if (!header.has_value() || header->life.generation != log_.last_generation) return;
  const bool right_shape =
      header->segment_bytes == options_.segment_bytes ||
      header->segment_bytes == RestSegmentBytes(options_.segment_bytes, options_.block_bytes);
  if (right_shape && header->block_bytes == options_.block_bytes &&
      last.file->size == header->segment_bytes) {
    log_.append_offset = end;
  }
}

}  // namespace

std::string SegmentPath(const std::string& dir, uint64_t number) {
  char name[32];
  std::snprintf(name, sizeof(name), "%08llu.seg", static_cast<unsigned long long>(number));
  return Cat(dir, "/", std::string_view(name));
}

absl::StatusOr<RecoveredLog> RecoverLog(const NodeLog::Options& options, Disk* disk,
                                        const std::string& dir, NodeLog::Entries entries,
                                        LogAccess access, const NodeLog::ReadProgress& progress,
                                        NodeLog::Recovery* found) {
  return Recoverer(options, disk, dir, entries, access, progress, found).Run();
}

}  // namespace dynlib::store
