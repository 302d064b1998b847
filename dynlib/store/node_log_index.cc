#include "dynlib/store/node_log_index.h"

#include <algorithm>
#include <utility>

#include "dynlib/base/check.h"
#include "dynlib/base/ids.h"

namespace dynlib::store {
namespace {

// What a record costs in the log: its listing stands there twice.
uint64_t BytesOf(const LogIndex::Ref& ref) { return ref.length + 2 * kFrameInfoBytes; }

FrameInfo Mark(FrameKind kind, StreamId stream, uint64_t slot) {
  return {.stream = ToUint(stream), .slot = slot, .kind = kind};
}

}  // namespace

void LogIndex::AddSegment(const Segment& segment) {
  DYNLIB_CHECK(segment.generation > 0);
  const bool added = segments_.emplace(segment.generation, segment).second;
  DYNLIB_CHECK(added);
  empty_segments_.insert(segment.generation);
}

void LogIndex::ExtendSegment(uint64_t generation, uint64_t last_sequence) {
  segments_.at(generation).last_sequence = last_sequence;
}

void LogIndex::SetTorn(uint64_t generation) { segments_.at(generation).torn = true; }

const LogIndex::Stream* LogIndex::FindStream(StreamId stream) const {
  auto it = streams_.find(stream);
  return it == streams_.end() ? nullptr : &it->second;
}

void LogIndex::Hold(StreamId id, Stream& stream, uint64_t slot, const Ref& ref) {
  Segment& segment = segments_.at(ref.generation);
  if (segment.live_records++ == 0) empty_segments_.erase(ref.generation);
  segment.live_bytes += BytesOf(ref);
  stream.retained_bytes += BytesOf(ref);
  if (!stream.archived_through.has_value() || slot <= *stream.archived_through) return;
  stream.unarchived_bytes += BytesOf(ref);
  NoteFullness(id, stream);
}

void LogIndex::LetGo(StreamId id, Stream& stream, uint64_t slot, const Ref& ref) {
  Segment& segment = segments_.at(ref.generation);
  DYNLIB_CHECK(segment.live_records > 0);
  if (--segment.live_records == 0) empty_segments_.insert(ref.generation);
  segment.live_bytes -= BytesOf(ref);
  stream.retained_bytes -= BytesOf(ref);
  if (!stream.archived_through.has_value() || slot <= *stream.archived_through) return;
  stream.unarchived_bytes -= BytesOf(ref);
  NoteFullness(id, stream);
}

void LogIndex::LetGo(StreamId id, Stream& stream, std::optional<StateRef>& state) {
  if (!state.has_value()) return;
  LetGo(id, stream, 0, state->ref);
  state.reset();
}

// Mostly it is in the newest already.
void LogIndex::NoteSegment(StreamId id, Stream& stream, uint64_t generation) {
  if (std::exchange(stream.noted_segment, generation) == generation) return;
  if (segments_.at(generation).streams.insert(id).second) ++stream.segments;
}

void LogIndex::NoteFullness(StreamId id, const Stream& stream) {
  if (stream.archived_through.has_value() && stream.unarchived_bytes >= unarchived_bound_) {
    full_streams_.insert(id);
  } else if (!full_streams_.empty()) {
    full_streams_.erase(id);
  }
}

void LogIndex::SetArchived(StreamId id, uint64_t through_slot) {
  Stream& stream = streams_[id];
  const bool first = !stream.archived_through.has_value();
  const uint64_t before = stream.archived_through.value_or(0);
  if (!first && through_slot <= before) return;
  const auto count = [&](const absl::btree_map<uint64_t, Ref>& refs) {
    uint64_t bytes = 0;
    auto it = refs.upper_bound(first ? through_slot : before);
    for (; it != refs.end() && (first || it->first <= through_slot); ++it) {
      bytes += BytesOf(it->second);
    }
    return bytes;
  };
  const uint64_t bytes = count(stream.entries) + count(stream.unknown_entries);
  stream.unarchived_bytes = first ? bytes : stream.unarchived_bytes - bytes;
  stream.archived_through = through_slot;
  NoteFullness(id, stream);
}

void LogIndex::ForetellDrops(const BatchHeader& header) {
  for (const FrameInfo& frame : header.frames) {
    if (frame.kind != FrameKind::kDrop) continue;
    uint64_t& through = foretold_drops_[StreamId{frame.stream}];
    through = std::max(through, frame.slot);
  }
}

bool LogIndex::IsForetoldDead(StreamId id, uint64_t sequence) const {
  if (foretold_drops_.empty()) return false;
  const auto found = foretold_drops_.find(id);
  return found != foretold_drops_.end() && sequence <= found->second;
}

void LogIndex::Apply(const BatchHeader& header, uint64_t offset, const std::vector<bool>& damaged,
                     bool damage_is_harmless) {
  auto it = segments_.find(header.life.generation);
  DYNLIB_CHECK(it != segments_.end());
  Segment& segment = it->second;
  if (segment.first_sequence == 0) segment.first_sequence = header.sequence;
  segment.last_sequence = std::max(segment.last_sequence, header.sequence);

  // Marks speak of earlier batches, so they come before the batch's own records.
  for (const FrameInfo& frame : header.frames) ApplyMark(header, frame);
  uint64_t payload_offset = offset + BatchHeaderLength(header.frames.size());
  for (size_t i = 0; i < header.frames.size(); ++i) {
    const FrameInfo& frame = header.frames[i];
    const Ref ref = {.generation = header.life.generation,
                     .sequence = header.sequence,
                     .ballot = frame.ballot,
                     .checksum = frame.payload_checksum,
                     .offset = static_cast<uint32_t>(payload_offset),
                     .length = frame.payload_length};
    payload_offset += frame.payload_length;
    if (i >= damaged.size() || !damaged[i]) {
      if (frame.kind == FrameKind::kUnknownEntry || frame.kind == FrameKind::kUnknownState) {
        ApplyUnknown(header, frame, ref);
      } else if (frame.kind == FrameKind::kEntry || frame.kind == FrameKind::kState) {
        ApplyRecord(frame, ref);
      }
    } else if (!damage_is_harmless) {
      ApplyDamaged(frame, ref);
    }
  }
}

void LogIndex::ApplyMark(const BatchHeader& header, const FrameInfo& frame) {
  const StreamId id{frame.stream};
  switch (frame.kind) {
    case FrameKind::kDrop:
      ApplyDrop(id, frame.slot);
      break;
    case FrameKind::kRelease:
      if (IsForetoldDead(id, header.sequence)) return;
      // Old news to a running log, which may have released more since; new in a replay.
      if (frame.slot > streams_[id].released_through) {
        Release(id, frame.slot);
        dirty_marks_.erase(id);
      }
      break;
    case FrameKind::kLost:
      if (IsForetoldDead(id, header.sequence)) return;
      streams_[id].lost = true;
      break;
    case FrameKind::kGap:
      AddGap({frame.slot, frame.ballot});
      return;
    default:
      return;
  }
  Stream& stream = streams_[id];
  if (auto old = segments_.find(stream.mark_generation); old != segments_.end()) {
    old->second.marks.erase(id);
  }
  stream.mark_generation = header.life.generation;
  segments_.at(header.life.generation).marks.insert(id);
}

void LogIndex::ApplyDrop(StreamId id, uint64_t through_sequence) {
  Stream& stream = streams_[id];
  if (through_sequence <= stream.drop_sequence) return;  // Said again, after the mark moved.
  stream.drop_sequence = through_sequence;
  stream.released_through = 0;
  stream.lost = false;
  stream.archived_through.reset();
  stream.unarchived_bytes = 0;
  NoteFullness(id, stream);
  const auto drop = [&](auto& refs) {
    for (auto it = refs.begin(); it != refs.end();) {
      if (it->second.sequence > through_sequence) {
        ++it;
        continue;
      }
      LetGo(id, stream, it->first, it->second);
      it = refs.erase(it);
    }
  };
  drop(stream.entries);
  drop(stream.unknown_entries);
  for (std::optional<StateRef>* state : {&stream.state, &stream.unknown_state}) {
    if (state->has_value() && (*state)->ref.sequence <= through_sequence) LetGo(id, stream, *state);
  }
}

void LogIndex::ApplyDamaged(const FrameInfo& frame, const Ref& ref) {
  const StreamId id{frame.stream};
  Stream& stream = streams_[id];
  NoteSegment(id, stream, ref.generation);
  if (IsForetoldDead(id, ref.sequence)) return;
  const RecordKind kind = frame.kind == FrameKind::kEntry ? RecordKind::kEntry : RecordKind::kState;
  PlaceUnknown(id, stream, kind, frame.slot, ref);
}

void LogIndex::ApplyRecord(const FrameInfo& frame, const Ref& ref) {
  const StreamId id{frame.stream};
  Stream& stream = streams_[id];
  NoteSegment(id, stream, ref.generation);
  if (IsForetoldDead(id, ref.sequence)) return;
  // A record settles what was unknown before it; also a copy, behind which its batch says again
  // what is unknown still (UnknownBeside). So a replay needs no segment but those in use.
  if (frame.kind == FrameKind::kEntry) {
    if (!PlaceEntry(id, stream, frame.slot, ref)) return;
    if (auto unknown = stream.unknown_entries.find(frame.slot);
        unknown != stream.unknown_entries.end()) {
      LetGo(id, stream, frame.slot, unknown->second);
      stream.unknown_entries.erase(unknown);
    }
    return;
  }
  LetGo(id, stream, stream.unknown_state);
  LetGo(id, stream, stream.state);
  stream.state = {frame.slot, ref};
  Hold(id, stream, 0, ref);
}

// True if it is kept.
bool LogIndex::PlaceEntry(StreamId id, Stream& stream, uint64_t slot, const Ref& ref) {
  if (slot <= stream.released_through) return false;
  const size_t before = stream.entries.size();
  // Mostly behind all others, where it is put without a search.
  const auto it = stream.entries.try_emplace(stream.entries.end(), slot, ref);
  if (stream.entries.size() == before) {
    if (it->second.ballot > ref.ballot) return false;  // Rule L4: the higher ballot stays.
    LetGo(id, stream, slot, it->second);
    it->second = ref;
  }
  Hold(id, stream, slot, ref);
  return true;
}

void LogIndex::PlaceUnknown(StreamId id, Stream& stream, RecordKind kind, uint64_t slot,
                            const Ref& found) {
  Ref ref = found;
  ref.length = 0;
  ref.checksum = 0;
  if (kind == RecordKind::kState) {
    LetGo(id, stream, stream.unknown_state);
    stream.unknown_state = {slot, ref};
    Hold(id, stream, 0, ref);
    return;
  }
  if (slot <= stream.released_through) return;
  auto known = stream.entries.find(slot);
  if (known != stream.entries.end() && known->second.ballot > ref.ballot) return;
  auto [it, added] = stream.unknown_entries.try_emplace(slot, ref);
  if (!added) {
    LetGo(id, stream, slot, it->second);
    it->second = ref;
  }
  Hold(id, stream, slot, ref);
}

void LogIndex::ApplyUnknown(const BatchHeader& header, const FrameInfo& frame, const Ref& ref) {
  const StreamId id{frame.stream};
  Stream& stream = streams_[id];
  NoteSegment(id, stream, ref.generation);
  if (IsForetoldDead(id, ref.sequence)) return;
  // Copying may have found a record unreadable that was thought to be readable.
  const auto found_unreadable = [&](const Ref& known) {
    return known.generation == header.copied_from && known.ballot == frame.ballot;
  };
  if (frame.kind == FrameKind::kUnknownState) {
    if (stream.state.has_value() && stream.state->slot == frame.slot &&
        found_unreadable(stream.state->ref)) {
      LetGo(id, stream, stream.state);
    }
    return PlaceUnknown(id, stream, RecordKind::kState, frame.slot, ref);
  }
  auto known = stream.entries.find(frame.slot);
  if (known != stream.entries.end() && found_unreadable(known->second)) {
    LetGo(id, stream, frame.slot, known->second);
    stream.entries.erase(known);
  }
  PlaceUnknown(id, stream, RecordKind::kEntry, frame.slot, ref);
}

void LogIndex::MakeUnknown(StreamId id, RecordKind kind, uint64_t slot, const Ref& found) {
  const Ref ref = found;  // `found` may be the very one that goes.
  Stream& stream = streams_.at(id);
  if (kind == RecordKind::kState) {
    LetGo(id, stream, stream.state);
  } else {
    LetGo(id, stream, slot, ref);
    stream.entries.erase(slot);
  }
  PlaceUnknown(id, stream, kind, slot, ref);
}

void LogIndex::DropReleased(StreamId id, Stream& stream, absl::btree_map<uint64_t, Ref>& refs) {
  auto it = refs.begin();
  for (; it != refs.end() && it->first <= stream.released_through; ++it) {
    LetGo(id, stream, it->first, it->second);
  }
  refs.erase(refs.begin(), it);
}

void LogIndex::Release(StreamId id, uint64_t through_slot) {
  Stream& stream = streams_[id];
  if (through_slot <= stream.released_through) return;
  stream.released_through = through_slot;
  DropReleased(id, stream, stream.entries);
  DropReleased(id, stream, stream.unknown_entries);
  dirty_marks_.insert(id);
}

void LogIndex::LoseBatch(uint64_t lost) {
  for (auto& [id, stream] : streams_) {
    if (stream.drop_sequence >= lost || stream.lost) continue;
    stream.lost = true;
    dirty_marks_.insert(id);
  }
}

void LogIndex::AddGap(Gap gap) {
  for (const Gap& known : gaps_) {
    if (known.first <= gap.first && gap.last <= known.last) return;
  }
  gaps_.push_back(gap);
  std::sort(gaps_.begin(), gaps_.end(),
            [](const Gap& a, const Gap& b) { return a.first < b.first; });
  if (gaps_.size() <= kMaxGaps) return;
  gaps_[1].first = gaps_[0].first;  // Coarser, and bounded.
  gaps_.erase(gaps_.begin());
}

std::vector<FrameInfo> LogIndex::TakeDirtyMarks(size_t max_frames) {
  std::vector<FrameInfo> frames;
  while (!dirty_marks_.empty() && frames.size() + 3 <= max_frames) {
    const StreamId id = *dirty_marks_.begin();
    dirty_marks_.erase(dirty_marks_.begin());
    auto it = streams_.find(id);
    if (it == streams_.end()) continue;
    const Stream& stream = it->second;
    if (stream.segments == 0 && !stream.lost) {  // Nothing on disk to outlaw.
      ForgetIfEmpty(id);
      continue;
    }
    // The drop first: it undoes what was said before it.
    if (stream.drop_sequence > 0) {
      frames.push_back(Mark(FrameKind::kDrop, id, stream.drop_sequence));
    }
    if (stream.released_through > 0) {
      frames.push_back(Mark(FrameKind::kRelease, id, stream.released_through));
    }
    if (stream.lost) frames.push_back(Mark(FrameKind::kLost, id, 0));
  }
  return frames;
}

void LogIndex::ReturnMarks(const std::vector<FrameInfo>& frames) {
  for (const FrameInfo& frame : frames) dirty_marks_.insert(StreamId{frame.stream});
}

std::vector<uint64_t> LogIndex::DeadSegments(uint64_t active) const {
  std::vector<uint64_t> dead(empty_segments_.begin(), empty_segments_.end());
  std::erase(dead, active);
  return dead;
}

bool LogIndex::MoveMarksOut(uint64_t generation) {
  const Segment& segment = segments_.at(generation);
  bool moved_all = true;
  for (StreamId id : segment.marks) {
    const Stream& stream = streams_.at(id);
    const uint64_t elsewhere = stream.segments - (segment.streams.contains(id) ? 1 : 0);
    if (elsewhere == 0 && !stream.lost) continue;
    dirty_marks_.insert(id);
    moved_all = false;
  }
  return moved_all;
}

void LogIndex::ForgetIfEmpty(StreamId id) {
  auto it = streams_.find(id);
  if (it == streams_.end() || it->second.segments > 0 || it->second.lost ||
      it->second.archived_through.has_value()) {
    return;
  }
  if (auto segment = segments_.find(it->second.mark_generation); segment != segments_.end()) {
    segment->second.marks.erase(id);
  }
  dirty_marks_.erase(id);
  streams_.erase(it);
}

LogIndex::Segment LogIndex::Free(uint64_t generation) {
  auto it = segments_.find(generation);
  DYNLIB_CHECK(it != segments_.end() && it->second.live_records == 0);
  Segment freed = std::move(it->second);
  segments_.erase(it);
  empty_segments_.erase(generation);
  uint64_t oldest = UINT64_MAX;
  for (const auto& [other, segment] : segments_) {
    oldest = std::min(oldest, segment.first_sequence);
  }
  std::erase_if(gaps_, [&](const Gap& gap) { return gap.last < oldest; });
  for (StreamId id : freed.marks) {
    if (auto stream = streams_.find(id); stream != streams_.end()) {
      stream->second.mark_generation = 0;
      ForgetIfEmpty(id);
    }
  }
  for (StreamId id : freed.streams) {
    auto stream = streams_.find(id);
    DYNLIB_CHECK(stream != streams_.end());
    --stream->second.segments;
    ForgetIfEmpty(id);
  }
  return freed;
}

std::vector<LogIndex::LiveRecord> LogIndex::LiveRecordsOf(uint64_t generation) const {
  std::vector<LiveRecord> known;
  std::vector<LiveRecord> unknown;
  for (StreamId id : segments_.at(generation).streams) {
    const Stream& stream = streams_.at(id);
    const auto add = [&, id = id](std::vector<LiveRecord>& to, FrameKind kind, uint64_t slot,
                                  const Ref& ref) {
      if (ref.generation == generation) to.push_back({id, kind, slot, ref});
    };
    for (const auto& [slot, ref] : stream.entries) add(known, FrameKind::kEntry, slot, ref);
    if (stream.state) add(known, FrameKind::kState, stream.state->slot, stream.state->ref);
    for (const auto& [slot, ref] : stream.unknown_entries) {
      add(unknown, FrameKind::kUnknownEntry, slot, ref);
    }
    if (stream.unknown_state) {
      add(unknown, FrameKind::kUnknownState, stream.unknown_state->slot, stream.unknown_state->ref);
    }
  }
  std::sort(known.begin(), known.end(),
            [](const LiveRecord& a, const LiveRecord& b) { return a.ref.offset < b.ref.offset; });
  known.insert(known.end(), unknown.begin(), unknown.end());
  return known;
}

bool LogIndex::StillLive(const LiveRecord& record) const {
  const Stream* stream = FindStream(record.stream);
  if (stream == nullptr) return false;
  const auto same = [&](const auto& refs) {
    auto it = refs.find(record.slot);
    return it != refs.end() && it->second == record.ref;
  };
  switch (record.kind) {
    case FrameKind::kEntry:
      return same(stream->entries);
    case FrameKind::kUnknownEntry:
      return same(stream->unknown_entries);
    case FrameKind::kState:
      return stream->state.has_value() && stream->state->ref == record.ref;
    default:
      return stream->unknown_state.has_value() && stream->unknown_state->ref == record.ref;
  }
}

std::optional<FrameInfo> LogIndex::UnknownBeside(const LiveRecord& record) const {
  const Stream* stream = FindStream(record.stream);
  if (stream == nullptr) return std::nullopt;
  const auto frame = [&](FrameKind kind, uint64_t slot, const Ref& ref) {
    return FrameInfo{
        .stream = ToUint(record.stream), .slot = slot, .ballot = ref.ballot, .kind = kind};
  };
  if (record.kind == FrameKind::kState && stream->unknown_state.has_value()) {
    return frame(FrameKind::kUnknownState, stream->unknown_state->slot, stream->unknown_state->ref);
  }
  if (record.kind != FrameKind::kEntry) return std::nullopt;
  const auto unknown = stream->unknown_entries.find(record.slot);
  if (unknown == stream->unknown_entries.end()) return std::nullopt;
  return frame(FrameKind::kUnknownEntry, record.slot, unknown->second);
}

std::vector<FrameInfo> LogIndex::OpeningFrames() const {
  std::vector<FrameInfo> frames;
  for (const auto& [generation, segment] : segments_) {
    frames.push_back({.stream = segment.first_sequence,
                      .slot = generation,
                      .ballot = segment.last_sequence,
                      .kind = segment.torn ? FrameKind::kLiveTorn : FrameKind::kLive});
  }
  for (const Gap& gap : gaps_) {
    frames.push_back({.slot = gap.first, .ballot = gap.last, .kind = FrameKind::kGap});
  }
  return frames;
}

bool LogIndex::CheckInvariants() const {
  std::map<uint64_t, std::pair<uint64_t, uint64_t>> live;
  std::map<StreamId, uint64_t> in_segments;
  for (const auto& [id, stream] : streams_) {
    uint64_t retained = 0;
    uint64_t unarchived = 0;
    const auto count = [&, id = id](const Ref& ref) {
      auto segment = segments_.find(ref.generation);
      if (segment == segments_.end() || !segment->second.streams.contains(id)) return false;
      ++live[ref.generation].first;
      live[ref.generation].second += BytesOf(ref);
      retained += BytesOf(ref);
      return true;
    };
    for (const auto* refs : {&stream.entries, &stream.unknown_entries}) {
      for (const auto& [slot, ref] : *refs) {
        if (slot <= stream.released_through || !count(ref)) return false;
        if (slot > stream.archived_through.value_or(UINT64_MAX)) unarchived += BytesOf(ref);
      }
    }
    if (unarchived != stream.unarchived_bytes) return false;
    const bool full = stream.archived_through.has_value() && unarchived >= unarchived_bound_;
    if (full != full_streams_.contains(id)) return false;
    if (stream.state && !count(stream.state->ref)) return false;
    if (stream.unknown_state && !count(stream.unknown_state->ref)) return false;
    if (retained != stream.retained_bytes) return false;
  }
  for (const auto& [generation, segment] : segments_) {
    if (live[generation] != std::pair(segment.live_records, segment.live_bytes)) return false;
    if (empty_segments_.contains(generation) != (segment.live_records == 0)) return false;
    for (StreamId id : segment.streams) ++in_segments[id];
    for (StreamId id : segment.marks) {
      const Stream* stream = FindStream(id);
      if (stream == nullptr || stream->mark_generation != generation) return false;
    }
  }
  for (const auto& [id, stream] : streams_) {
    if (in_segments[id] != stream.segments) return false;
  }
  return true;
}

}  // namespace dynlib::store
