#include "dynlib/sim/faults.h"

#include <string_view>

#include "dynlib/base/random.h"
#include "dynlib/base/strings.h"

namespace dynlib::sim {
namespace {

absl::Status CheckRange(std::string_view name, double value, double low, double high) {
  if (value >= low && value <= high) return absl::OkStatus();
  return absl::InvalidArgumentError(
      Cat("FaultOptions.", name, " is ", value, ", must be in [", low, ", ", high, "]"));
}

absl::Status CheckInterval(std::string_view name, int64_t low, int64_t high) {
  if (low >= 0 && low <= high) return absl::OkStatus();
  return absl::InvalidArgumentError(Cat("FaultOptions.", name, "_min is ", low, " and ", name,
                                        "_max is ", high, "; wanted 0 <= min <= max"));
}

}  // namespace

absl::Status Validate(const FaultOptions& o) {
  constexpr double kRateMax = 60'000;
  absl::Status status;
  status.Update(CheckRange("network_loss", o.network_loss, 0, 1));
  status.Update(CheckRange("network_repeat", o.network_repeat, 0, 1));
  status.Update(CheckRange("network_reorder", o.network_reorder, 0, 1));
  status.Update(CheckRange("network_reorder_us_max", o.network_reorder_us_max, 0, 1e10));
  status.Update(CheckInterval("network_delay_us", o.network_delay_us_min, o.network_delay_us_max));
  status.Update(CheckRange("partitions_per_minute", o.partitions_per_minute, 0, kRateMax));
  status.Update(
      CheckRange("one_way_partitions_per_minute", o.one_way_partitions_per_minute, 0, kRateMax));
  status.Update(CheckInterval("partition_ms", o.partition_ms_min, o.partition_ms_max));
  status.Update(CheckInterval("disk_latency_us", o.disk_latency_us_min, o.disk_latency_us_max));
  status.Update(CheckRange("disk_eio", o.disk_eio, 0, 1));
  status.Update(CheckRange("disk_failed_sync", o.disk_failed_sync, 0, 1));
  status.Update(CheckRange("disk_bit_flips_per_minute", o.disk_bit_flips_per_minute, 0, kRateMax));
  status.Update(CheckRange("disk_misdirected_writes_per_minute",
                           o.disk_misdirected_writes_per_minute, 0, kRateMax));
  status.Update(CheckRange("disk_stalls_per_minute", o.disk_stalls_per_minute, 0, kRateMax));
  status.Update(CheckInterval("disk_stall_ms", o.disk_stall_ms_min, o.disk_stall_ms_max));
  status.Update(CheckRange("disk_full_per_minute", o.disk_full_per_minute, 0, kRateMax));
  status.Update(CheckInterval("disk_full_ms", o.disk_full_ms_min, o.disk_full_ms_max));
  status.Update(CheckRange("object_store_error", o.object_store_error, 0, 1));
  status.Update(CheckRange("clock_drift_ppm_max", o.clock_drift_ppm_max, 0, 100'000));
  status.Update(CheckRange("clock_wall_skew_ms_max", o.clock_wall_skew_ms_max, 0, 1e10));
  status.Update(CheckRange("pauses_per_minute", o.pauses_per_minute, 0, kRateMax));
  status.Update(CheckInterval("pause_ms", o.pause_ms_min, o.pause_ms_max));
  status.Update(CheckRange("crashes_per_minute", o.crashes_per_minute, 0, kRateMax));
  status.Update(CheckRange("power_offs_per_minute", o.power_offs_per_minute, 0, kRateMax));
  status.Update(CheckInterval("down_ms", o.down_ms_min, o.down_ms_max));
  return status;
}

FaultOptions RandomFaults(uint64_t seed, int64_t clock_drift_ppm_bound) {
  Random random(seed ^ 0x5157'4152'4d00'0001);  // not the numbers that the world draws
  const auto on = [&] { return random.Below(2) == 0; };
  FaultOptions o;
  if (on()) o.network_loss = 0.05 * random.Unit();
  if (on()) o.network_repeat = 0.05 * random.Unit();
  if (on()) o.network_reorder = 0.1 * random.Unit();
  o.network_reorder_us_max = random.Between(100, 200'000);
  if (on()) o.network_delay_us_max = random.Between(100, 20'000);
  if (on()) o.partitions_per_minute = random.Between(2, 12);
  if (on()) o.one_way_partitions_per_minute = random.Between(2, 12);
  o.partition_ms_min = 50;
  o.partition_ms_max = random.Between(500, 8'000);
  if (on()) o.disk_latency_us_max = random.Between(100, 5'000);
  if (on()) o.disk_eio = 0.0002 * random.Unit();
  if (on()) o.disk_failed_sync = 0.001 * random.Unit();
  o.disk_failed_sync_keeps_cache = on();
  o.disk_torn_writes = on();
  o.disk_reorders_unsynced = on();
  if (on()) o.disk_bit_flips_per_minute = random.Between(1, 10);
  if (on()) o.disk_misdirected_writes_per_minute = random.Between(1, 5);
  if (on()) o.disk_stalls_per_minute = random.Between(1, 6);
  o.disk_stall_ms_min = 10;
  o.disk_stall_ms_max = random.Between(200, 10'000);
  if (on()) o.disk_full_per_minute = random.Between(1, 4);
  o.disk_full_ms_min = 100;
  o.disk_full_ms_max = random.Between(500, 5'000);
  if (on()) o.object_store_error = 0.05 * random.Unit();
  if (on()) o.clock_drift_ppm_max = random.Between(0, clock_drift_ppm_bound);
  if (on()) o.clock_wall_skew_ms_max = random.Between(1, 60'000);
  if (on()) o.pauses_per_minute = random.Between(1, 10);
  o.pause_ms_min = 10;
  o.pause_ms_max = random.Between(100, 10'000);
  if (on()) o.crashes_per_minute = random.Between(1, 8);
  if (on()) o.power_offs_per_minute = random.Between(1, 8);
  o.down_ms_min = 10;
  o.down_ms_max = random.Between(100, 10'000);
  return o;
}

}  // namespace dynlib::sim
