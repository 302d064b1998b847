#include "benchmarks/limits.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <barrier>
#include <cerrno>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"

namespace dynlib::bench {
namespace {

// Long enough that a run of a few seconds does not come round to where it began.
constexpr off_t kZeroedBytes = 64 << 20;
constexpr size_t kDirectBlock = 4096;

absl::Status Errno(const std::string& what) {
  return absl::UnavailableError(Cat(what, ": ", std::strerror(errno)));
}

class SyncedFile {
 public:
  static absl::StatusOr<std::unique_ptr<SyncedFile>> Create(const std::filesystem::path& path,
                                                            bool zeroed) {
    const int file = open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (file < 0) return Errno(path.string());
    auto result = std::unique_ptr<SyncedFile>(new SyncedFile(file, zeroed));
    if (zeroed) DYNLIB_RETURN_IF_ERROR(result->WriteZeros());
    return result;
  }

  ~SyncedFile() {
    close(file_);
    if (direct_ >= 0) close(direct_);
  }

  // As Append, of an aligned block, past the cache and synced by the write itself.
  absl::Status AppendDurably(std::string_view block) {
    if (direct_ < 0) {
      direct_ =
          open(Cat("/proc/self/fd/", file_).c_str(), O_WRONLY | O_DIRECT | O_DSYNC | O_CLOEXEC);
      if (direct_ < 0) return Errno("open for direct writes");
    }
    if (offset_ + static_cast<off_t>(block.size()) > kZeroedBytes) offset_ = 0;
    if (pwrite(direct_, block.data(), block.size(), offset_) !=
        static_cast<ssize_t>(block.size())) {
      return Errno("direct pwrite");
    }
    offset_ += static_cast<off_t>(block.size());
    return absl::OkStatus();
  }

  absl::Status Append(const std::string& block) {
    if (zeroed_ && offset_ + static_cast<off_t>(block.size()) > kZeroedBytes) offset_ = 0;
    if (pwrite(file_, block.data(), block.size(), offset_) != static_cast<ssize_t>(block.size()))
      return Errno("pwrite");
    offset_ += static_cast<off_t>(block.size());
    return fdatasync(file_) == 0 ? absl::OkStatus() : Errno("fdatasync");
  }

 private:
  SyncedFile(int file, bool zeroed) : file_(file), zeroed_(zeroed) {}

  absl::Status WriteZeros() const {
    const std::string zeros(1 << 20, '\0');
    for (off_t offset = 0; offset < kZeroedBytes; offset += static_cast<off_t>(zeros.size())) {
      if (pwrite(file_, zeros.data(), zeros.size(), offset) != static_cast<ssize_t>(zeros.size()))
        return Errno("pwrite");
    }
    return fsync(file_) == 0 ? absl::OkStatus() : Errno("fsync");
  }

  const int file_;
  int direct_ = -1;
  const bool zeroed_;
  off_t offset_ = 0;
};

std::string Block(size_t bytes) { return std::string((bytes + 1023) / 1024 * 1024, 'x'); }

absl::StatusOr<RunResult> RunSyncs(const RunContext& context, bool zeroed, const std::string& block,
                                   int operations) {
  DYNLIB_ASSIGN_OR_RETURN(const std::unique_ptr<SyncedFile> file,
                          SyncedFile::Create(context.folder / "log", zeroed));
  auto result = RunClosedLoop(1, context.seconds, [&](int) { return file->Append(block); });
  if (result.ok()) result->operations *= static_cast<uint64_t>(operations);
  return result;
}

// The second of two threads: syncs its own file whenever the first one does.
class Partner {
 public:
  Partner(std::unique_ptr<SyncedFile> file, const std::string& block)
      : file_(std::move(file)), block_(block), thread_([this] { Run(); }) {}

  ~Partner() {
    stop_ = true;
    begin_.arrive_and_wait();
    thread_.join();
  }

  void Begin() { begin_.arrive_and_wait(); }
  absl::Status End() {
    end_.arrive_and_wait();
    return status_;
  }

 private:
  void Run() {
    while (true) {
      begin_.arrive_and_wait();
      if (stop_) return;
      status_ = file_->Append(block_);
      end_.arrive_and_wait();
    }
  }

  const std::unique_ptr<SyncedFile> file_;
  const std::string& block_;
  std::barrier<> begin_{2};
  std::barrier<> end_{2};
  bool stop_ = false;    // written before begin_, read after it
  absl::Status status_;  // written before end_, read after it
  std::thread thread_;
};

absl::StatusOr<RunResult> RunTwoSyncs(const RunContext& context, const std::string& block) {
  DYNLIB_ASSIGN_OR_RETURN(const std::unique_ptr<SyncedFile> mine,
                          SyncedFile::Create(context.folder / "a", true));
  DYNLIB_ASSIGN_OR_RETURN(std::unique_ptr<SyncedFile> other,
                          SyncedFile::Create(context.folder / "b", true));
  Partner partner(std::move(other), block);
  return RunClosedLoop(1, context.seconds, [&](int) {
    partner.Begin();
    const absl::Status status = mine->Append(block);
    const absl::Status partners = partner.End();
    return status.ok() ? partners : status;
  });
}

// Three logs, of which two decide. Records are numbered from 0; a log has all before some number.
class ThreeLogsRun {
 public:
  ThreeLogsRun(int in_flight, size_t value_bytes)
      : in_flight_(static_cast<uint64_t>(in_flight)), stream_(0, value_bytes) {}

  absl::StatusOr<RunResult> Run(const RunContext& context) {
    std::vector<std::unique_ptr<SyncedFile>> files;
    for (const char* name : {"a", "b", "c"}) {
      DYNLIB_ASSIGN_OR_RETURN(std::unique_ptr<SyncedFile> file,
                              SyncedFile::Create(context.folder / name, true));
      files.push_back(std::move(file));
    }
    std::vector<std::thread> threads;
    for (size_t log = 0; log < files.size(); ++log)
      threads.emplace_back([this, log, &file = *files[log]] { Write(log, file); });
    RunResult result;
    result.seconds = context.seconds;
    Call(result);
    for (std::thread& thread : threads) thread.join();
    DYNLIB_RETURN_IF_ERROR(error_);
    result.operations = result.latencies_ns.size();
    return result;
  }

 private:
  using Record = std::shared_ptr<const std::string>;
  struct Log {
    std::condition_variable wake;
    std::vector<Record> given;  // and not yet taken
    uint64_t written = 0;
  };

  // The caller.
  void Call(RunResult& result) {
    const uint64_t begin_ns = NowNs() + static_cast<uint64_t>(WarmUpSeconds(result.seconds) * 1e9);
    const uint64_t end_ns = begin_ns + static_cast<uint64_t>(result.seconds * 1e9);
    std::deque<uint64_t> began_ns;  // of records in flight
    uint64_t done = 0;
    std::vector<Record> records;
    while (true) {
      const uint64_t now_ns = NowNs();
      for (; began_ns.size() < in_flight_; began_ns.push_back(now_ns)) {
        const std::string_view key = stream_.NextKey();
        records.push_back(std::make_shared<std::string>(Cat(key, stream_.NextValue())));
      }
      std::unique_lock lock(mutex_);
      for (Log& log : logs_) {
        log.given.insert(log.given.end(), records.begin(), records.end());
        log.wake.notify_one();
      }
      records.clear();
      over_ = over_ || now_ns >= end_ns || !error_.ok();
      if (over_) return;
      while (Decided() == done) caller_wakes_.wait(lock);
      const uint64_t decided = Decided();
      lock.unlock();
      const uint64_t then_ns = NowNs();
      for (; done < decided; ++done) {
        if (then_ns >= begin_ns && then_ns < end_ns)
          result.latencies_ns.push_back(then_ns - began_ns.front());
        began_ns.pop_front();
      }
    }
  }

  // What two of three have.
  uint64_t Decided() const {
    std::array<uint64_t, 3> written = {logs_[0].written, logs_[1].written, logs_[2].written};
    std::sort(written.begin(), written.end());
    return written[1];
  }

  // A log's thread.
  void Write(size_t index, SyncedFile& file) {
    Log& log = logs_[index];
    std::unique_ptr<char, decltype(&std::free)> block(nullptr, &std::free);
    size_t block_bytes = 0;
    std::vector<Record> batch;
    std::unique_lock lock(mutex_);
    while (true) {
      while (log.given.empty() && !over_) log.wake.wait(lock);
      if (over_) return;
      batch.swap(log.given);
      lock.unlock();
      size_t bytes = 0;
      for (const Record& record : batch) bytes += record->size();
      bytes = (bytes + kDirectBlock - 1) / kDirectBlock * kDirectBlock;
      if (bytes > block_bytes) {
        block_bytes = 2 * bytes;
        block.reset(static_cast<char*>(std::aligned_alloc(kDirectBlock, block_bytes)));
      }
      char* at = block.get();
      for (const Record& record : batch) at = std::copy(record->begin(), record->end(), at);
      const absl::Status status = file.AppendDurably({block.get(), bytes});
      lock.lock();
      if (!status.ok()) error_ = status;
      log.written += batch.size();
      batch.clear();
      caller_wakes_.notify_one();
    }
  }

  const uint64_t in_flight_;
  PutStream stream_;

  std::mutex mutex_;
  std::condition_variable caller_wakes_;
  std::array<Log, 3> logs_;
  bool over_ = false;
  absl::Status error_;
};

}  // namespace

Runner ThreeLogs(int in_flight, size_t value_bytes) {
  return
      [=](const RunContext& context) { return ThreeLogsRun(in_flight, value_bytes).Run(context); };
}

Runner ZeroedSync(size_t bytes, int operations) {
  return
      [=](const RunContext& context) { return RunSyncs(context, true, Block(bytes), operations); };
}

Runner GrowingSync(size_t bytes, int operations) {
  return
      [=](const RunContext& context) { return RunSyncs(context, false, Block(bytes), operations); };
}

absl::StatusOr<double> SequentialWrite(const std::filesystem::path& folder, uint64_t bytes) {
  constexpr uint64_t kWriteBytes = 1 << 20;
  const std::string block(RandomBytes(1, kWriteBytes / 2));
  const std::string two_blocks = block + block;
  const uint64_t begin = NowNs();
  const int file = open((folder / "file").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (file < 0) return Errno("open");
  absl::Status status;
  for (uint64_t offset = 0; offset < bytes && status.ok(); offset += kWriteBytes) {
    const uint64_t part = std::min(bytes - offset, kWriteBytes);
    if (write(file, two_blocks.data(), part) != static_cast<ssize_t>(part)) status = Errno("write");
  }
  if (status.ok() && fdatasync(file) != 0) status = Errno("fdatasync");
  close(file);
  if (!status.ok()) return status;
  return static_cast<double>(NowNs() - begin) * 1e-9;
}

Runner LongerOfTwoSyncs(size_t bytes) {
  return [=](const RunContext& context) { return RunTwoSyncs(context, Block(bytes)); };
}

}  // namespace dynlib::bench
