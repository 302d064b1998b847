#include "dynlib/sim/disk_names.h"

#include <algorithm>
#include <utility>

#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"

namespace dynlib::sim {
namespace {

std::string_view Parent(std::string_view path) {
  const size_t slash = path.rfind('/');
  return slash == std::string_view::npos ? std::string_view() : path.substr(0, slash);
}

}  // namespace

absl::Status DiskNames::CheckPath(std::string_view path, bool may_be_root) {
  if (path.empty()) {
    if (may_be_root) return absl::OkStatus();
    return absl::InvalidArgumentError("the path is empty");
  }
  std::string_view rest = path;
  while (true) {
    const size_t slash = rest.find('/');
    const std::string_view part = rest.substr(0, slash);
    if (part.empty() || part == "." || part == ".." || part.find('\0') != part.npos) {
      return absl::InvalidArgumentError(
          Cat("path '", Escape(path), "' has an empty, '.' or '..' part, or a zero byte"));
    }
    if (slash == std::string_view::npos) return absl::OkStatus();
    rest.remove_prefix(slash + 1);
  }
}

DiskNames::ImagePtr DiskNames::Find(std::string_view path) const {
  auto it = now_.files.find(path);
  return it == now_.files.end() ? nullptr : it->second;
}

bool DiskNames::IsDir(std::string_view path) const { return now_.dirs.contains(path); }

absl::Status DiskNames::CheckParent(std::string_view path) const {
  if (IsDir(Parent(path))) return absl::OkStatus();
  return absl::NotFoundError(Cat("'", path, "': no such folder"));
}

absl::StatusOr<DiskNames::ImagePtr> DiskNames::Create(std::string_view path) {
  DYNLIB_RETURN_IF_ERROR(CheckParent(path));
  if (now_.files.contains(path) || IsDir(path)) {
    return absl::AlreadyExistsError(Cat("'", path, "' exists"));
  }
  auto image = std::make_shared<FileImage>();
  pending_.push_back(
      {Kind::kCreate, std::string(Parent(path)), std::string(path), std::string(), image});
  Apply(now_, pending_.back());
  return image;
}

absl::Status DiskNames::Rename(std::string_view from, std::string_view to) {
  auto it = now_.files.find(from);
  if (it == now_.files.end()) return absl::NotFoundError(Cat("'", from, "': no such file"));
  DYNLIB_RETURN_IF_ERROR(CheckParent(to));
  if (IsDir(to)) return absl::AlreadyExistsError(Cat("'", to, "' is a folder"));
  if (from == to) return absl::OkStatus();
  pending_.push_back(
      {Kind::kRename, std::string(Parent(to)), std::string(from), std::string(to), it->second});
  Apply(now_, pending_.back());
  return absl::OkStatus();
}

absl::Status DiskNames::Remove(std::string_view path) {
  auto it = now_.files.find(path);
  if (it == now_.files.end()) {
    if (IsDir(path)) return absl::InvalidArgumentError(Cat("'", path, "' is a folder"));
    return absl::NotFoundError(Cat("'", path, "': no such file"));
  }
  pending_.push_back(
      {Kind::kRemove, std::string(Parent(path)), std::string(path), std::string(), it->second});
  Apply(now_, pending_.back());
  return absl::OkStatus();
}

absl::Status DiskNames::CreateDir(std::string_view path) {
  for (size_t end = 0; end != std::string_view::npos;) {
    end = path.find('/', end == 0 ? 0 : end + 1);
    const std::string_view dir = path.substr(0, end);
    if (IsDir(dir)) continue;
    if (now_.files.contains(dir)) return absl::AlreadyExistsError(Cat("'", dir, "' is a file"));
    pending_.push_back({Kind::kCreateDir, std::string(Parent(dir)), std::string(dir)});
    Apply(now_, pending_.back());
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<std::string>> DiskNames::List(std::string_view path) const {
  if (!IsDir(path)) return absl::NotFoundError(Cat("'", path, "': no such folder"));
  std::vector<std::string> names;
  const auto add = [&](std::string_view child) {
    if (child.empty() || Parent(child) != path) return;
    names.emplace_back(path.empty() ? child : child.substr(path.size() + 1));
  };
  for (const auto& [file, image] : now_.files) add(file);
  for (const std::string& dir : now_.dirs) add(dir);
  std::sort(names.begin(), names.end());
  return names;
}

absl::Status DiskNames::SyncDir(std::string_view path) {
  if (!IsDir(path)) return absl::NotFoundError(Cat("'", path, "': no such folder"));
  std::vector<Operation> rest;
  for (Operation& operation : pending_) {
    if (operation.folder == path) {
      Apply(durable_, operation);
    } else {
      rest.push_back(std::move(operation));
    }
  }
  pending_ = std::move(rest);
  return absl::OkStatus();
}

void DiskNames::Apply(Names& names, const Operation& operation) {
  switch (operation.kind) {
    case Kind::kCreateDir:
      names.dirs.insert(operation.path);
      break;
    case Kind::kCreate:
      names.files[operation.path] = operation.image;
      break;
    case Kind::kRename:
      // The file may have come to its old name by an operation of another folder that is not
      // durable: the new name is what was asked for.
      names.files[operation.to] = operation.image;
      if (auto it = names.files.find(operation.path);
          it != names.files.end() && it->second == operation.image) {
        names.files.erase(it);
      }
      break;
    case Kind::kRemove:
      if (auto it = names.files.find(operation.path);
          it != names.files.end() && it->second == operation.image) {
        names.files.erase(it);
      }
      break;
  }
}

void DiskNames::LosePower(UnsyncedFate fate, Random& random) {
  size_t prefix = pending_.size();
  if (fate == UnsyncedFate::kAllLost) prefix = 0;
  if (fate == UnsyncedFate::kTorn) prefix = random.Below(pending_.size() + 1);
  for (size_t i = 0; i < prefix; ++i) {
    if (fate == UnsyncedFate::kRandomSubset && random.Below(2) == 0) continue;
    Apply(durable_, pending_[i]);
  }
  pending_.clear();
  RemoveOrphans(durable_);
  now_ = durable_;
}

void DiskNames::RemoveOrphans(Names& names) {
  // In path order a folder comes after those that it is in.
  std::erase_if(names.dirs, [&](const std::string& dir) {
    return !dir.empty() && !names.dirs.contains(Parent(dir));
  });
  std::erase_if(names.files,
                [&](const auto& file) { return !names.dirs.contains(Parent(file.first)); });
}

std::vector<DiskNames::ImagePtr> DiskNames::AllImages() const {
  std::vector<ImagePtr> images;
  std::set<const FileImage*> seen;  // membership alone: its order is that of addresses
  const auto add = [&](const ImagePtr& image) {
    if (image != nullptr && seen.insert(image.get()).second) images.push_back(image);
  };
  for (const auto& [path, image] : now_.files) add(image);
  for (const auto& [path, image] : durable_.files) add(image);
  for (const Operation& operation : pending_) add(operation.image);
  return images;
}

}  // namespace dynlib::sim
