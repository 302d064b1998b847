#include "examples/mini_cluster/record.h"

namespace dynlib::mini_cluster {

const cluster::Value* Record::Find(const std::string& name) const {
  for (const auto& [field, value] : fields) {
    if (field == name) return &value;
  }
  return nullptr;
}

cluster::Item ToItem(Record record) {
  cluster::Item item;
  for (auto& [name, value] : record.fields) item.emplace(std::move(name), std::move(value));
  return item;
}

}  // namespace dynlib::mini_cluster
