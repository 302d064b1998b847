#include "tests/replication/transcript.h"

#include <cstdint>
#include <cstdio>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "dynlib/base/strings.h"
#include "dynlib/replication/group_core.h"
#include "dynlib/replication/types.h"
#include "tests/replication/core_harness.h"

namespace dynlib::replication {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

struct Command {
  std::string verb;
  std::vector<std::string> words;  // Without '='.
  std::map<std::string, std::string> arguments;

  int Number(const std::string& name, int otherwise = 0) const {
    const auto it = arguments.find(name);
    return it == arguments.end() ? otherwise : std::stoi(it->second);
  }
  // An index: nodes count from 1 in the text.
  int Node(const std::string& name = "node") const { return Number(name) - 1; }
};

Command Parse(const std::string& line) {
  std::istringstream in(line);
  Command command;
  in >> command.verb;
  for (std::string word; in >> word;) {
    const size_t equals = word.find('=');
    if (equals == std::string::npos) {
      command.words.push_back(word);
    } else {
      command.arguments[word.substr(0, equals)] = word.substr(equals + 1);
    }
  }
  return command;
}

Duration ParseDuration(const std::string& text) {
  const int64_t number = std::stoll(text);
  return text.ends_with("ms") ? Duration(milliseconds(number)) : Duration(seconds(number));
}

class Player {
 public:
  // Empty for no output.
  std::string Play(const Command& command) {
    output_.clear();
    if (command.verb == "group") {
      Begin(command);
    } else {
      Do(command);
    }
    if (!harness_->violation().empty() && !violated_) {
      violated_ = true;
      Say("VIOLATION " + harness_->violation());
    }
    return output_;
  }

 private:
  void Say(const std::string& line) {
    char time[32];
    std::snprintf(time, sizeof(time), "%.1f ms", static_cast<double>(harness_->now_us()) / 1e3);
    output_ += std::string(time) + "  " + line + "\n";
  }

  void Begin(const Command& command) {
    HarnessOptions options;
    options.nodes = command.Number("nodes", 3);
    options.spares = command.Number("spares");
    options.drift = 0;
    options.healed_delay_min = options.healed_delay_max = milliseconds(1);
    options.sync_min = options.sync_max = milliseconds(2);
    options.torn = 0;
    options.group.retained_bytes_max =
        static_cast<size_t>(command.Number("retained", static_cast<int>(256 << 20)));
    options.trace = true;
    // Not before there is a harness to ask for the time.
    options.on_trace = [this](bool is_message, const std::string& line) {
      if (harness_ != nullptr && !quiet_ && (!is_message || messages_)) Say(line);
    };
    harness_ = nullptr;
    violated_ = messages_ = false;
    harness_ = std::make_unique<CoreHarness>(options);
  }

  void Do(const Command& command) {
    const std::string& verb = command.verb;
    if (verb == "run") return harness_->RunFor(ParseDuration(command.words.at(0)));
    if (verb == "until") return AwaitLease(command.Node("not"));
    if (verb == "messages") return void(messages_ = command.words.at(0) == "on");
    if (verb == "propose") return Propose(command);
    if (verb == "read") return Read(command.Node());
    if (verb == "crash") return harness_->Crash(command.Node());
    if (verb == "restart") return harness_->Restart(command.Node());
    if (verb == "isolate") return harness_->Isolate(command.Node());
    if (verb == "join") return harness_->Isolate(command.Node(), false);
    if (verb == "cut") return harness_->Cut(command.Node("from"), command.Node("to"));
    if (verb == "heal") return harness_->HealLinks();
    if (verb == "hang") return harness_->HangDisk(command.Node(), true);
    if (verb == "unhang") return harness_->HangDisk(command.Node(), false);
    if (verb == "damage") return harness_->Damage(command.Node(), command.Number("slot"));
    if (verb == "transfer") return harness_->TransferLeadership(command.Node());
    if (verb == "drop") return harness_->Drop(command.Node());
    if (verb == "checkpoint") return Checkpoint(command.Number("slot"));
    if (verb == "learner") return MakeLearner(command);
    if (verb == "feed")
      return Answer(harness_->AddLearner(command.Node("at"), learners_.at(command.Node())));
    if (verb == "change") return Change(command);
    if (verb == "end") return Answer(harness_->ProposeEnd(command.Node("at")));
    if (verb == "show") return Show();
    Say("there is no command " + verb);
  }

  void AwaitLease(int not_this) {
    harness_->RunUntil(
        [&] { return harness_->LeaseHolder() >= 0 && harness_->LeaseHolder() != not_this; },
        seconds(20));
    const int holder = harness_->LeaseHolder();
    Say(holder < 0 ? "nobody holds the lease" : Cat("node ", holder + 1, " holds the lease"));
  }

  void Propose(const Command& command) {
    const int count = command.Number("count", 1);
    quiet_ = count > 1;
    const Slot first = harness_->Propose(command.Node());
    Slot last = first;
    for (int i = 1; i < count && last != 0; ++i) last = harness_->Propose(command.Node());
    quiet_ = false;
    if (last == 0) {
      Say("refused");
    } else if (count > 1) {
      Say(Cat("propose at ", command.Node() + 1, " slots ", first, " to ", last));
    }
  }

  void Read(int node) {
    const uint64_t before = harness_->reads_confirmed();
    if (!harness_->ReadByQuorum(node)) return Say("no round can be had");
    harness_->RunUntil([&] { return harness_->reads_confirmed() > before; }, seconds(2));
    Say(harness_->reads_confirmed() > before
            ? Cat("a quorum confirmed node ", node + 1, ", which reads at ",
                  harness_->Core(node).read_point())
            : "nobody confirmed it");
  }

  void Checkpoint(Slot slot) {
    for (int node = 0; node < harness_->options().nodes; ++node) {
      if (harness_->Up(node) && harness_->Has(node)) harness_->Checkpoint(node, slot);
    }
  }

  void MakeLearner(const Command& command) {
    const auto kind = command.arguments.find("kind");
    const bool log = kind != command.arguments.end() && kind->second == "log";
    learners_[command.Node()] = harness_->MakeLearner(
        command.Node(), log ? MemberKind::kLog : MemberKind::kStorage, command.Node("from"));
  }

  void Change(const Command& command) {
    const Configuration& present = harness_->Core(command.Node("at")).configuration();
    std::vector<Member> members;
    std::istringstream nodes(command.arguments.at("nodes"));
    for (std::string node; std::getline(nodes, node, ',');) {
      const Member* member = present.FindNode(NodeId{100 + std::stoull(node)});
      members.push_back(member != nullptr ? *member : learners_.at(std::stoi(node) - 1));
    }
    Answer(harness_->ProposeMembers(command.Node("at"), members));
  }

  void Answer(const absl::Status& status) {
    if (!status.ok()) Say(Cat("refused: ", std::string(ToStd(status.message()))));
  }

  void Show() {
    for (int node = 0; node < harness_->options().nodes; ++node) {
      if (!harness_->Up(node)) {
        output_ += Cat("node ", node + 1, "  down\n");
      } else if (harness_->Has(node)) {
        output_ += Cat("node ", node + 1, "  ", ShowCore(node), "\n");
      }
    }
  }

  std::string ShowCore(int node) {
    const GroupCore& core = harness_->Core(node);
    std::string text = Cat("replica ", core.self(), ", ", RoleName(core.role()));
    if (core.kind() == MemberKind::kLog) text += ", log";
    if (!core.member()) text += core.removed() ? ", removed" : ", no member";
    if (core.HoldsLease(harness_->Now(node))) text += ", holds the lease";
    text += Cat(", promised ", core.promised().round(), ".", core.promised().proposer(),
                ", chosen ", core.chosen(), " of ", core.last_slot(), ", log after ",
                core.released(), ", epoch ", core.configuration().epoch, " {");
    for (const Member& member : core.configuration().members)
      text += Cat(text.back() == '{' ? "" : " ", member.replica);
    text += "}";
    if (core.ended() != 0) text += Cat(", ended at ", core.ended());
    if (core.next_deadline() == Instant::Infinite()) text += ", at rest";
    return text;
  }

  std::unique_ptr<CoreHarness> harness_;
  std::map<int, Member> learners_;
  bool messages_ = false;
  bool quiet_ = false;
  bool violated_ = false;
  std::string output_;
};

}  // namespace

std::string RunTranscript(const std::string& text) {
  Player player;
  std::istringstream in(text);
  std::string result;
  std::string output;
  bool has_commands = false;
  bool in_output = false;
  for (std::string line; std::getline(in, line);) {
    if (in_output) {
      in_output = !line.empty();
    } else if (line == "----") {
      in_output = true;
    } else if (line.empty() || line[0] == '#') {
      if (!line.empty() || !has_commands) result += line + "\n";
    } else {
      result += line + "\n";
      output += player.Play(Parse(line));
      has_commands = true;
    }
    if ((line.empty() && has_commands) || (in.peek() == EOF && has_commands)) {
      result += "----\n" + output + "\n";
      output.clear();
      has_commands = false;
      in_output = false;
    }
  }
  while (result.ends_with("\n\n")) result.pop_back();
  return result;
}

}  // namespace dynlib::replication
