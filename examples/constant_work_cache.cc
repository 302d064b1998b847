// Addresses in front of a directory of three servers. Empty or full, the cache makes the same
// requests. Then the directory goes down, and the cache serves what it has.
#include "dynlib/cache/constant_work_cache.h"

#include <cstdio>
#include <string>

#include "dynlib/base/checksum.h"
#include "dynlib/cache/hash_index.h"
#include "dynlib/sim/world.h"

namespace {

using namespace dynlib;  // An example's liberty.

struct Address {
  std::string name;
  int port = 0;
  uint64_t version = 0;
};
struct AddressTraits {
  using Key = std::string;
  using Value = Address;
  static const std::string& KeyOf(const Address& address) { return address.name; }
  static uint64_t Hash(const std::string& name) { return Checksum(name); }
  static bool Newer(const Address& a, const Address& b) { return a.version > b.version; }
};
using Cache = cache::ConstantWorkCache<cache::HashIndex<AddressTraits>>;

}  // namespace

int main() {
  sim::World world(/*seed=*/7);
  sim::Node* node = world.AddNode(NodeId{1});
  bool up = true;
  uint64_t requests = 0;
  // A real one would be an rpc to servers[server].
  auto fetch = [&](size_t server, const std::string& name, Cache::FetchDone done) {
    ++requests;
    if (!up) return done(absl::UnavailableError("no answer"));
    done(Address{name, 8000 + static_cast<int>(name.size()), /*version=*/1});
  };
  Executor* executor = node->NewExecutor("main");
  Cache addresses({.servers = 3, .fan_out = 2}, executor, node->clock(), fetch);

  auto get_all = [&] {
    requests = 0;
    int found = 0;
    for (int i = 0; i < 1000; ++i) {
      auto count = [&found](Cache::Result result) { found += result.ok(); };
      auto now = addresses.Get("name-" + std::to_string(i % 10),
                               node->clock()->Now() + std::chrono::seconds(1), count);
      if (now.has_value()) count(*std::move(now));  // else `count` is called when the answer comes
      world.RunFor(std::chrono::milliseconds(1));
    }
    return found;
  };
  const int cold = get_all();
  const uint64_t cold_requests = requests;
  const int warm = get_all();
  const uint64_t warm_requests = requests;
  up = false;
  const int down = get_all();
  std::printf("cold: %d found by %llu requests; warm: %d by %llu; directory down: %d\n", cold,
              static_cast<unsigned long long>(cold_requests), warm,
              static_cast<unsigned long long>(warm_requests), down);
  const bool constant = cold_requests == 2000 && warm_requests == 2000 && requests == 2000;
  return constant && cold == 1000 && warm == 1000 && down == 1000 ? 0 : 1;
}
