#include "dynlib/cluster/tree_copy_service.h"

#include <algorithm>
#include <map>
#include <optional>
#include <string>
#include <utility>

#include "dynlib/base/check.h"
#include "dynlib/base/checksum.h"
#include "dynlib/base/coding.h"
#include "dynlib/base/strings.h"
#include "dynlib/cluster/cluster.pb.h"
#include "dynlib/cluster/service.h"
#include "dynlib/cluster/tree_chunk.h"

namespace dynlib::cluster {
namespace {

constexpr size_t kPinsLimit = 1000;
constexpr Duration kPinIdleMin = std::chrono::milliseconds(1);
constexpr Duration kPinIdleMax = std::chrono::hours(1);
constexpr uint64_t kBytesPerSecondMin = 1 << 10;
// What is read and found to be the same costs the throttle less than what is sent, too.
constexpr size_t kSameBytesForOne = 8;

// Different for each service that a node makes, as long as its clocks do not both repeat.
uint64_t SeedFromClock(const Clock& clock) {
  std::string seed;
  PutFixed64(seed, static_cast<uint64_t>(clock.WallNow().nanos()));
  PutFixed64(seed, static_cast<uint64_t>(clock.Now().nanos()));
  return Checksum(seed);
}

template <typename ReplyMessage>
void Send(Rpc::Reply& reply, ReplyMessage message, const absl::Status& status) {
  wire::Outcome& outcome = *message.mutable_outcome();
  outcome.set_code(static_cast<int>(status.code()));
  outcome.set_message(std::string(ToStd(status.message())));
  reply(message.SerializeAsString());
}

}  // namespace

// Shared with timers and reads that outlive the service.
class TreeCopyService::Impl : public std::enable_shared_from_this<Impl> {
 public:
  Impl(Options options, Lookup lookup, Executor* executor, Executor* file_executor,
       const Clock* clock, MetricsSink* metrics)
      : options_(options),
        lookup_(std::move(lookup)),
        executor_(executor),
        file_executor_(file_executor),
        clock_(clock),
        metrics_(metrics),
        last_pin_(options.pin_seed != 0 ? options.pin_seed : SeedFromClock(*clock)) {}

  void Register(Rpc* rpc);
  void Stop();
  size_t pins() const { return pins_.size(); }

 private:
  // When a request may be served, and how much it was charged for.
  struct Turn {
    Instant at;
    size_t bytes;
  };
  struct Pin {
    PartitionId partition;
    NodeId from;
    Instant made;
    Instant used;
    bool continued = false;  // somebody got the first chunk
    size_t serving = 0;
    std::optional<Turn> turn;  // kept for its next request
    store::Snapshot snapshot;
  };
  using PinMap = std::map<uint64_t, Pin>;
  struct Read {
    uint64_t pin;
    uint64_t position;
    store::Snapshot snapshot;
    wire::CopyTreeRequest request;
    size_t bytes_max;
    Instant deadline;
    Rpc::Reply reply;
  };

  void CopyTree(NodeId from, Instant deadline, const std::string& bytes, Rpc::Reply reply);
  void Unpin(const std::string& bytes, Rpc::Reply reply);
  Turn TakeTurn(Pin& pin, Instant now, uint64_t bytes_max);
  absl::StatusOr<PinMap::iterator> FindPin(NodeId from, const wire::CopyTreeRequest& request);
  absl::StatusOr<PinMap::iterator> MakePin(NodeId from, PartitionId partition);
  void Start(Read read);
  void OnRead(uint64_t pin, size_t charged, size_t bytes, size_t same);
  void LetGo(PinMap::iterator pin);
  void ArmTimer();
  void DropIdlePins();
  Duration Cost(size_t bytes) const;

  const Options options_;
  Lookup lookup_;
  Executor* const executor_;
  Executor* const file_executor_;
  const Clock* const clock_;
  MetricsSink* const metrics_;

  bool stopped_ = false;
  PinMap pins_;
  uint64_t last_pin_;
  Instant ready_at_;  // the next turn is from then on
  std::map<uint64_t, Read> waiting_;
  uint64_t last_waiting_ = 0;
  Executor::TimerId timer_ = Executor::kNoTimer;
};

void TreeCopyService::Impl::Register(Rpc* rpc) {
  rpc->Handle(kCopyTree, [weak = weak_from_this()](NodeId from, Instant deadline, std::string bytes,
                                                   Rpc::Reply reply) {
    if (auto self = weak.lock()) return self->CopyTree(from, deadline, bytes, std::move(reply));
    Send(reply, wire::CopyTreeReply(), absl::CancelledError("shut down"));
  });
  rpc->Handle(kUnpin,
              [weak = weak_from_this()](NodeId, Instant, std::string bytes, Rpc::Reply reply) {
                if (auto self = weak.lock()) return self->Unpin(bytes, std::move(reply));
                Send(reply, wire::UnpinReply(), absl::CancelledError("shut down"));
              });
}

void TreeCopyService::Impl::Stop() {
  stopped_ = true;
  executor_->Cancel(timer_);
  timer_ = Executor::kNoTimer;
  for (auto& [id, read] : std::exchange(waiting_, {}))
    Send(read.reply, wire::CopyTreeReply(), absl::CancelledError("shut down"));
  while (!pins_.empty()) LetGo(pins_.begin());
}

void TreeCopyService::Impl::CopyTree(NodeId from, Instant deadline, const std::string& bytes,
                                     Rpc::Reply reply) {
  wire::CopyTreeReply message;
  wire::CopyTreeRequest request;
  if (stopped_) return Send(reply, std::move(message), absl::CancelledError("shut down"));
  if (!request.ParseFromString(bytes)) {
    return Send(reply, std::move(message),
                absl::InvalidArgumentError("the request does not parse"));
  }
  if (absl::Status held = CheckHeldParts(request); !held.ok())
    return Send(reply, std::move(message), held);
  const absl::StatusOr<PinMap::iterator> found = FindPin(from, request);
  if (!found.ok()) return Send(reply, std::move(message), found.status());
  Pin& pin = (*found)->second;
  const Instant now = clock_->Now();
  const Turn turn = TakeTurn(pin, now, request.bytes_max());
  const Instant start = std::max(now, turn.at);
  if (start >= deadline) {
    // Whoever has little time would never get a turn if it were not kept for him.
    pin.turn = turn;
    pin.used = now;
    message.set_pin((*found)->first);
    message.set_position(pin.snapshot.position());
    message.mutable_outcome()->set_retry_after_us(static_cast<uint64_t>(ToMicros(start - now)) + 1);
    return Send(reply, std::move(message),
                absl::ResourceExhaustedError("copies take all that they may of this node"));
  }
  ++pin.serving;
  Read read{.pin = (*found)->first,
            .position = pin.snapshot.position(),
            .snapshot = pin.snapshot,
            .request = std::move(request),
            .bytes_max = turn.bytes,
            .deadline = deadline,
            .reply = std::move(reply)};
  if (options_.unpinned_for_test) {
    if (auto tree = lookup_(pin.partition); tree.ok()) read.snapshot = (*tree)->snapshot();
    read.position = read.snapshot.position();
  }
  if (start == now) return Start(std::move(read));
  const uint64_t waiting = ++last_waiting_;
  waiting_.emplace(waiting, std::move(read));
  executor_->RunAt(start, [weak = weak_from_this(), waiting] {
    const std::shared_ptr<Impl> self = weak.lock();
    if (self == nullptr) return;
    if (auto node = self->waiting_.extract(waiting)) self->Start(std::move(node.mapped()));
  });
}

TreeCopyService::Impl::Turn TreeCopyService::Impl::TakeTurn(Pin& pin, Instant now,
                                                            uint64_t bytes_max) {
  if (pin.turn.has_value()) return *std::exchange(pin.turn, std::nullopt);
  const size_t limit = options_.chunk_bytes_max;
  Turn turn{.at = std::max(now, ready_at_), .bytes = limit};
  if (bytes_max > 0) turn.bytes = static_cast<size_t>(std::min<uint64_t>(bytes_max, limit));
  ready_at_ = turn.at + Cost(turn.bytes);
  return turn;
}

absl::StatusOr<TreeCopyService::Impl::PinMap::iterator> TreeCopyService::Impl::FindPin(
    NodeId from, const wire::CopyTreeRequest& request) {
  const PartitionId partition{request.partition()};
  if (request.pin() == 0) return MakePin(from, partition);
  const auto pin = pins_.find(request.pin());
  if (pin == pins_.end() || pin->second.partition != partition) {
    return absl::NotFoundError(
        Cat("partition ", partition, ": pin ", request.pin(), " is not held here"));
  }
  pin->second.continued = true;
  return pin;
}

absl::StatusOr<TreeCopyService::Impl::PinMap::iterator> TreeCopyService::Impl::MakePin(
    NodeId from, PartitionId partition) {
  absl::StatusOr<store::Tree*> tree = lookup_(partition);
  if (!tree.ok()) return tree.status();
  const Instant now = clock_->Now();
  // A request that is repeated must not hold a second version, for nobody would let go of it.
  for (auto pin = pins_.begin(); pin != pins_.end(); ++pin) {
    const Pin& known = pin->second;
    if (known.partition == partition && known.from == from && !known.continued &&
        known.made + options_.pin_idle > now) {
      return pin;
    }
  }
  if (pins_.size() >= options_.pins_max) {
    return absl::ResourceExhaustedError(
        Cat("pins_max: ", options_.pins_max, " versions of trees are pinned"));
  }
  if (++last_pin_ == 0) ++last_pin_;
  const auto pin = pins_
                       .insert_or_assign(last_pin_, Pin{.partition = partition,
                                                        .from = from,
                                                        .made = now,
                                                        .used = now,
                                                        .snapshot = (*tree)->snapshot()})
                       .first;
  ArmTimer();
  return pin;
}

void TreeCopyService::Impl::Start(Read read) {
  file_executor_->Post([weak = weak_from_this(), executor = executor_, clock = clock_,
                        read = std::move(read)]() mutable {
    wire::CopyTreeReply chunk;
    chunk.set_pin(read.pin);
    chunk.set_position(read.position);
    // What waited behind other work for too long is asked again, or not needed.
    absl::Status status = absl::UnavailableError("too late to read");
    if (clock->Now() < read.deadline) {
      status = ReadTreeChunk(read.snapshot, read.request, read.bytes_max, chunk);
    }
    size_t bytes = 0;
    for (const wire::CopyTreeReply::Row& row : chunk.rows())
      bytes += row.key().size() + row.value().size();
    const auto same = static_cast<size_t>(BytesSame(read.request, chunk));
    Send(read.reply, std::move(chunk), status);
    executor->Post([weak, pin = read.pin, charged = read.bytes_max, bytes, same] {
      if (auto self = weak.lock()) self->OnRead(pin, charged, bytes, same);
    });
  });
}

void TreeCopyService::Impl::OnRead(uint64_t id, size_t charged, size_t bytes, size_t same) {
  // A last row, or parts that were the same, may have been longer than what was asked for.
  const size_t cost = bytes + same / kSameBytesForOne;
  ready_at_ = cost < charged ? ready_at_ - Cost(charged - cost) : ready_at_ + Cost(cost - charged);
  metrics_->Count("copy.chunks_served", 1);
  metrics_->Count("copy.bytes_served", static_cast<int64_t>(bytes));
  metrics_->Count("copy.bytes_compared", static_cast<int64_t>(same));
  const auto pin = pins_.find(id);
  if (pin == pins_.end()) return;
  --pin->second.serving;
  pin->second.used = clock_->Now();
}

void TreeCopyService::Impl::Unpin(const std::string& bytes, Rpc::Reply reply) {
  wire::UnpinRequest request;
  if (!request.ParseFromString(bytes)) {
    return Send(reply, wire::UnpinReply(),
                absl::InvalidArgumentError("the request does not parse"));
  }
  if (const auto pin = pins_.find(request.pin()); pin != pins_.end()) LetGo(pin);
  Send(reply, wire::UnpinReply(), absl::OkStatus());
}

// The last reference to a version may free many pages: not on the executor that all wait for.
void TreeCopyService::Impl::LetGo(PinMap::iterator pin) {
  file_executor_->Post([snapshot = std::move(pin->second.snapshot)] {});
  pins_.erase(pin);
}

void TreeCopyService::Impl::ArmTimer() {
  if (timer_ != Executor::kNoTimer || pins_.empty()) return;
  Instant first = Instant::Infinite();
  for (const auto& [id, pin] : pins_) first = std::min(first, pin.used);
  // Those that are being served are as good as used at the end of it.
  const Instant when = std::max(first + options_.pin_idle, clock_->Now() + kPinIdleMin);
  timer_ = executor_->RunAt(when, [weak = weak_from_this()] {
    if (auto self = weak.lock()) self->DropIdlePins();
  });
}

void TreeCopyService::Impl::DropIdlePins() {
  timer_ = Executor::kNoTimer;
  const Instant now = clock_->Now();
  for (auto pin = pins_.begin(); pin != pins_.end();) {
    const auto next = std::next(pin);
    if (pin->second.serving > 0) {
      pin->second.used = now;
    } else if (pin->second.used + options_.pin_idle <= now) {
      metrics_->Count("copy.pins_expired", 1);
      LetGo(pin);
    }
    pin = next;
  }
  ArmTimer();
}

Duration TreeCopyService::Impl::Cost(size_t bytes) const {
  if (options_.bytes_per_second == 0) return Duration::zero();
  return Duration(static_cast<int64_t>(bytes * 1'000'000'000 / options_.bytes_per_second));
}

absl::Status TreeCopyService::Validate(const Options& options) {
  auto range = [](std::string_view field, uint64_t value, uint64_t low, uint64_t high) {
    if (value >= low && value <= high) return absl::OkStatus();
    return absl::InvalidArgumentError(Cat(field, " is ", value, "; allowed: ", low, " to ", high));
  };
  absl::Status status = range("pins_max", options.pins_max, 1, kPinsLimit);
  if (status.ok() && (options.pin_idle < kPinIdleMin || options.pin_idle > kPinIdleMax)) {
    status = absl::InvalidArgumentError(Cat("pin_idle is ", ToMicros(options.pin_idle),
                                            " us; allowed: ", ToMicros(kPinIdleMin), " to ",
                                            ToMicros(kPinIdleMax)));
  }
  status.Update(
      range("chunk_bytes_max", options.chunk_bytes_max, kTreeChunkBytesMin, kTreeChunkBytesMax));
  if (options.bytes_per_second != 0) {
    status.Update(
        range("bytes_per_second", options.bytes_per_second, kBytesPerSecondMin, UINT64_MAX));
  }
  return status;
}

TreeCopyService::TreeCopyService(Options options, Lookup lookup, Executor* executor,
                                 Executor* file_executor, const Clock* clock, MetricsSink* metrics)
    : impl_(std::make_shared<Impl>(options, std::move(lookup), executor, file_executor, clock,
                                   metrics)) {
  DYNLIB_CHECK(Validate(options).ok());
}

TreeCopyService::~TreeCopyService() { impl_->Stop(); }
void TreeCopyService::Register(Rpc* rpc) { impl_->Register(rpc); }
void TreeCopyService::Stop() { impl_->Stop(); }
size_t TreeCopyService::pins() const { return impl_->pins(); }

}  // namespace dynlib::cluster
