#include "dynlib/sim/engine.h"

#include <algorithm>
#include <utility>

#include "dynlib/base/check.h"
#include "dynlib/base/checksum.h"
#include "dynlib/base/strings.h"

namespace dynlib::sim {
namespace {

std::string_view Name(EventKind kind) {
  switch (kind) {
    case EventKind::kTask:
      return "task";
    case EventKind::kTimer:
      return "timer";
    case EventKind::kWake:
      return "wake";
    case EventKind::kSend:
      return "send";
    case EventKind::kDeliver:
      return "deliver";
    case EventKind::kDrop:
      return "drop";
    case EventKind::kNode:
      return "node";
    case EventKind::kFault:
      return "fault";
    case EventKind::kNote:
      return "note";
  }
  return "?";
}

}  // namespace

void Engine::At(Instant when, NodeId node, EventKind kind, uint64_t detail, Action action) {
  heap_.push_back({std::max(when, now_), next_number_++, node, kind, detail, std::move(action)});
  std::push_heap(heap_.begin(), heap_.end(), &Later);
}

bool Engine::Step(Instant limit) {
  DYNLIB_CHECK(current_ == nullptr);
  if (heap_.empty() || heap_.front().time > limit) return false;
  std::pop_heap(heap_.begin(), heap_.end(), &Later);
  Event event = std::move(heap_.back());
  heap_.pop_back();
  now_ = event.time;
  ++events_;
  Trace(event.node, event.kind, event.detail);
  event.action();
  return true;
}

void Engine::AdvanceTo(Instant when) { now_ = std::max(now_, when); }

void Engine::Clear() {
  // What an event owns may ask for more events as it goes.
  while (!heap_.empty()) {
    std::vector<Event> dropped = std::move(heap_);
    heap_.clear();
  }
}

bool Engine::Delay(Duration delay) {
  if (fibers_.current() == nullptr) return true;
  return current_->DelayFiber(delay);
}

void Engine::CountFault(std::string_view name, uint64_t by) {
  auto it = counts_.find(name);
  if (it == counts_.end()) it = counts_.emplace(std::string(name), 0).first;
  it->second += by;
}

void Engine::Trace(NodeId node, EventKind kind, uint64_t detail) {
  const uint64_t fields[] = {static_cast<uint64_t>(now_.nanos()), ToUint(node),
                             static_cast<uint64_t>(kind), detail};
  hash_ = Checksum({reinterpret_cast<const char*>(fields), sizeof(fields)}, hash_);
  if (sink_ && kind != EventKind::kNote) Say(node, kind, std::to_string(detail));
}

void Engine::Note(NodeId node, std::string_view text) {
  Trace(node, EventKind::kNote, Checksum(text));
  if (sink_) Say(node, EventKind::kNote, text);
}

void Engine::Say(NodeId node, EventKind kind, std::string_view text) {
  std::string micros = std::to_string(now_.nanos() / 1000 % 1'000'000);
  micros.insert(0, 6 - micros.size(), '0');
  sink_(Cat(now_.nanos() / 1'000'000'000, ".", micros, " node ", node, " ", Name(kind), " ", text));
}

}  // namespace dynlib::sim
