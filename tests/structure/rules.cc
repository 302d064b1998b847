#include "tests/structure/rules.h"

#include <algorithm>
#include <cctype>
#include <map>
#include <optional>
#include <set>

namespace dynlib::structure {
namespace {

using Exists = std::function<bool(std::string_view)>;

bool Starts(std::string_view s, std::string_view prefix) {
  return s.substr(0, prefix.size()) == prefix;
}
bool Ends(std::string_view s, std::string_view suffix) {
  return s.size() >= suffix.size() && s.substr(s.size() - suffix.size()) == suffix;
}
bool Has(std::string_view s, std::string_view piece) {
  return s.find(piece) != std::string_view::npos;
}

// The folder below dynlib/ that a path is in; nothing for paths elsewhere.
std::optional<std::string> Layer(std::string_view path) {
  constexpr std::string_view kRoot = "dynlib/";
  if (!Starts(path, kRoot)) return std::nullopt;
  path.remove_prefix(kRoot.size());
  return std::string(path.substr(0, path.find('/')));
}

bool IsBlock(const std::string& layer) {
  return std::find(Blocks().begin(), Blocks().end(), layer) != Blocks().end();
}

// Which other layers a layer may include; nothing for a layer that the design does not know.
std::optional<std::set<std::string>> MayInclude(const std::string& layer) {
  if (IsBlock(layer)) return std::set<std::string>{"base", "runtime"};
  static const auto* const kRules = new std::map<std::string, std::set<std::string>>{
      {"base", {}},
      {"runtime", {"base"}},
      {"sim", {"base", "runtime", "testing"}},
      {"testing", {"base", "runtime", "sim"}},
  };
  if (layer == "cluster") {
    std::set<std::string> all(Blocks().begin(), Blocks().end());
    all.insert({"base", "runtime"});
    return all;
  }
  const auto found = kRules->find(layer);
  if (found == kRules->end()) return std::nullopt;
  return found->second;
}

struct Line {
  int number = 0;
  std::string_view text;
};

std::vector<Line> Lines(std::string_view contents) {
  std::vector<Line> lines;
  for (int number = 1; !contents.empty(); ++number) {
    const size_t end = std::min(contents.find('\n'), contents.size());
    lines.push_back({number, contents.substr(0, end)});
    contents.remove_prefix(std::min(end + 1, contents.size()));
  }
  return lines;
}

struct Include {
  int line = 0;
  bool quoted = false;
  std::string path;
};

std::optional<Include> ParseInclude(const Line& line) {
  constexpr std::string_view kDirective = "#include ";
  if (!Starts(line.text, kDirective)) return std::nullopt;
  const std::string_view rest = line.text.substr(kDirective.size());
  if (rest.size() < 2 || (rest[0] != '"' && rest[0] != '<')) return std::nullopt;
  const size_t end = rest.find(rest[0] == '"' ? '"' : '>', 1);
  if (end == std::string_view::npos) return std::nullopt;
  return Include{line.number, rest[0] == '"', std::string(rest.substr(1, end - 1))};
}

std::string CodeOf(std::string_view text) { return std::string(text.substr(0, text.find("//"))); }

class Checker {
 public:
  Checker(const SourceFile& file, const Exists& exists)
      : file_(file), exists_(exists), layer_(Layer(file.path)), lines_(Lines(file.contents)) {}

  std::vector<std::string> Run() {
    if (layer_ && !MayInclude(*layer_))
      Report(1, "dynlib/" + *layer_ + " is no layer of the design");
    if (IsHeader()) CheckGuard();
    for (const Line& line : lines_) {
      if (const auto include = ParseInclude(line)) {
        CheckIncludePath(*include);
        CheckLayer(*include);
        CheckSystemInclude(*include);
      }
      CheckText(line);
    }
    return std::move(offences_);
  }

 private:
  bool IsHeader() const { return Ends(file_.path, ".h"); }
  // Says so before its include guard.
  bool IsInternal() const {
    return file_.contents.substr(0, file_.contents.find("#ifndef")).find("// Internal to ") !=
           std::string::npos;
  }

  // Code that must run unchanged in the simulator: the blocks and what joins them.
  bool IsSimulated() const { return layer_ && (IsBlock(*layer_) || *layer_ == "cluster"); }

  void Report(int line, const std::string& what) {
    offences_.push_back(file_.path + ":" + std::to_string(line) + ": " + what);
  }

  // The path in capitals; outside dynlib/ with or without the project's name in front.
  void CheckGuard() {
    std::string guard;
    for (const char c : file_.path) {
      const auto byte = static_cast<unsigned char>(c);
      guard += std::isalnum(byte) != 0 ? static_cast<char>(std::toupper(byte)) : '_';
    }
    guard += '_';
    const auto first = std::find_if(lines_.begin(), lines_.end(),
                                    [](const Line& line) { return Starts(line.text, "#"); });
    if (HasGuard(first, guard) || (!layer_ && HasGuard(first, "DYNLIB_" + guard))) return;
    Report(first == lines_.end() ? 1 : first->number, "the include guard must be " + guard);
  }

  bool HasGuard(std::vector<Line>::const_iterator first, const std::string& guard) const {
    return first != lines_.end() && first + 1 != lines_.end() &&
           first->text == "#ifndef " + guard && (first + 1)->text == "#define " + guard;
  }

  void CheckIncludePath(const Include& include) {
    const std::string& path = include.path;
    if (Has(path, "../") || Starts(path, "./")) {
      Report(include.line, "include paths are full from the root: " + path);
      return;
    }
    const bool ours = Starts(path, "dynlib/") || Starts(path, "tests/") ||
                      Starts(path, "examples/") || Starts(path, "benchmarks/");
    if (!ours) {
      // A neighbour named without its folder would be found by the compiler all the same.
      const std::string neighbour = file_.path.substr(0, file_.path.rfind('/') + 1) + path;
      if (include.quoted && exists_(neighbour)) {
        Report(include.line, "include paths are full from the root: " + neighbour);
      }
      return;
    }
    if (!include.quoted) Report(include.line, "our own headers are included with quotes: " + path);
    if (!exists_(path) && !IsGenerated(path)) Report(include.line, "there is no " + path);
  }

  bool IsGenerated(std::string_view path) const {
    for (const std::string_view suffix : {".pb.h", ".grpc.pb.h"}) {
      if (Ends(path, suffix) &&
          exists_(std::string(path.substr(0, path.size() - suffix.size())) + ".proto"))
        return true;
    }
    return false;
  }

  void CheckLayer(const Include& include) {
    if (!layer_) return;
    const auto target = Layer(include.path);
    if (target && *target != *layer_) {
      const auto allowed = MayInclude(*layer_);
      if (allowed && allowed->count(*target) == 0) {
        Report(include.line,
               "dynlib/" + *layer_ + " must not depend on dynlib/" + *target + ": " + include.path);
      }
    }
    if (Starts(include.path, "tests/") || Starts(include.path, "examples/") ||
        Starts(include.path, "benchmarks/")) {
      Report(include.line, "the library must not depend on " + include.path);
    }
    if (IsHeader() && !IsInternal() &&
        (Ends(include.path, ".pb.h") || Starts(include.path, "google/protobuf/"))) {
      Report(include.line, "messages stay out of headers that users include: " + include.path);
    }
  }

  void CheckSystemInclude(const Include& include) {
    if (!IsSimulated() || include.quoted) return;
    static const auto* const kForbidden = new std::set<std::string>{
        "condition_variable", "future", "iostream", "random",  "semaphore",
        "stop_token",         "thread", "unistd.h", "fcntl.h", "pthread.h"};
    if (kForbidden->count(include.path) != 0) {
      Report(include.line, "<" + include.path +
                               "> does not work in the simulator; use what dynlib/runtime offers");
    }
  }

  void CheckText(const Line& line) {
    const std::string code = CodeOf(line.text);
    if (IsHeader() && Has(code, "using namespace "))
      Report(line.number, "no using-directive in a header");
    if (IsSimulated()) {
      for (const std::string_view clock :
           {"steady_clock::now", "system_clock::now", "clock_gettime(", "gettimeofday("}) {
        if (Has(code, clock))
          Report(line.number, "time comes from dynlib::Clock, not from " + std::string(clock));
      }
    }
  }

  const SourceFile& file_;
  const Exists& exists_;
  const std::optional<std::string> layer_;
  const std::vector<Line> lines_;
  std::vector<std::string> offences_;
};

}  // namespace

const std::vector<std::string>& Blocks() {
  static const auto* const kBlocks = new std::vector<std::string>{
      "admission", "archive", "cache", "partition_map", "replication", "scrub", "store"};
  return *kBlocks;
}

std::vector<std::string> Offences(const SourceFile& file, const Exists& exists) {
  return Checker(file, exists).Run();
}

}  // namespace dynlib::structure
