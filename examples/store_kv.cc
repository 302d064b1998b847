// A durable, ordered map in a folder. Each run finds what the earlier ones wrote.
//
//   store_kv [FOLDER]
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <string>

#include "dynlib/store/cursor.h"
#include "dynlib/store/local_store.h"
#include "dynlib/store/store.h"
#include "dynlib/store/store_batch.h"
#include "dynlib/store/store_snapshot.h"

int main(int argc, char** argv) {
  using namespace dynlib;  // An example's liberty.
  const char* temporary = std::getenv("TEST_TMPDIR");
  const std::string folder = argc > 1               ? argv[1]
                             : temporary != nullptr ? std::string(temporary) + "/store"
                                                    : "store-kv-data";
  auto store = store::LocalStore::Open(folder);
  if (!store.ok()) {
    std::fprintf(stderr, "%s\n", store.status().ToString().c_str());
    return 1;
  }
  store::Store& db = **store.value();

  const std::optional<std::string> runs = *db.Get("runs");
  if (!db.Put("runs", std::to_string(runs.has_value() ? std::stoi(*runs) + 1 : 1)).ok()) return 1;
  std::printf("run %s\n", db.Get("runs")->value().c_str());

  // Named trees; a batch is in whole or not at all, across them too.
  const store::NamedTree cities = *db.OpenTree("cities");
  const store::NamedTree visits = *db.OpenTree("visits");
  store::StoreBatch batch;
  batch.Put(cities, "lima", "Peru");
  batch.Put(cities, "oslo", "Norway");
  batch.Delete(cities, "atlantis");
  batch.Put(visits, "2026-11-22", "lima");
  if (!db.Write(std::move(batch)).ok()) return 1;

  // All of its conditions hold, or nothing is written.
  store::StoreBatch conditional;
  conditional.IfEquals(cities, "lima", "Chile");
  conditional.Put(cities, "lima", "nowhere");
  const store::WriteResult refused = db.Write(std::move(conditional));
  std::printf("%s\n", std::string(refused.status.message()).c_str());

  // One version of a tree, gone over in either direction, whatever is written meanwhile.
  store::Cursor cursor = *db.NewCursor(cities);
  for (cursor.SeekToLast(); cursor.valid(); cursor.Prev()) {
    std::printf("%s <-\n", std::string(cursor.key()).c_str());
  }
  if (!cursor.status().ok()) return 1;

  const auto scanned =
      db.Scan({.tree = cities}, [](std::string_view city, std::string_view country) {
        std::printf("%.*s -> %.*s\n", static_cast<int>(city.size()), city.data(),
                    static_cast<int>(country.size()), country.data());
        return true;
      });
  return scanned.ok() && scanned->rows == 2 && !refused.ok() ? 0 : 1;
}
