#include "examples/mini_cluster/power_switch.h"

#include <unistd.h>

#include <chrono>
#include <mutex>
#include <thread>

#include "dynlib/base/status_macros.h"

namespace dynlib::mini_cluster {
namespace {

std::mutex power_mutex;
MiniCluster* powered = nullptr;

}  // namespace

absl::StatusOr<std::unique_ptr<PoweredCluster>> PoweredCluster::Start(const ClusterOptions& options,
                                                                      MetricsSink* metrics) {
  DYNLIB_ASSIGN_OR_RETURN(std::unique_ptr<MiniCluster> cluster,
                          MiniCluster::Start(options, metrics));
  return std::unique_ptr<PoweredCluster>(new PoweredCluster(std::move(cluster)));
}

PoweredCluster::PoweredCluster(std::unique_ptr<MiniCluster> cluster)
    : cluster_(std::move(cluster)) {
  std::lock_guard lock(power_mutex);
  powered = cluster_.get();
}

PoweredCluster::~PoweredCluster() {
  std::lock_guard lock(power_mutex);
  powered = nullptr;
}

void PowerOffAfter(uint64_t milliseconds) {
  std::thread([milliseconds] {
    std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds));
    std::lock_guard lock(power_mutex);
    if (powered != nullptr) powered->PowerOffAll();
    ::_exit(kPoweredOffStatus);
  }).detach();
}

}  // namespace dynlib::mini_cluster
