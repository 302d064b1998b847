// What a router lets through to tables with provisioned throughput (router_admission.h).
#ifndef DYNLIB_CLUSTER_ROUTER_ADMISSION_OPTIONS_H_
#define DYNLIB_CLUSTER_ROUTER_ADMISSION_OPTIONS_H_

#include <chrono>
#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "dynlib/base/time.h"

namespace dynlib::cluster {

struct RouterAdmissionOptions {
  bool enabled = true;
  // Of a table's limit, what this router lets through while no metadata node grants it a rate:
  // 0.001 to 1. One divided by the routers keeps the limit then, too.
  double safe_share = 0.1;
  double saved_seconds = 0.5;        // of its rate, what a router saves up: 0.01 to 10
  uint32_t request_units_max = 400;  // and two requests of this size: 1 to 10,000
  // Reports are looked for so often: 1 ms to 1 s. They are due about once a second.
  Duration poll_interval = std::chrono::milliseconds(50);
  Duration reply_timeout = std::chrono::milliseconds(500);  // 1 ms to 10 s
  size_t tables_max = 2000;  // in use; those not used for 10 minutes make room: 1 to 100,000
};
// kInvalidArgument naming the field, its value and what is allowed.
absl::Status Validate(const RouterAdmissionOptions& options);

}  // namespace dynlib::cluster

#endif  // DYNLIB_CLUSTER_ROUTER_ADMISSION_OPTIONS_H_
