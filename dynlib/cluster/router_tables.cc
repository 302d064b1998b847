#include "dynlib/cluster/router_tables.h"

#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"
#include "dynlib/cluster/cluster.pb.h"
#include "dynlib/cluster/service.h"
#include "dynlib/partition_map/partition_record.h"

namespace dynlib::cluster {

RouterTables::RouterTables(const RouterOptions& options, Rpc* rpc, Executor* executor,
                           const Clock* clock, MetricsSink* metrics)
    : options_(options),
      rpc_(rpc),
      executor_(executor),
      clock_(clock),
      metrics_(metrics),
      turn_(options.seed) {}

void RouterTables::Close() {
  closed_ = true;
  executor_->Cancel(timer_);
  questions_.clear();
}

RouterTables::TablePtr RouterTables::Find(const std::string& name) {
  const auto found = tables_.find(name);
  if (found == tables_.end()) return nullptr;
  found->second.used = clock_->Now();
  return found->second.table;
}

void RouterTables::Ask(const std::string& name, Instant deadline, Callback done) {
  auto [question, is_new] = questions_.try_emplace(name);
  question->second.waiters.push_back({deadline, std::move(done)});
  if (!is_new) return;
  question->second.number = ++questions_asked_;
  Send(name);
}

void RouterTables::Send(const std::string& name) {
  Question& question = questions_.at(name);
  const size_t fan_out = std::min(options_.look_up_fan_out, options_.metadata_nodes.size());
  question.unanswered = fan_out;
  for (size_t i = 0; i < fan_out; ++i) {
    Describe(name, [weak = weak_from_this(), name, number = question.number](Answer answer) {
      auto self = weak.lock();
      if (self != nullptr && !self->closed_) self->OnAnswer(name, number, std::move(answer));
    });
  }
}

void RouterTables::Describe(const std::string& name, absl::AnyInvocable<void(Answer)> done) {
  metrics_->Count("router.describes", 1);
  wire::DescribeTableRequest request;
  request.set_name(name);
  rpc_->Call(options_.metadata_nodes[turn_++ % options_.metadata_nodes.size()], kDescribeTable,
             request.SerializeAsString(), options_.look_up_timeout,
             [name, done = std::move(done)](absl::StatusOr<std::string> result) mutable {
               done(ParseReply(name, std::move(result)));
             });
}

RouterTables::Answer RouterTables::ParseReply(const std::string& name,
                                              absl::StatusOr<std::string> result) {
  DYNLIB_RETURN_IF_ERROR(result.status());
  wire::DescribeTableReply reply;
  if (!reply.ParseFromString(*result)) return absl::DataLossError("the reply does not parse");
  if (reply.outcome().code() == static_cast<int>(absl::StatusCode::kNotFound)) return TablePtr();
  if (reply.outcome().code() != 0) return absl::UnavailableError(reply.outcome().message());
  DYNLIB_ASSIGN_OR_RETURN(const partition_map::TableRecord record,
                          partition_map::DecodeTableRecord(reply.table()));
  DYNLIB_ASSIGN_OR_RETURN(TableInfo table, DecodeDescriptor(record.descriptor));
  if (record.dropped || table.deleting) return TablePtr();
  if (table.name != name || table.id != record.table)
    return absl::DataLossError("the answer is about another table");
  return std::make_shared<const TableInfo>(std::move(table));
}

// The first that knows the table is believed. That there is none is believed when nobody says
// otherwise and somebody is sure.
void RouterTables::OnAnswer(const std::string& name, uint64_t number, Answer answer) {
  const auto found = questions_.find(name);
  if (found == questions_.end() || found->second.number != number) return;
  Question& question = found->second;
  --question.unanswered;
  if (absl::IsDataLoss(answer.status())) metrics_->Count("router.malformed", 1);
  if (answer.ok() && *answer != nullptr) question.found = *answer;
  if (answer.ok() && *answer == nullptr) question.denied = true;
  if (question.found == nullptr && question.unanswered > 0) return;
  if (question.found == nullptr && !question.denied) return AskLater(name);
  if (question.found != nullptr) Keep(name, question.found);
  std::vector<Waiter> waiters = std::move(question.waiters);
  Answer told = question.found;
  if (question.found == nullptr)
    told = absl::NotFoundError(Cat("no table is called '", Escape(name), "'"));
  questions_.erase(found);
  for (Waiter& waiter : waiters) {
    waiter.done(told);
    if (closed_) return;
  }
}

void RouterTables::AskLater(const std::string& name) {
  const Instant now = clock_->Now();
  Question& question = questions_.at(name);
  std::erase_if(question.waiters, [now](const Waiter& waiter) { return waiter.deadline <= now; });
  if (question.waiters.empty()) {
    questions_.erase(name);
    return;
  }
  executor_->RunAt(now + options_.retry_delay_max, [weak = weak_from_this(), name] {
    auto self = weak.lock();
    if (self != nullptr && !self->closed_) self->Send(name);
  });
}

void RouterTables::Keep(const std::string& name, TablePtr table) {
  const Instant now = clock_->Now();
  Known& known = tables_[name];
  if (known.table == nullptr || known.table->id != table->id ||
      known.table->version < table->version) {
    known.table = std::move(table);
  }
  known.used = now;
  known.denials = 0;
  if (timer_ == Executor::kNoTimer) {
    timer_ = executor_->RunAt(now + options_.table_interval, [weak = weak_from_this()] {
      if (auto self = weak.lock()) self->Refresh();
    });
  }
}

// From now on each interval: each known table once.
void RouterTables::Refresh() {
  if (closed_) return;
  timer_ = executor_->RunAt(clock_->Now() + options_.table_interval, [weak = weak_from_this()] {
    if (auto self = weak.lock()) self->Refresh();
  });
  DropIdle();
  for (const auto& [table_name, known] : tables_) {
    Describe(table_name, [weak = weak_from_this(), name = table_name](Answer answer) {
      auto self = weak.lock();
      if (self != nullptr && !self->closed_) self->OnRefreshed(name, std::move(answer));
    });
  }
}

void RouterTables::OnRefreshed(const std::string& name, Answer answer) {
  if (absl::IsDataLoss(answer.status())) metrics_->Count("router.malformed", 1);
  const auto found = tables_.find(name);
  if (found == tables_.end() || !answer.ok()) return;
  Known& known = found->second;
  if (*answer != nullptr && (*answer)->id == known.table->id) {
    if ((*answer)->version > known.table->version) known.table = *std::move(answer);
    known.denials = 0;
    return;
  }
  // Another table of the name denies this one, too.
  if (++known.denials < std::max<size_t>(options_.metadata_nodes.size(), 2)) return;
  if (*answer == nullptr) {
    tables_.erase(found);
  } else {
    known.table = *std::move(answer);
    known.denials = 0;
  }
}

void RouterTables::DropIdle() {
  const Instant now = clock_->Now();
  std::erase_if(tables_, [now](const auto& entry) { return now - entry.second.used > kIdleMax; });
  while (tables_.size() > kTablesMax) {
    tables_.erase(std::min_element(tables_.begin(), tables_.end(),
                                   [](auto& a, auto& b) { return a.second.used < b.second.used; }));
  }
}

}  // namespace dynlib::cluster
