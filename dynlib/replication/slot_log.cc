#include "dynlib/replication/slot_log.h"

#include <utility>

#include "dynlib/base/check.h"

namespace dynlib::replication {

void SlotLog::Reset(Slot released) {
  released_ = released;
  cells_.clear();
  bytes_ = 0;
}

const SlotLog::Cell* SlotLog::Find(Slot slot) const {
  if (slot <= released_ || slot > last()) return nullptr;
  return &cells_[slot - released_ - 1];
}

SlotLog::Cell* SlotLog::Find(Slot slot) {
  return const_cast<Cell*>(std::as_const(*this).Find(slot));
}

SlotLog::Cell& SlotLog::At(Slot slot) {
  DYNLIB_CHECK(slot > released_);
  if (slot > last()) cells_.resize(slot - released_);
  return cells_[slot - released_ - 1];
}

SlotLog::Cell& SlotLog::Put(Slot slot, Ballot ballot, Payload payload, bool durable) {
  DYNLIB_CHECK(payload != nullptr);
  Cell& cell = At(slot);
  if (cell.held()) bytes_ -= cell.payload->size();
  bytes_ += payload->size();
  cell.ballot = ballot;
  cell.payload = std::move(payload);
  cell.durable = durable;
  if (cell.unknown <= ballot) cell.unknown = Ballot();
  return cell;
}

void SlotLog::MarkUnknown(Slot slot, Ballot ballot) {
  if (slot <= released_) return;
  Cell& cell = At(slot);
  if (cell.held() && cell.ballot >= ballot) return;
  cell.unknown = std::max(cell.unknown, ballot);
}

void SlotLog::Release(Slot through) {
  while (released_ < through && !cells_.empty()) {
    if (cells_.front().held()) bytes_ -= cells_.front().payload->size();
    cells_.pop_front();
    ++released_;
  }
  if (cells_.empty() && released_ < through) released_ = through;
}

}  // namespace dynlib::replication
