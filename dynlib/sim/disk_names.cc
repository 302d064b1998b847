#include "dynlib/sim/disk_names.h"

#include <algorithm>
#include <utility>

#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"

namespace dynlib::sim {
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

std::optional<DiskNames::Entry> DiskNames::Lookup(std::string_view path) const {
  Entry entry = {nullptr, kRoot};
  while (!path.empty()) {
    const size_t slash = path.find('/');
    const auto it = now_.find({entry.dir, std::string(path.substr(0, slash))});
    if (it == now_.end()) return std::nullopt;
    entry = it->second;
    if (slash == std::string_view::npos) break;
    if (entry.dir == 0) return std::nullopt;
    path.remove_prefix(slash + 1);
  }
  return entry;
}

absl::StatusOr<DiskNames::Place> DiskNames::PlaceOf(std::string_view path) const {
  const size_t slash = path.rfind('/');
  const bool in_root = slash == std::string_view::npos;
  const auto parent = Lookup(in_root ? std::string_view() : path.substr(0, slash));
  if (!parent.has_value() || parent->dir == 0) {
    return absl::NotFoundError(Cat("'", path, "': no such folder"));
  }
  return Place{parent->dir, std::string(in_root ? path : path.substr(slash + 1))};
}

DiskNames::ImagePtr DiskNames::Find(std::string_view path) const {
  const auto entry = Lookup(path);
  return entry.has_value() ? entry->file : nullptr;
}

bool DiskNames::IsDir(std::string_view path) const {
  const auto entry = Lookup(path);
  return entry.has_value() && entry->dir != 0;
}

bool DiskNames::IsEmptyDir(DirId dir) const {
  const auto it = now_.lower_bound({dir, ""});
  return it == now_.end() || it->first.dir != dir;
}

void DiskNames::Do(Operation operation) {
  Apply(now_, operation);
  pending_.push_back(std::move(operation));
}

absl::StatusOr<DiskNames::ImagePtr> DiskNames::Create(std::string_view path) {
  DYNLIB_ASSIGN_OR_RETURN(Place place, PlaceOf(path));
  if (now_.contains(place)) return absl::AlreadyExistsError(Cat("'", path, "' exists"));
  auto image = std::make_shared<FileImage>();
  Do({Kind::kLink, std::move(place), {image}});
  return image;
}

absl::Status DiskNames::Rename(std::string_view from, std::string_view to) {
  const auto entry = Lookup(from);
  if (!entry.has_value()) return absl::NotFoundError(Cat("'", from, "': no such file"));
  if (to.size() > from.size() && to.starts_with(from) && to[from.size()] == '/') {
    return absl::InvalidArgumentError(Cat("'", to, "' is in '", from, "'"));
  }
  DYNLIB_ASSIGN_OR_RETURN(Place place, PlaceOf(to));
  if (const auto it = now_.find(place); it != now_.end()) {
    const Entry& target = it->second;
    if (target == *entry) return absl::OkStatus();
    if ((target.dir != 0) != (entry->dir != 0)) {
      return absl::InvalidArgumentError(Cat("'", to, "' is of another kind than '", from, "'"));
    }
    if (target.dir != 0 && !IsEmptyDir(target.dir)) {
      return absl::FailedPreconditionError(Cat("folder '", to, "' is not empty"));
    }
  }
  Do({Kind::kMove, std::move(place), *entry});
  return absl::OkStatus();
}

absl::Status DiskNames::Remove(std::string_view path) {
  const auto entry = Lookup(path);
  if (!entry.has_value()) return absl::NotFoundError(Cat("'", path, "': no such file"));
  if (entry->dir != 0 && !IsEmptyDir(entry->dir)) {
    return absl::FailedPreconditionError(Cat("folder '", path, "' is not empty"));
  }
  DYNLIB_ASSIGN_OR_RETURN(Place place, PlaceOf(path));
  Do({Kind::kUnlink, std::move(place), *entry});
  return absl::OkStatus();
}

absl::Status DiskNames::CreateDir(std::string_view path) {
  for (size_t end = 0; end != std::string_view::npos && !path.empty();) {
    end = path.find('/', end == 0 ? 0 : end + 1);
    const std::string_view dir = path.substr(0, end);
    DYNLIB_ASSIGN_OR_RETURN(Place place, PlaceOf(dir));
    const auto it = now_.find(place);
    if (it == now_.end()) {
      Do({Kind::kLink, std::move(place), {nullptr, ++last_dir_}});
    } else if (it->second.dir == 0) {
      return absl::AlreadyExistsError(Cat("'", dir, "' is a file"));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<std::string>> DiskNames::List(std::string_view path) const {
  const auto entry = Lookup(path);
  if (!entry.has_value() || entry->dir == 0) {
    return absl::NotFoundError(Cat("'", path, "': no such folder"));
  }
  std::vector<std::string> names;
  for (auto it = now_.lower_bound({entry->dir, ""});
       it != now_.end() && it->first.dir == entry->dir; ++it) {
    names.push_back(it->first.name);
  }
  return names;
}

absl::Status DiskNames::SyncDir(std::string_view path) {
  const auto entry = Lookup(path);
  if (!entry.has_value() || entry->dir == 0) {
    return absl::NotFoundError(Cat("'", path, "': no such folder"));
  }
  std::vector<Operation> rest;
  for (Operation& operation : pending_) {
    if (operation.place.dir == entry->dir) {
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
    case Kind::kLink:
      names[operation.place] = operation.entry;
      break;
    case Kind::kMove:
      // Wherever it is: how it came to its old name may not have become durable.
      std::erase_if(names, [&](const auto& name) { return name.second == operation.entry; });
      names[operation.place] = operation.entry;
      break;
    case Kind::kUnlink:
      if (const auto it = names.find(operation.place);
          it != names.end() && it->second == operation.entry) {
        names.erase(it);
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
  std::vector<DirId> reached = {kRoot};
  for (size_t i = 0; i < reached.size(); ++i) {
    for (auto it = names.lower_bound({reached[i], ""});
         it != names.end() && it->first.dir == reached[i]; ++it) {
      if (it->second.dir != 0) reached.push_back(it->second.dir);
    }
  }
  std::erase_if(names, [&](const auto& name) {
    return std::find(reached.begin(), reached.end(), name.first.dir) == reached.end();
  });
}

void DiskNames::AddFiles(DirId dir, const std::string& prefix,
                         std::vector<NamedFile>& files) const {
  for (auto it = now_.lower_bound({dir, ""}); it != now_.end() && it->first.dir == dir; ++it) {
    const std::string path = Cat(prefix, it->first.name);
    if (it->second.dir != 0) {
      AddFiles(it->second.dir, Cat(path, "/"), files);
    } else {
      files.push_back({path, it->second.file});
    }
  }
}

std::vector<DiskNames::NamedFile> DiskNames::Files() const {
  std::vector<NamedFile> files;
  AddFiles(kRoot, "", files);
  std::sort(files.begin(), files.end(),
            [](const NamedFile& a, const NamedFile& b) { return a.path < b.path; });
  return files;
}

std::vector<DiskNames::ImagePtr> DiskNames::AllImages() const {
  std::vector<ImagePtr> images;
  const auto add = [&](const Entry& entry) {
    if (entry.file == nullptr) return;
    if (std::find(images.begin(), images.end(), entry.file) == images.end()) {
      images.push_back(entry.file);
    }
  };
  for (const auto& [place, entry] : now_) add(entry);
  for (const auto& [place, entry] : durable_) add(entry);
  for (const Operation& operation : pending_) add(operation.entry);
  return images;
}

}  // namespace dynlib::sim
