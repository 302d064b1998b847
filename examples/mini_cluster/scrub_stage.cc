#include "examples/mini_cluster/scrub_stage.h"

#include <chrono>
#include <cstdint>
#include <fstream>
#include <iterator>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "dynlib/base/ids.h"
#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"
#include "dynlib/base/time.h"
#include "dynlib/cluster/catalogue.h"
#include "dynlib/cluster/item.h"
#include "dynlib/cluster/key.h"
#include "examples/mini_cluster/latencies.h"
#include "examples/mini_cluster/names.h"
#include "examples/mini_cluster/report.h"

namespace dynlib::mini_cluster {
namespace {

// A scrub of all partitions that took longer is not repeated, but for the one that was damaged.
constexpr Duration kShort = std::chrono::seconds(10);

// Changes one bit of the byte in the middle of each place where the file has `bytes`: an item is
// there once for every version of its page. Returns where.
absl::StatusOr<std::vector<uint64_t>> Damage(const std::string& path, const std::string& bytes) {
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  const std::string contents((std::istreambuf_iterator<char>(file)),
                             std::istreambuf_iterator<char>());
  file.clear();
  std::vector<uint64_t> places;
  for (size_t at = contents.find(bytes); at != std::string::npos;
       at = contents.find(bytes, at + bytes.size())) {
    const size_t place = at + bytes.size() / 2;
    file.seekp(static_cast<std::streamoff>(place));
    file.put(static_cast<char>(contents[place] ^ 0x10));
    places.push_back(place);
  }
  file.close();
  if (file.fail()) return absl::UnavailableError(Cat(path, " cannot be read or written"));
  if (places.empty()) return absl::NotFoundError(Cat(path, " does not have the item"));
  return places;
}

class ScrubShow {
 public:
  explicit ScrubShow(Stage& stage) : stage_(stage) {}

  absl::Status Run() {
    DYNLIB_RETURN_IF_ERROR(ChooseItem());
    if (!item_.has_value()) {
      Say("scrub       skipped: the data set is too small for items that the load leaves alone");
      return absl::OkStatus();
    }
    DYNLIB_RETURN_IF_ERROR(ChooseReplica());
    // So that its page is in the file.
    DYNLIB_RETURN_IF_ERROR(stage_.cluster.Checkpoint(node_));
    const std::string path = stage_.cluster.PagesPath(node_);
    DYNLIB_ASSIGN_OR_RETURN(const std::vector<uint64_t> places,
                            Damage(path, cluster::EncodeItem(*item_)));
    Say("scrub       one bit of ", Name(), " changed in ", path, ", at offset ", places.back(),
        places.size() > 1 ? Cat(" and in ", places.size() - 1, " older pages") : "",
        ": a copy of partition ", Hex(ToUint(partition_)));
    if (!stage_.switches.scrub) {
      Say("            without scrubs nobody notices: the other replicas serve, and this one has "
          "its tree in memory until it is restarted");
      return absl::OkStatus();
    }
    return Scrub();
  }

 private:
  absl::Status ChooseItem() {
    return stage_.data.ForEach([&](uint64_t, cluster::Item item) {
      absl::StatusOr<std::string> key = cluster::EncodeItemKey(stage_.data.schema(), item);
      if (key.ok() && *key >= stage_.quiet_first && *key < stage_.quiet_end) {
        key_ = *std::move(key);
        item_ = std::move(item);
      }
      return !item_.has_value();
    });
  }

  // One that does not lead: so that nobody reads the damage but the scrub.
  absl::Status ChooseReplica() {
    DYNLIB_ASSIGN_OR_RETURN(const cluster::TableInfo table,
                            stage_.client().ReadTable(kRecordsTable));
    partition_ = table.PartitionOf(key_).id;
    Client::States states = stage_.client().GetStates();
    for (const ReplicaState& state : states[partition_]) {
      if (state.leads || state.log || state.copying || state.removed) continue;
      node_ = state.node;
      return absl::OkStatus();
    }
    return absl::UnavailableError(Cat("partition ", partition_, " has no follower"));
  }

  absl::Status Scrub() {
    Progress("a byte is damaged on node ", node_, "; scrubbing");
    const size_t before = stage_.events.count();
    const Instant start = stage_.Now();
    DYNLIB_ASSIGN_OR_RETURN(const ScrubReport found, stage_.client().ScrubNow(PartitionId{}));
    const Instant end = stage_.Now();
    for (const Events::Kept& event : stage_.events.Since(before, "scrub.damage"))
      Say("            damage on node ", event.Field("node"), ": ", event.Field("what"));
    const std::vector<Events::Kept> differences = stage_.events.Since(before, "scrub.difference");
    // The item itself, or a range around it.
    const Events::Kept* named = nullptr;
    for (const Events::Kept& event : differences) {
      if (event.Field("node") != Cat(node_)) continue;
      if (named == nullptr || event.Field("key") == Escape(key_)) named = &event;
    }
    if (named == nullptr)
      return absl::DataLossError(Cat("the scrub did not name the copy on node ", node_));
    Say("            found: the copy on node ", node_, " of ",
        named->Field("key") == Escape(key_) ? Name() : Cat("items ", named->Field("key")), ": ",
        named->Field("why"),
        differences.size() > 1 ? Cat("; and of ", differences.size() - 1, " items beside it") : "");
    SayReport("all compared", found, end - start);
    if (found.repaired == 0) return absl::DataLossError("nothing was repaired");
    const Instant again = stage_.Now();
    DYNLIB_ASSIGN_OR_RETURN(
        const ScrubReport clean,
        stage_.client().ScrubNow(end - start < kShort ? PartitionId{} : partition_));
    SayReport("and again", clean, stage_.Now() - again);
    if (clean.differences > 0) return absl::DataLossError("a second scrub found differences");
    return absl::OkStatus();
  }

  // "Lo" "0121C4"
  std::string Name() const {
    const cluster::PrimaryKey key = *cluster::KeyOf(stage_.data.schema(), *item_);
    return Cat("item ", key.partition.ToString(40),
               key.sort.has_value() ? Cat(" ", key.sort->ToString(40)) : "");
  }

  void SayReport(const char* name, const ScrubReport& report, Duration took) {
    Say("            ", name, ": ", WithCommas(report.items), " items of ", report.partitions,
        " partitions in ", Seconds(took), ": ", report.differences, " differences, ",
        report.repaired, " repaired",
        // By the load: the log has them right.
        report.unrepaired > 0 ? Cat(", ", report.unrepaired, " written anew meanwhile") : "");
    for (const std::string& failure : report.failures) Say("            not compared: ", failure);
  }

  Stage& stage_;
  std::optional<cluster::Item> item_;
  std::string key_;
  PartitionId partition_{};
  NodeId node_{};
};

}  // namespace

absl::Status ShowScrub(Stage& stage) { return ScrubShow(stage).Run(); }

}  // namespace dynlib::mini_cluster
