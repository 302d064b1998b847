// What an acceptor holds, slot by slot: the accepted entry, or nothing, or "unknown" (rule R4).
#ifndef DYNLIB_REPLICATION_SLOT_LOG_H_
#define DYNLIB_REPLICATION_SLOT_LOG_H_

#include <deque>

#include "dynlib/base/ids.h"
#include "dynlib/replication/types.h"

namespace dynlib::replication {

class SlotLog {
 public:
  struct Cell {
    Ballot ballot;
    Payload payload;  // Null: nothing is held here.
    bool durable = false;
    Ballot unknown;  // Above Ballot(): something at this ballot may have been accepted and is not
                     // readable.

    bool held() const { return payload != nullptr; }
  };

  // Slots up to `released` are gone for good.
  void Reset(Slot released);
  Slot released() const { return released_; }
  Slot last() const { return released_ + cells_.size(); }
  size_t bytes() const { return bytes_; }

  // Null for slots that were released or never written.
  const Cell* Find(Slot slot) const;
  Cell* Find(Slot slot);

  // Puts an entry at a slot above released(), in place of what is there; clears "unknown" of the
  // same or a lower ballot.
  Cell& Put(Slot slot, Ballot ballot, Payload payload, bool durable);
  void MarkUnknown(Slot slot, Ballot ballot);
  // Drops slots up to `through`.
  void Release(Slot through);

 private:
  Cell& At(Slot slot);

  Slot released_ = 0;
  std::deque<Cell> cells_;  // cells_[i] is slot released_ + 1 + i.
  size_t bytes_ = 0;
};

}  // namespace dynlib::replication

#endif  // DYNLIB_REPLICATION_SLOT_LOG_H_
