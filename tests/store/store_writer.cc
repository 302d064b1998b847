// store_writer FOLDER: says "open", then writes to a store without end, a line on standard output
// for each write that was acknowledged. For tests that kill it.
#include <cstdio>
#include <optional>
#include <string>
#include <utility>

#include "dynlib/base/strings.h"
#include "dynlib/store/local_store.h"
#include "dynlib/store/store.h"
#include "dynlib/store/store_batch.h"

int main(int argc, char** argv) {
  using dynlib::Cat;
  namespace store = dynlib::store;
  if (argc != 2) return 2;
  store::Store::Options options;
  options.log.segment_bytes = 1 << 20;
  options.checkpoint_after_bytes = 256 << 10;
  auto local = store::LocalStore::Open(argv[1], options);
  if (!local.ok()) {
    std::printf("%s\n", local.status().ToString().c_str());
    return 1;
  }
  store::Store& db = **local.value();
  auto tree = db.OpenTree("written");
  if (!tree.ok()) return 1;
  std::printf("open\n");
  std::fflush(stdout);
  const std::optional<std::string> last = *db.Get(*tree, "last");
  for (int i = last.has_value() ? std::stoi(*last) + 1 : 0;; ++i) {
    store::StoreBatch batch;
    batch.Put(*tree, "last", std::to_string(i));
    batch.Put(*tree, Cat("row", i % 1000), Cat(i, std::string(700, 'x')));
    batch.Put("mirror", std::to_string(i));
    if (!db.Write(std::move(batch)).ok()) return 1;
    std::printf("%d\n", i);
    std::fflush(stdout);
  }
}
