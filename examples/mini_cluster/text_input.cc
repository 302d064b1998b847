#include "examples/mini_cluster/text_input.h"

#include <cerrno>
#include <cstring>
#include <utility>

#include "dynlib/base/strings.h"

namespace dynlib::mini_cluster {
namespace {

constexpr size_t kBufferBytes = 64 << 10;
constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";

absl::Status FileError(const std::string& name, std::string_view doing, int error) {
  std::string text = Cat(name, ": cannot ", doing, ": ", std::strerror(error));
  if (error == ENOENT || error == ENOTDIR) return absl::NotFoundError(text);
  if (error == EACCES || error == EPERM) return absl::PermissionDeniedError(text);
  return absl::UnavailableError(text);
}

}  // namespace

absl::StatusOr<std::unique_ptr<TextInput>> TextInput::Open(const std::string& path,
                                                           size_t record_bytes_max) {
  std::unique_ptr<TextInput> input(new TextInput(path, record_bytes_max));
  input->file_.reset(std::fopen(path.c_str(), "rb"));
  if (input->file_ == nullptr) return FileError(path, "open", errno);
  input->Fill();
  if (!input->status_.ok()) return input->status_;
  input->SkipByteOrderMark();
  return input;
}

std::unique_ptr<TextInput> TextInput::OfText(std::string name, std::string text,
                                             size_t record_bytes_max) {
  std::unique_ptr<TextInput> input(new TextInput(std::move(name), record_bytes_max));
  input->buffer_ = std::move(text);
  input->SkipByteOrderMark();
  return input;
}

void TextInput::SkipByteOrderMark() {
  if (buffer_.starts_with(kByteOrderMark)) at_ = kByteOrderMark.size();
}

// Called with the buffer used up; leaves it empty at the end.
void TextInput::Fill() {
  buffer_.clear();
  at_ = 0;
  if (file_ == nullptr || !status_.ok()) return;
  buffer_.resize(kBufferBytes);
  size_t got = std::fread(buffer_.data(), 1, buffer_.size(), file_.get());
  int error = errno;
  buffer_.resize(got);
  if (got == 0 && std::ferror(file_.get()) != 0) status_ = FileError(name_, "read", error);
}

int TextInput::Peek() {
  if (!status_.ok()) return kEnd;
  if (at_ == buffer_.size()) Fill();
  return at_ == buffer_.size() ? kEnd : static_cast<unsigned char>(buffer_[at_]);
}

int TextInput::Get() {
  int byte = Peek();
  last_line_ = line_;
  last_column_ = column_;
  if (byte == kEnd) return kEnd;
  if (record_bytes_ == record_bytes_max_) {
    status_ = Error(Cat("the record is longer than ", record_bytes_max_, " bytes"));
    return kEnd;
  }
  ++record_bytes_;
  ++at_;
  if (byte == '\n') {
    ++line_;
    column_ = 1;
  } else {
    ++column_;
  }
  return byte;
}

absl::Status TextInput::Error(std::string_view what) const {
  return ErrorAt(last_line_, last_column_, what);
}

absl::Status TextInput::ErrorAt(uint64_t line, uint64_t column, std::string_view what) const {
  return absl::InvalidArgumentError(Cat(name_, ":", line, ":", column, ": ", what));
}

}  // namespace dynlib::mini_cluster
