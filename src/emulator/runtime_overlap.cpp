#include "emulator/runtime_overlap.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <deque>
#include <random>
#include <utility>

#include "base/error.h"
#include "emulator/machine.h"
#include "emulator/runtime.h"
#include "emulator/runtime_state.h"

namespace qnext::emulator {
namespace {

// A GPU has room for the blocks of a few kernels that wait.
constexpr size_t most_open = 4;
constexpr size_t most_bytes = size_t{2} << 30;

struct OpenLaunch {
  std::unique_ptr<Machine> machine;
  cudaStream_t stream = nullptr;
  size_t bytes = 0;
};

// Oldest first. Where one has ended without a wait while others before it are open, it stays: the
// next one's wait is for it alone.
std::deque<OpenLaunch>& open() {
  static auto& all = *new std::deque<OpenLaunch>;
  return all;
}

LaunchCounts counts;

void finish_oldest() {
  open().front().machine->finish();
  open().pop_front();
  while (!open().empty() && open().front().machine->ended()) open().pop_front();
}

void finish_all() {
  while (!open().empty()) finish_oldest();
}

// What is open then is what the next launch may run beside.
void finish_by_chance(std::minstd_rand& random) {
  const auto chance = [&] { return (random() >> 16 & 1) != 0; };
  while (open().size() >= most_open) finish_oldest();
  if (open().empty()) return;
  if (!open().back().machine->triggered()) {
    // It lets the next one start behind its wait, or never.
    while (open().size() > 1) finish_oldest();
    if (chance()) open().back().machine->run_to_triggers();
    if (open().back().machine->ended() || !open().back().machine->triggered()) finish_all();
    return;
  }
  if (chance()) return;
  for (auto left = random() % open().size() + 1; left != 0 && !open().empty(); --left)
    finish_oldest();
}

size_t open_bytes() {
  size_t bytes = 0;
  for (const OpenLaunch& one : open()) bytes += one.bytes;
  return bytes;
}

void start(std::shared_ptr<const Launch> launch, uint32_t seed, cudaStream_t stream,
           bool may_start_early) {
  std::minstd_rand random(seed ^ 0x5bd1e995u);
  random.discard(2);
  const size_t bytes = bytes_of_all_blocks(*launch);
  const bool follows = may_start_early && !open().empty() && open().back().stream == stream;
  const bool fits = open_bytes() + bytes <= most_bytes;
  if (follows && fits)
    finish_by_chance(random);
  else
    finish_all();
  counts.too_large += (follows && !fits) || bytes > most_bytes ? 1 : 0;
  counts.overlapped += open().empty() ? 0 : 1;
  counts.in_order += open().empty() ? 1 : 0;
  counts.most_open = std::max<uint64_t>(counts.most_open, open().size() + 1);
  auto machine = std::make_unique<Machine>(std::move(launch), seed);
  if (bytes > most_bytes) return machine->finish();
  if (!open().empty() && open().back().machine->ended()) machine->open_gate();
  machine->run_to_waits();
  if (!machine->ended() || !open().empty()) open().push_back({std::move(machine), stream, bytes});
}

template <typename Act>
cudaError_t guarded(Act&& act) {
  try {
    act();
    return cudaSuccess;
  } catch (const Error& error) {
    fmt::print(stderr, "emulated GPU: {}\n", error.what());
  }
  drop_launches();
  set_fault(cudaErrorLaunchFailure);
  return cudaErrorLaunchFailure;
}

}  // namespace

cudaError_t start_launch(std::shared_ptr<const Launch> launch, uint32_t seed, cudaStream_t stream,
                         bool may_start_early) {
  return guarded([&] { start(std::move(launch), seed, stream, may_start_early); });
}

cudaError_t finish_launches() {
  return guarded([] { finish_all(); });
}

void drop_launches() {
  open().clear();
}

LaunchCounts launch_counts() {
  const std::lock_guard lock(runtime_mutex());
  return counts;
}

}  // namespace qnext::emulator
