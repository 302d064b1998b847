#include "dynlib/cluster/node_directory.h"

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"

namespace dynlib::cluster {
namespace {

constexpr std::string_view kFormatFile = "FORMAT";
constexpr std::string_view kFormatPart = "FORMAT.new";
constexpr std::string_view kFirstLine = "dynlib storage node\n";

std::string FormatText(NodeId node) { return Cat(kFirstLine, "format 1\nnode ", node, "\n"); }

absl::StatusOr<std::string> ReadAll(Disk* disk, std::string_view path) {
  DYNLIB_ASSIGN_OR_RETURN(std::unique_ptr<File> file, disk->Open(path, OpenMode::kRead));
  DYNLIB_ASSIGN_OR_RETURN(uint64_t size, file->Size());
  if (size > 4096)
    return absl::FailedPreconditionError(
        Cat(path, " is ", size, " bytes; this is no storage node's"));
  std::string text(size, '\0');
  DYNLIB_RETURN_IF_ERROR(file->ReadAt(0, text));
  return text;
}

// The second and third line, as words after "format " and "node ".
std::pair<std::string, std::string> ParseFormat(std::string_view text) {
  text.remove_prefix(kFirstLine.size());
  const size_t end = text.find('\n');
  std::string_view format = text.substr(0, end);
  std::string_view node = end == std::string_view::npos ? "" : text.substr(end + 1);
  node = node.substr(0, node.find('\n'));
  if (!format.starts_with("format ") || !node.starts_with("node ")) return {};
  return {std::string(format.substr(7)), std::string(node.substr(5))};
}

// True if the directory is fresh; an error if it is not this node's.
absl::StatusOr<bool> Inspect(Disk* disk, NodeId node) {
  DYNLIB_ASSIGN_OR_RETURN(std::vector<std::string> names, disk->List(""));
  const bool fresh = std::find(names.begin(), names.end(), kFormatFile) == names.end();
  for (const std::string& name : names) {
    const bool ours = name == "LOCK" || name == "log" || name == "pages" || name == "pages.new" ||
                      name == kFormatPart;
    if (fresh && !ours) {
      return absl::FailedPreconditionError(
          Cat("the directory holds \"", name, "\" and no FORMAT: it is no storage node's"));
    }
  }
  if (!fresh) {
    DYNLIB_ASSIGN_OR_RETURN(std::string text, ReadAll(disk, kFormatFile));
    if (!std::string_view(text).starts_with(kFirstLine)) {
      return absl::FailedPreconditionError(
          Cat("FORMAT begins with \"", Escape(text, 24), "\": it is no storage node's"));
    }
    const auto [format, owner] = ParseFormat(text);
    if (format != "1") {
      return absl::FailedPreconditionError(Cat("the directory has format version \"",
                                               Escape(format), "\"; this program reads version 1"));
    }
    if (owner != Cat(node)) {
      return absl::FailedPreconditionError(
          Cat("the directory belongs to node ", Escape(owner), ", not to node ", node));
    }
  }
  return fresh;
}

}  // namespace

// Looks before it locks, so that nothing is written to what is not ours, and again with the lock
// held: another process may have made the directory its own meanwhile.
absl::StatusOr<NodeDirectory> OpenNodeDirectory(Disk* disk, NodeId node) {
  DYNLIB_RETURN_IF_ERROR(Inspect(disk, node).status());
  NodeDirectory directory;
  DYNLIB_ASSIGN_OR_RETURN(directory.lock, disk->Lock("LOCK"));
  DYNLIB_ASSIGN_OR_RETURN(directory.fresh, Inspect(disk, node));
  return directory;
}

absl::Status WriteFormat(Disk* disk, NodeId node) {
  disk->Remove(kFormatPart).IgnoreError();
  {
    DYNLIB_ASSIGN_OR_RETURN(std::unique_ptr<File> file, disk->Open(kFormatPart, OpenMode::kCreate));
    DYNLIB_RETURN_IF_ERROR(file->WriteAt(0, FormatText(node)));
    DYNLIB_RETURN_IF_ERROR(file->Sync());
  }
  DYNLIB_RETURN_IF_ERROR(disk->Rename(kFormatPart, kFormatFile));
  return disk->SyncDir("");
}

}  // namespace dynlib::cluster
