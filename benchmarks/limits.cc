#include "benchmarks/limits.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <barrier>
#include <cerrno>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"

namespace dynlib::bench {
namespace {

// Long enough that a run of a few seconds does not come round to where it began.
constexpr off_t kZeroedBytes = 64 << 20;

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

  ~SyncedFile() { close(file_); }

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

}  // namespace

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
