// dynlib-store: looks into a store, fills it, checks it, backs it up. `dynlib-store --help`.
#include <cstdio>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"
#include "dynlib/base/time.h"
#include "dynlib/runtime/directory_object_store.h"
#include "dynlib/runtime/posix/posix_disk.h"
#include "dynlib/store/backup.h"
#include "dynlib/store/local_store.h"
#include "dynlib/store/page_compression.h"
#include "dynlib/store/page_file.h"
#include "dynlib/store/store.h"
#include "dynlib/store/store_batch.h"
#include "dynlib/store/store_snapshot.h"
#include "dynlib/store/tree.h"
#include "tools/dynlib_store/arguments.h"
#include "tools/dynlib_store/progress.h"
#include "tools/dynlib_store/rows.h"

namespace dynlib::tool {
namespace {

using store::BackupReport;
using store::LocalStore;
using store::NamedTree;
using store::Store;

// Exit codes; --help lists them.
constexpr int kNotFound = 1;
constexpr int kUsage = 2;
constexpr int kRefused = 3;
constexpr int kDamaged = 4;
constexpr int kFailed = 5;

constexpr Command::Option kTree = {"tree", "NAME", "the named tree; else the default one"};
constexpr Command::Option kQuiet = {"quiet", "", "no progress bar"};
constexpr Command::Option kRate = {"rate-mib", "N", "at most so many MiB a second"};
constexpr Command::Option kJson = {"json", "",
                                   "keys and values are JSON strings, \u0000 to \u00ff bytes"};
constexpr Command::Option kCompress = {"compress", "",
                                       "write pages compressed, where that saves space"};
constexpr Command::Option kPrefix = {"prefix", "NAME",
                                     "of the objects' names, to keep several stores apart"};

constexpr Command::Option kWhatIsWhole = {
    "damaged", "", "of a damaged store what is whole; it may lack its last writes. Exit code 4"};

store::PageFile::Options PagesFor(const Arguments& arguments) {
  store::PageFile::Options pages;
  if (arguments.Has("compress")) pages.compression = store::Compression::kZstd;
  return pages;
}

// The store that a command's first word names; made, if the command has --create.
absl::StatusOr<std::unique_ptr<LocalStore>> OpenStore(const Arguments& arguments,
                                                      Store::Recovery* opened = nullptr) {
  const std::string& folder = arguments.position(0);
  Store::Options options;
  options.create_if_missing = arguments.Has("create");
  options.pages = PagesFor(arguments);
  options.read_only_if_damaged = arguments.Has("damaged");
  Store::Recovery found;
  DYNLIB_ASSIGN_OR_RETURN(auto local,
                          LocalStore::Open(folder, options, MetricsSink::None(), &found));
  for (const std::string& note : found.notes) std::fprintf(stderr, "note: %s\n", note.c_str());
  if (opened != nullptr) *opened = std::move(found);
  return local;
}

absl::StatusOr<NamedTree> TreeOf(Store& store, const Arguments& arguments, bool create = false) {
  const std::string name = arguments.Text("tree");
  if (name.empty()) return NamedTree();
  if (create) return store.OpenTree(name);
  if (std::optional<NamedTree> tree = store.FindTree(name)) return *std::move(tree);
  return absl::NotFoundError(Cat("no tree ", Escape(name), "; `info` lists those there are"));
}

// The end of a command that read what is whole: whether that is all.
absl::Status AllOf(Store& store, const Arguments& arguments) {
  return arguments.Has("damaged") ? store.Health() : absl::OkStatus();
}

// The end of a command that wrote: what it answered is durable.
absl::Status Closed(LocalStore& local, absl::Status status) {
  status.Update(local.Close());
  return status;
}

// A key or value as it was given on the command line.
absl::StatusOr<std::string> Bytes(const Arguments& arguments, const std::string& word) {
  if (!arguments.Has("json") || word.empty()) return word;
  absl::StatusOr<std::string> bytes = ParseJsonString(word);
  if (bytes.ok()) return bytes;
  return absl::InvalidArgumentError(
      Cat(Escape(word), " is no JSON string: ", ToStd(bytes.status().message())));
}

void Print(std::string_view text) { std::fwrite(text.data(), 1, text.size(), stdout); }

// The folder that an object store is in, opened as one.
struct Objects {
  std::unique_ptr<PosixDisk> disk;
  std::unique_ptr<DirectoryObjectStore> store;
};
absl::StatusOr<Objects> OpenObjects(const std::string& folder, bool create) {
  if (!create && !std::filesystem::is_directory(folder)) {
    return absl::NotFoundError(Cat(folder, ": no such folder"));
  }
  Objects objects;
  DYNLIB_ASSIGN_OR_RETURN(objects.disk, PosixDisk::Open({.root = folder}));
  DYNLIB_ASSIGN_OR_RETURN(objects.store, DirectoryObjectStore::Open(objects.disk.get(), "objects"));
  return objects;
}

absl::StatusOr<uint64_t> RateOf(const Arguments& arguments) {
  if (!arguments.Has("rate-mib")) return 0;
  DYNLIB_ASSIGN_OR_RETURN(const uint64_t mebibytes, arguments.Number("rate-mib", 0));
  return mebibytes << 20;
}

absl::Status Info(const Arguments& arguments) {
  Store::Recovery opened;
  DYNLIB_ASSIGN_OR_RETURN(auto local, OpenStore(arguments, &opened));
  const Store::Stats stats = (*local)->stats();
  const auto ms = [](Duration took) { return static_cast<double>(ToMicros(took)) / 1000; };
  std::printf("store            %s\n", arguments.position(0).c_str());
  std::printf(
      "opened           in %.1f ms: %.1f to read the log, %.1f to apply %llu writes of it\n",
      ms(opened.took), ms(opened.log_took), ms(opened.apply_took),
      static_cast<unsigned long long>(opened.replayed_batches));
  std::printf("position         %llu\n", static_cast<unsigned long long>(stats.position));
  std::printf("checkpointed     %llu\n", static_cast<unsigned long long>(stats.checkpointed));
  std::printf("file             %.1f MiB, %.1f MiB of it used\n",
              static_cast<double>(stats.pages.file_bytes) / (1 << 20),
              static_cast<double>(stats.pages.used_bytes) / (1 << 20));
  std::printf("log              %llu segments, %.1f MiB needed\n",
              static_cast<unsigned long long>(stats.log.segments_in_use),
              static_cast<double>(stats.log_bytes) / (1 << 20));
  std::printf("trees            %zu, and the default one\n", stats.trees.size() - 1);
  for (const Store::Stats::TreeStats& tree : stats.trees) {
    if (!tree.name.empty()) std::printf("  %s\n", Escape(tree.name, 255).c_str());
  }
  return absl::OkStatus();
}

absl::Status PrintStats(const Arguments& arguments) {
  DYNLIB_ASSIGN_OR_RETURN(auto local, OpenStore(arguments));
  const Store::Stats stats = (*local)->stats();
  const std::pair<std::string_view, uint64_t> lines[] = {
      {"position", stats.position},
      {"checkpointed", stats.checkpointed},
      {"trees", stats.trees.size()},
      {"log_bytes", stats.log_bytes},
      {"log_segments_in_use", stats.log.segments_in_use},
      {"log_segments_spare", stats.log.segments_spare},
      {"file_bytes", stats.pages.file_bytes},
      {"used_bytes", stats.pages.used_bytes},
      {"generation", stats.pages.generation},
      {"page_memory_bytes", stats.pages.page_memory_bytes},
      {"pages_read", stats.pages.pages_read},
      {"snapshots", stats.snapshots.size()},
  };
  for (const auto& [name, value] : lines) Print(Cat(name, " ", value, "\n"));
  for (const std::string& culprit : stats.culprits) Print(Cat("culprit ", culprit, "\n"));
  return absl::OkStatus();
}

absl::Status Get(const Arguments& arguments) {
  DYNLIB_ASSIGN_OR_RETURN(const std::string key, Bytes(arguments, arguments.position(1)));
  DYNLIB_ASSIGN_OR_RETURN(auto local, OpenStore(arguments));
  DYNLIB_ASSIGN_OR_RETURN(const NamedTree tree, TreeOf(**local, arguments));
  DYNLIB_ASSIGN_OR_RETURN(const std::optional<std::string> value, (*local)->Get(tree, key));
  if (!value.has_value()) return absl::NotFoundError(Cat("no key ", Escape(key)));
  Print(Cat(arguments.Has("json") ? JsonString(*value) : *value, "\n"));
  return AllOf(**local, arguments);
}

absl::Status Put(const Arguments& arguments) {
  DYNLIB_ASSIGN_OR_RETURN(std::string key, Bytes(arguments, arguments.position(1)));
  DYNLIB_ASSIGN_OR_RETURN(std::string value, Bytes(arguments, arguments.position(2)));
  DYNLIB_ASSIGN_OR_RETURN(auto local, OpenStore(arguments));
  DYNLIB_ASSIGN_OR_RETURN(const NamedTree tree, TreeOf(**local, arguments, true));
  store::StoreBatch batch;
  batch.Put(tree, std::move(key), std::move(value));
  return Closed(*local, (*local)->Write(std::move(batch)).status);
}

absl::Status Delete(const Arguments& arguments) {
  DYNLIB_ASSIGN_OR_RETURN(std::string key, Bytes(arguments, arguments.position(1)));
  DYNLIB_ASSIGN_OR_RETURN(auto local, OpenStore(arguments));
  DYNLIB_ASSIGN_OR_RETURN(const NamedTree tree, TreeOf(**local, arguments));
  store::StoreBatch batch;
  batch.Delete(tree, std::move(key));
  return Closed(*local, (*local)->Write(std::move(batch)).status);
}

absl::StatusOr<RowReader::Format> FormatOf(const Arguments& arguments, std::string_view file) {
  std::string name = arguments.Text("format");
  if (name.empty())
    name = file.size() >= 4 && file.substr(file.size() - 4) == ".csv" ? "csv" : "jsonl";
  if (name == "csv") return RowReader::Format::kCsv;
  if (name == "jsonl") return RowReader::Format::kJsonLines;
  return absl::InvalidArgumentError(Cat("--format = ", Escape(name), " is neither csv nor jsonl"));
}

absl::Status PrintRows(const Arguments& arguments, const store::ScanOptions& options,
                       RowReader::Format format, Store& store, bool keys_only) {
  DYNLIB_ASSIGN_OR_RETURN(
      const store::ScanResult result,
      store.Scan(options, [&](std::string_view key, std::string_view value) {
        if (keys_only) {
          Print(Cat(arguments.Has("json") ? JsonString(key) : Escape(key, SIZE_MAX), "\n"));
        } else {
          Print(Cat(format == RowReader::Format::kCsv ? ToCsv(key, value) : ToJson(key, value),
                    "\n"));
        }
        return true;
      }));
  if (result.resume.has_value() && !arguments.Has("limit")) {
    return absl::InternalError("the scan ended early");
  }
  return AllOf(store, arguments);
}

// All rows that can be read, behind damaged pages too. The first damage, if there is any.
absl::Status PrintWholeRows(const Arguments& arguments, const NamedTree& tree,
                            RowReader::Format format, Store& store) {
  absl::Status damage = AllOf(store, arguments);
  const auto print = [&](std::string_view key, std::string_view value) {
    Print(Cat(format == RowReader::Format::kCsv ? ToCsv(key, value) : ToJson(key, value), "\n"));
    return true;
  };
  const auto pass_over = [&](std::string_view first, std::string_view end,
                             const absl::Status& why) {
    std::fprintf(stderr, "note: keys from %s to %s cannot be read: %s\n",
                 Escape(first, SIZE_MAX).c_str(), Escape(end, SIZE_MAX).c_str(),
                 std::string(why.message()).c_str());
    damage.Update(why);
    return true;
  };
  DYNLIB_RETURN_IF_ERROR(store.snapshot(tree).ScanReadable("", "", print, pass_over));
  return damage;
}

absl::Status Scan(const Arguments& arguments) {
  DYNLIB_ASSIGN_OR_RETURN(const RowReader::Format format, FormatOf(arguments, ""));
  DYNLIB_ASSIGN_OR_RETURN(const uint64_t limit, arguments.Number("limit", UINT64_MAX));
  DYNLIB_ASSIGN_OR_RETURN(const std::string start, Bytes(arguments, arguments.Text("start")));
  DYNLIB_ASSIGN_OR_RETURN(const std::string end, Bytes(arguments, arguments.Text("end")));
  DYNLIB_ASSIGN_OR_RETURN(const std::string prefix, Bytes(arguments, arguments.Text("prefix")));
  DYNLIB_ASSIGN_OR_RETURN(auto local, OpenStore(arguments));
  DYNLIB_ASSIGN_OR_RETURN(const NamedTree tree, TreeOf(**local, arguments));
  return PrintRows(
      arguments,
      {.tree = tree,
       .start = start,
       .end = end,
       .prefix = prefix,
       .order = arguments.Has("reverse") ? store::ScanOrder::kReverse : store::ScanOrder::kForward,
       .max_rows = limit},
      format, **local, arguments.Has("keys"));
}

absl::Status Dump(const Arguments& arguments) {
  DYNLIB_ASSIGN_OR_RETURN(const RowReader::Format format, FormatOf(arguments, ""));
  DYNLIB_ASSIGN_OR_RETURN(auto local, OpenStore(arguments));
  DYNLIB_ASSIGN_OR_RETURN(const NamedTree tree, TreeOf(**local, arguments));
  if (arguments.Has("damaged")) return PrintWholeRows(arguments, tree, format, **local);
  return PrintRows(arguments, {.tree = tree, .mode = store::ReadMode::kNotKept}, format, **local,
                   false);
}

absl::Status LoadRows(RowReader& reader, Store& store, const NamedTree& tree, uint64_t batch_rows,
                      Progress& progress) {
  store::WriteBatch batch;
  uint64_t rows = 0;
  // The log takes the rows of the next batch while the last one is synced; the end waits for all.
  const auto write = [&](bool durable) {
    store::StoreBatch next;
    next.Add(tree, std::exchange(batch, {}));
    return store.Write(std::move(next), {.durable = durable}).status;
  };
  while (true) {
    DYNLIB_ASSIGN_OR_RETURN(std::optional<Row> row, reader.Next());
    if (!row.has_value()) break;
    batch.Put(std::move(row->key), std::move(row->value));
    ++rows;
    if (batch.size() < batch_rows && batch.bytes() < (1 << 20)) continue;
    DYNLIB_RETURN_IF_ERROR(write(false));
    progress.Show(reader.bytes(), rows);
  }
  DYNLIB_RETURN_IF_ERROR(write(true));
  progress.Finish(reader.bytes(), rows);
  return absl::OkStatus();
}

absl::Status Load(const Arguments& arguments) {
  const std::string& path = arguments.position(1);
  DYNLIB_ASSIGN_OR_RETURN(const RowReader::Format format, FormatOf(arguments, path));
  DYNLIB_ASSIGN_OR_RETURN(const uint64_t batch_rows, arguments.Number("batch", 1000));
  DYNLIB_ASSIGN_OR_RETURN(const uint64_t rate, RateOf(arguments));
  std::unique_ptr<std::FILE, int (*)(std::FILE*)> opened(nullptr, &std::fclose);
  uint64_t total = 0;
  if (path != "-") {
    opened.reset(std::fopen(path.c_str(), "rb"));
    if (opened == nullptr) return absl::NotFoundError(Cat(path, ": cannot be opened"));
    std::error_code error;
    total = std::filesystem::file_size(path, error);
    if (error) total = 0;
  }
  DYNLIB_ASSIGN_OR_RETURN(auto local, OpenStore(arguments));
  DYNLIB_ASSIGN_OR_RETURN(const NamedTree tree, TreeOf(**local, arguments, true));
  RowReader reader(opened != nullptr ? opened.get() : stdin, format);
  Progress progress("loading", total, arguments.Has("quiet"), rate);
  absl::Status status = LoadRows(reader, **local, tree, batch_rows, progress);
  if (absl::IsInvalidArgument(status)) {
    status = absl::InvalidArgumentError(
        Cat(path, ": ", ToStd(status.message()), "; the rows before it are loaded"));
  }
  return Closed(*local, std::move(status));
}

absl::Status Verify(const Arguments& arguments) {
  DYNLIB_ASSIGN_OR_RETURN(const uint64_t rate, RateOf(arguments));
  DYNLIB_ASSIGN_OR_RETURN(auto local, OpenStore(arguments));
  Progress progress("verifying", 0, arguments.Has("quiet"), rate);
  store::PageFile::VerifyReport report;
  const absl::Status status = (*local)->Verify(&report, [&](const auto& so_far) {
    progress.SetTotal(so_far.bytes_total);
    progress.Show(so_far.bytes, 0);
    return true;
  });
  for (const std::string& fault : report.faults) Print(Cat("damage: ", fault, "\n"));
  Print(Cat("pages ", report.pages, "\nlog_batches ", report.log_batches, "\nbytes ", report.bytes,
            "\ndamaged ", report.damaged, "\n"));
  return status;
}

void PrintReport(const BackupReport& report) {
  Print(Cat("position ", report.position, "\ntrees ", report.trees, "\nrows ", report.rows,
            "\nchunks ", report.chunks, "\nbytes ", report.bytes, "\nuploaded_chunks ",
            report.uploaded_chunks, "\nuploaded_bytes ", report.uploaded_bytes, "\nunread_chunks ",
            report.unread_chunks, "\nrows_read ", report.rows_read, "\n"));
}

store::BackupOptions BackupOptionsOf(const Arguments& arguments, std::string name,
                                     Progress* progress) {
  return {.name = std::move(name),
          .prefix = arguments.Text("prefix", "store"),
          .previous = arguments.Text("previous"),
          .read_all = arguments.Has("read-all"),
          .progress = [progress](const BackupReport& report) {
            progress->Show(report.bytes, report.rows);
            return true;
          }};
}

absl::Status Backup(const Arguments& arguments) {
  DYNLIB_ASSIGN_OR_RETURN(const uint64_t rate, RateOf(arguments));
  DYNLIB_ASSIGN_OR_RETURN(auto local, OpenStore(arguments));
  DYNLIB_ASSIGN_OR_RETURN(const Objects objects, OpenObjects(arguments.position(1), true));
  // What the log alone has is in no page yet: the next backup would read it again.
  DYNLIB_RETURN_IF_ERROR((*local)->Checkpoint());
  Progress progress("backing up", 0, arguments.Has("quiet"), rate);
  DYNLIB_ASSIGN_OR_RETURN(
      const BackupReport report,
      store::BackUp((*local)->snapshot("backup"), objects.store.get(),
                    BackupOptionsOf(arguments, arguments.position(2), &progress)));
  progress.Finish(report.bytes, report.rows);
  PrintReport(report);
  return absl::OkStatus();
}

absl::Status Restore(const Arguments& arguments) {
  DYNLIB_ASSIGN_OR_RETURN(const uint64_t rate, RateOf(arguments));
  DYNLIB_ASSIGN_OR_RETURN(const Objects objects, OpenObjects(arguments.position(0), false));
  std::error_code error;
  std::filesystem::path folder =
      std::filesystem::absolute(arguments.position(2), error).lexically_normal();
  if (!folder.has_filename()) folder = folder.parent_path();
  DYNLIB_ASSIGN_OR_RETURN(const std::unique_ptr<PosixDisk> disk,
                          PosixDisk::Open({.root = folder.parent_path().string()}));
  Progress progress("restoring", 0, arguments.Has("quiet"), rate);
  DYNLIB_ASSIGN_OR_RETURN(
      const BackupReport report,
      store::RestoreBackup(objects.store.get(),
                           BackupOptionsOf(arguments, arguments.position(1), &progress), disk.get(),
                           folder.filename().string(), PagesFor(arguments)));
  progress.Finish(report.bytes, report.rows);
  PrintReport(report);
  return absl::OkStatus();
}

absl::Status Backups(const Arguments& arguments) {
  DYNLIB_ASSIGN_OR_RETURN(const Objects objects, OpenObjects(arguments.position(0), false));
  DYNLIB_ASSIGN_OR_RETURN(
      const std::vector<std::string> names,
      store::ListBackups(objects.store.get(), arguments.Text("prefix", "store")));
  for (const std::string& name : names) Print(Cat(name, "\n"));
  return absl::OkStatus();
}

const std::vector<Command>& Commands() {
  static const auto* const kCommands = new std::vector<Command>{
      {"info", {"STORE"}, "What a store holds, in a few lines.", {}, &Info},
      {"stats",
       {"STORE"},
       "Its counters, one a line, and who makes it larger than it should be.",
       {},
       &PrintStats},
      {"get",
       {"STORE", "KEY"},
       "Prints the value of a key. Exit code 1 if there is none.",
       {kTree, kWhatIsWhole, kJson},
       &Get},
      {"put",
       {"STORE", "KEY", "VALUE"},
       "Puts a key, durably.",
       {kTree, {"create", "", "make the store if there is none"}, kJson, kCompress},
       &Put},
      {"delete",
       {"STORE", "KEY"},
       "Deletes a key, durably; none is fine.",
       {kTree, kJson},
       &Delete},
      {"scan",
       {"STORE"},
       "Prints rows in key order.",
       {kTree,
        {"prefix", "P", "keys that start with P"},
        {"start", "K", "keys from K on"},
        {"end", "K", "keys below K"},
        {"reverse", "", "from the last to the first"},
        {"limit", "N", "at most N rows"},
        {"keys", "", "keys alone, escaped"},
        {"json", "", "P and K are JSON strings, and so are the keys that --keys prints"},
        {"format", "F", "jsonl (default) or csv"},
        kWhatIsWhole},
       &Scan},
      {"load",
       {"STORE", "FILE"},
       "Puts the rows of a file; '-' is standard input. CSV has key,value, without a heading; "
       "JSON\n"
       "lines {\"key\": \"...\", \"value\": \"...\"}. Durable when it ends.",
       {kTree,
        {"create", "", "make the store if there is none"},
        {"format", "F", "csv or jsonl; else by the file's name"},
        {"batch", "N", "rows written together (1000)"},
        kCompress,
        kRate,
        kQuiet},
       &Load},
      {"dump",
       {"STORE"},
       "Prints all rows of a tree, as load reads them.",
       {kTree, {"format", "F", "jsonl (default) or csv"}, kWhatIsWhole},
       &Dump},
      {"verify",
       {"STORE"},
       "Reads everything from disk and checks it: STORE, both superblocks of pages, the directory\n"
       "and bitmap of each, all pages of both checkpoints, and the log's segments in use, header,\n"
       "listing and payload of each batch. Not read: free space and spare segments. What is\n"
       "damaged is printed, with file, offset and checksums. Exit code 4 if anything is.",
       {kRate, kQuiet},
       &Verify},
      {"backup",
       {"STORE", "OBJECTS", "NAME"},
       "Backs the store up into the folder OBJECTS. What an earlier backup there has is not\n"
       "stored again, and what has not changed since the one before is not read again.",
       {kPrefix,
        {"previous", "NAME", "the backup to go on from; else the last by name"},
        {"read-all", "", "read what has not changed too, which checks it"},
        kRate,
        kQuiet},
       &Backup},
      {"backups", {"OBJECTS"}, "Lists the backups in a folder.", {kPrefix}, &Backups},
      {"restore",
       {"OBJECTS", "NAME", "STORE"},
       "Makes a store of a backup, in a folder that is absent or empty.",
       {kPrefix, kCompress, kRate, kQuiet},
       &Restore},
  };
  return *kCommands;
}

std::string Help() {
  std::string out =
      "usage: dynlib-store COMMAND ARGUMENT... [OPTION]...\n"
      "       dynlib-store COMMAND --help\n\n";
  for (const Command& command : Commands()) {
    std::string left = Cat("  ", command.name);
    left.resize(12, ' ');
    out += Cat(left, command.help.substr(0, command.help.find('\n')), "\n");
  }
  return out +
         "\nSTORE is the folder of a store; one process at a time can open it.\n"
         "Exit codes: 0 done, 1 not found, 2 wrong arguments, 3 not a store, of a newer format or\n"
         "in use, 4 damaged, 5 failed otherwise.\n";
}

int CodeOf(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kOk:
      return 0;
    case absl::StatusCode::kNotFound:
      return kNotFound;
    case absl::StatusCode::kInvalidArgument:
      return kUsage;
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kAlreadyExists:
      return kRefused;
    case absl::StatusCode::kDataLoss:
      return kDamaged;
    default:
      return kFailed;
  }
}

int Fail(const absl::Status& status) {
  if (!status.ok()) {
    std::fprintf(stderr, "dynlib-store: %s\n", std::string(status.message()).c_str());
  }
  return CodeOf(status);
}

int Run(const std::vector<std::string>& words) {
  if (words.empty() || words[0] == "--help" || words[0] == "help") {
    Print(Help());
    return words.empty() ? kUsage : 0;
  }
  for (const Command& command : Commands()) {
    if (command.name != words[0]) continue;
    const auto arguments = Arguments::Parse(command, {words.begin() + 1, words.end()});
    if (!arguments.ok()) return Fail(arguments.status());
    if (arguments->help()) {
      Print(Usage(command));
      return 0;
    }
    return Fail(command.run(*arguments));
  }
  return Fail(
      absl::InvalidArgumentError(Cat("unknown command ", Escape(words[0]), "\n\n", Help())));
}

}  // namespace
}  // namespace dynlib::tool

int main(int argc, char** argv) { return dynlib::tool::Run({argv + 1, argv + argc}); }
