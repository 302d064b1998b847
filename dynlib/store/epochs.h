// Epoch-based reclamation: what was unlinked is freed once every reader that could have seen it is
// through (Fraser, "Practical lock-freedom", 2004).
//
//   { Epochs::Guard guard(epochs);  root.load()->...; }                     // any thread, for
//   short Node* old = root.exchange(next);  uint64_t tag = epochs.Advance();      // who unlinks
//   ...  if (epochs.Passed(tag)) delete old;                                // some time later
//
// Each thread announces itself in a slot of its own, so that readers write no cache line that
// others read, but for who frees. A slot belongs to a thread for as long as the Epochs live; a new
// thread whose thread-local storage lies where that of one that ended lay, as is usual, takes over
// its slot. There is a slot for each thread that ever read: 64 bytes.
//
// A Guard is held for memory accesses alone: no file call, no wait, no caller's code of unknown
// length. Guards of one thread may nest.
//
// The order of things: a reader stores its epoch, then loads the pointer; who unlinks changes the
// pointer, then looks at the epochs. All four are sequentially consistent, so one of the two sees
// the other.
//
// Internal to the store. Threads: any.
#ifndef DYNLIB_STORE_EPOCHS_H_
#define DYNLIB_STORE_EPOCHS_H_

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <utility>

namespace dynlib::store {

namespace internal {
// Its address tells threads apart that live at once.
inline thread_local constinit char epoch_thread_mark = 0;
}  // namespace internal

class Epochs {
 public:
  Epochs() = default;
  ~Epochs();
  Epochs(const Epochs&) = delete;
  Epochs& operator=(const Epochs&) = delete;

 private:
  struct alignas(64) Slot {
    std::atomic<const char*> owner{nullptr};
    std::atomic<uint64_t> epoch{0};  // 0: not reading
    std::atomic<uint64_t> reads{0};  // the owner's to write, as is what follows
    uint32_t depth = 0;
  };

 public:
  class Guard {
   public:
    Guard() = default;  // of nothing
    explicit Guard(Epochs& epochs) : slot_(&epochs.OwnSlot()) {
      if (slot_->depth++ == 0) {
        slot_->epoch.store(epochs.epoch_.load(std::memory_order_seq_cst),
                           std::memory_order_seq_cst);
      }
    }
    // Guards stay on their thread.
    Guard(Guard&& other) noexcept : slot_(std::exchange(other.slot_, nullptr)) {}
    Guard& operator=(Guard&& other) noexcept {
      std::swap(slot_, other.slot_);
      return *this;
    }
    ~Guard() {
      if (slot_ != nullptr && --slot_->depth == 0) slot_->epoch.store(0, std::memory_order_release);
    }

    // For statistics, without a line that threads share.
    void CountRead() {
      slot_->reads.store(slot_->reads.load(std::memory_order_relaxed) + 1,
                         std::memory_order_relaxed);
    }

   private:
    Slot* slot_ = nullptr;
  };

  // After unlinking: what the tag stands for.
  uint64_t Advance() { return epoch_.fetch_add(1, std::memory_order_seq_cst); }
  // Nobody who reads began before Advance returned `tag`.
  bool Passed(uint64_t tag) const { return tag < OldestReader(); }
  // The epoch in which the reader began that is at it longest; UINT64_MAX when nobody reads.
  uint64_t OldestReader() const;

  // Calls of CountRead.
  uint64_t reads() const;

 private:
  static constexpr size_t kSlots = 64;
  struct Block {
    std::array<Slot, kSlots> slots;
    std::atomic<Block*> next{nullptr};
  };

  Slot& OwnSlot() {
    const char* self = &internal::epoch_thread_mark;
    const auto hash = reinterpret_cast<uintptr_t>(self) * 0x9e3779b97f4a7c15;
    Slot& first = block_.slots[hash >> 58];
    if (first.owner.load(std::memory_order_relaxed) == self) [[likely]]
      return first;
    return OwnSlotElsewhere(self, hash >> 58);
  }
  Slot& OwnSlotElsewhere(const char* self, size_t first);

  alignas(64) std::atomic<uint64_t> epoch_{1};
  std::mutex mutex_;  // who gives out slots
  Block block_;
};

}  // namespace dynlib::store

#endif  // DYNLIB_STORE_EPOCHS_H_
