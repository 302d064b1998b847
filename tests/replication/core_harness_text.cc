// What a harness says happened, in words.
#include <cstdint>
#include <string>
#include <string_view>
#include <variant>

#include "dynlib/base/strings.h"
#include "tests/replication/core_harness.h"

namespace dynlib::replication {
namespace {

std::string Show(Ballot ballot) { return Cat(ballot.round(), ".", ToUint(ballot.proposer())); }

// Of the grantor: its boot, and a counter.
std::string ShowSupport(uint64_t epoch) {
  return Cat(Liveness::EpochIncarnation(epoch), ".", epoch & UINT32_MAX);
}

}  // namespace

std::string Describe(const GroupMessage& message) {
  std::string text = Cat(ToUint(message.from), "->", ToUint(message.to),
                         ToUint(message.group) == 1 ? "" : Cat(" group ", ToUint(message.group)),
                         message.epoch == 0 ? "" : Cat(" epoch ", message.epoch), " ballot ",
                         Show(message.ballot), ": ");
  if (const auto* prepare = std::get_if<Prepare>(&message.body)) {
    return text + Cat("prepare from ", prepare->from_slot);
  }
  if (const auto* promise = std::get_if<Promise>(&message.body)) {
    text += Cat(promise->granted ? "promise" : "refuses promise", " promised ",
                Show(promise->promised), " from ", promise->from_slot, " chosen ", promise->chosen,
                " support ", ShowSupport(promise->support_epoch));
    for (const Entry& entry : promise->entries)
      text += Cat(" ", entry.slot, "@", Show(entry.ballot));
    for (const UnknownSlot& slot : promise->unknown)
      text += Cat(" ?", slot.slot, "@", Show(slot.ballot));
    return text;
  }
  if (const auto* accept = std::get_if<Accept>(&message.body)) {
    return text + Cat("accept ", accept->first_slot, "+", accept->entries.size(), " chosen ",
                      accept->chosen, " held ", accept->held_by_all);
  }
  if (const auto* accepted = std::get_if<Accepted>(&message.body)) {
    return text + Cat(accepted->granted ? "accepted" : "refuses accept", " promised ",
                      Show(accepted->promised), " stable ", accepted->stable, " chosen ",
                      accepted->chosen, " support ", ShowSupport(accepted->support_epoch));
  }
  if (std::holds_alternative<HealthQuery>(message.body)) return text + "healthy?";
  if (const auto* outdated = std::get_if<Outdated>(&message.body)) {
    return text + Cat("outdated, ", outdated->entries.size(), " entries, released ",
                      outdated->released, outdated->removed ? ", removed" : "");
  }
  if (std::holds_alternative<ConfirmQuery>(message.body)) return text + "still highest?";
  if (std::holds_alternative<ConfirmReply>(message.body)) return text + "still highest";
  const auto& reply = std::get<HealthReply>(message.body);
  return text +
         Cat(reply.healthy ? "healthy" : "not healthy", reply.abandoned ? ", abandoned" : "");
}

std::string Describe(const GroupCore::Event& event) {
  constexpr std::string_view kNames[] = {"calls an election",
                                         "is elected",
                                         "is deposed",
                                         "hears that the leader is healthy",
                                         "decides an unreadable slot empty",
                                         "is, or has a peer that is, too far behind",
                                         "ignores slots that no log can hold",
                                         "adopts a configuration",
                                         "learns that it was removed",
                                         "sees the end of the log",
                                         "gives its ballot up",
                                         "fetched an unreadable slot"};
  std::string text(kNames[static_cast<size_t>(event.kind)]);
  if (event.kind == GroupCore::Event::Kind::kElectionStarted) {
    text += Cat(" (", CauseName(event.cause), ")");
  }
  return text + Cat(", ballot ", Show(event.ballot), ", slot ", event.slot);
}

}  // namespace dynlib::replication
