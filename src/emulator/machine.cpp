#include "emulator/machine.h"

#include <algorithm>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "emulator/alignment.h"
#include "emulator/races.h"
#include "emulator/warp.h"

namespace qnext::emulator {
namespace {

// A slice of fewer instructions may have been nothing but a look at a barrier.
constexpr int looking = 64;
// Passes in which all only looked, before the next cluster starts, and before it is a deadlock. A
// pass of a group that waits for a copy brings one copy at least.
constexpr int patience = 4;
constexpr int deadlock = 20'000;
constexpr int slices[] = {40, 400, 4'000, 40'000};

// Passes in which all only looked, after which part one of a launch stops.
constexpr int quiet = 50;
constexpr size_t alignment_of_parameters = 64;
// Ended clusters are kept for the next launches, up to so much memory.
constexpr size_t most_kept = size_t{1} << 30;

// A cluster that runs: its blocks and their warps.
struct RunningCluster {
  Cluster cluster;
  std::vector<std::unique_ptr<Block>> blocks;
  std::vector<std::unique_ptr<Warp>> warps;
  size_t bytes = 0;  // at most, so far
  std::unique_ptr<Races> races;
};

// Ended clusters by their number of blocks and of warps: their memory is used again.
struct Ended {
  std::map<std::pair<uint64_t, uint64_t>, std::vector<std::unique_ptr<RunningCluster>>> clusters;
  size_t bytes = 0;
};
Ended& ended_clusters() {
  static Ended& ended = *new Ended;
  return ended;
}

Size3 place_of(uint64_t number, const Size3& size) {
  return {static_cast<uint32_t>(number % size.x), static_cast<uint32_t>(number / size.x % size.y),
          static_cast<uint32_t>(number / size.x / size.y)};
}

Size3 clusters_of(const Launch& launch) {
  return {launch.grid.x / launch.cluster.x, launch.grid.y / launch.cluster.y,
          launch.grid.z / launch.cluster.z};
}

size_t warps_of_block(const Launch& launch) {
  return (launch.block.count() + warp_size - 1) / warp_size;
}

size_t bytes_of_cluster(const Launch& launch) {
  const Kernel& kernel = *launch.kernel;
  const size_t warp = sizeof(Warp) + kernel.register_bytes + kernel.local_bytes * warp_size;
  const size_t block =
      sizeof(Block) + kernel.static_shared_bytes + launch.dynamic_shared_bytes + 1024;
  return launch.cluster.count() * (block + warps_of_block(launch) * warp);
}

bool let_next_start(const std::unique_ptr<RunningCluster>& cluster) {
  return std::all_of(cluster->blocks.begin(), cluster->blocks.end(), [](const auto& block) {
    return block->lets_next_start || block->live_threads == 0;
  });
}

void start_block(Block& block, const Launch& launch) {
  constexpr size_t alignment = 1024;
  block.launch = &launch;
  block.shared_bytes = launch.kernel->static_shared_bytes + launch.dynamic_shared_bytes;
  block.shared_memory.assign(block.shared_bytes + alignment, std::byte{0xFF});
  block.shared = first_aligned(block.shared_memory.data(), alignment);
  block.threads = static_cast<uint32_t>(launch.block.count());
  block.live_threads = block.threads;
  block.barriers = {};
  block.pending.clear();
  block.lets_next_start = false;
}

std::unique_ptr<RunningCluster> take_cluster(uint64_t blocks, uint64_t warps) {
  auto& ended = ended_clusters().clusters[{blocks, warps}];
  if (!ended.empty()) {
    std::unique_ptr<RunningCluster> cluster = std::move(ended.back());
    ended.pop_back();
    ended_clusters().bytes -= cluster->bytes;
    return cluster;
  }
  auto cluster = std::make_unique<RunningCluster>();
  for (uint64_t i = 0; i < blocks; ++i) cluster->blocks.push_back(std::make_unique<Block>());
  for (uint64_t i = 0; i < warps; ++i) cluster->warps.push_back(std::make_unique<Warp>());
  return cluster;
}

void keep(std::unique_ptr<RunningCluster> cluster) {
  Ended& ended = ended_clusters();
  if (ended.bytes + cluster->bytes > most_kept) return;
  ended.bytes += cluster->bytes;
  ended.clusters[{cluster->blocks.size(), cluster->warps.size()}].push_back(std::move(cluster));
}

}  // namespace

struct Machine::State {
  State(std::shared_ptr<const Launch> of, uint32_t seed)
      : launch(std::move(of)),
        parameter_memory(launch->parameters.size() + alignment_of_parameters),
        parameters(first_aligned(parameter_memory.data(), alignment_of_parameters)),
        random(seed + 1) {
    std::copy(launch->parameters.begin(), launch->parameters.end(), parameters);
  }

  bool has_more() const { return !set_aside.empty() || next < clusters_of(*launch).count(); }
  bool has_ended() const { return running.empty() && !has_more(); }
  bool triggered() const;
  void take_up_next();
  void start_next();
  bool pass();
  void set_aside_if(bool all);
  void end(RunningCluster& cluster);
  void leave();
  void run_to_waits();
  void run_to_triggers();
  void finish();
  [[noreturn]] void report_deadlock() const;

  std::shared_ptr<const Launch> launch;
  std::vector<std::byte> parameter_memory;
  std::byte* parameters;  // in it
  std::minstd_rand random;
  uint64_t earlier_ended = 0, goes_on = 1;
  uint64_t next = 0;  // cluster
  std::vector<std::unique_ptr<RunningCluster>> running;
  // Started, and left where the launch has to stop.
  std::deque<std::unique_ptr<RunningCluster>> set_aside;
};

bool Machine::State::triggered() const {
  if (next < clusters_of(*launch).count()) return false;
  const auto of_all = [](const auto& clusters) {
    return std::all_of(clusters.begin(), clusters.end(), let_next_start);
  };
  return of_all(running) && of_all(set_aside);
}

void Machine::State::start_next() {
  const uint64_t blocks = launch->cluster.count();
  const size_t warps = warps_of_block(*launch);
  running.push_back(take_cluster(blocks, blocks * warps));
  RunningCluster& cluster = *running.back();
  cluster.bytes = std::max(cluster.bytes, bytes_of_cluster(*launch));
  cluster.cluster = {};
  const Size3 at = place_of(next++, clusters_of(*launch));
  for (uint32_t rank = 0; rank < cluster.blocks.size(); ++rank) {
    Block& block = *cluster.blocks[rank];
    start_block(block, *launch);
    block.parameters = parameters;
    block.random = &random;
    block.earlier_ended = &earlier_ended;
    block.goes_on = &goes_on;
    const Size3 inside = place_of(rank, launch->cluster);
    block.index = {at.x * launch->cluster.x + inside.x, at.y * launch->cluster.y + inside.y,
                   at.z * launch->cluster.z + inside.z};
    block.rank = rank;
    block.cluster = &cluster.cluster;
    cluster.cluster.blocks.push_back(&block);
    block.warps.clear();
    for (size_t i = 0; i < warps; ++i) block.warps.push_back(cluster.warps[rank * warps + i].get());
  }
  const bool checks_races = launch->race_check != RaceCheck::none;
  if (checks_races && cluster.races == nullptr) cluster.races = std::make_unique<Races>();
  if (checks_races) cluster.races->start(cluster.cluster);
  for (Block* block : cluster.cluster.blocks) {
    block->races = checks_races ? cluster.races.get() : nullptr;
    for (size_t i = 0; i < warps; ++i) {
      const size_t threads = std::min<size_t>(warp_size, block->threads - i * warp_size);
      block->warps[i]->start(*block, static_cast<int>(i), static_cast<int>(threads));
    }
  }
}

void Machine::State::take_up_next() {
  if (set_aside.empty()) return start_next();
  running.push_back(std::move(set_aside.front()));
  set_aside.pop_front();
}

void Machine::State::end(RunningCluster& cluster) {
  for (const auto& block : cluster.blocks) {
    if (!block->pending.empty()) {
      fail(
          "kernel {}, block ({}, {}, {}) has ended while {} copies into its shared memory are on "
          "their way",
          launch->kernel->name, block->index.x, block->index.y, block->index.z,
          block->pending.size());
    }
  }
}

// A slice for each warp. Was anything done but looking?
bool Machine::State::pass() {
  bool worked = false;
  for (auto& cluster : running) {
    auto& warps = cluster->warps;
    const size_t first = random() % warps.size();
    bool alive = false;
    for (size_t i = 0; i < warps.size(); ++i) {
      Warp& warp = *warps[(first + i) % warps.size()];
      if (warp.finished()) continue;
      worked |= warp.run(slices[random() % std::size(slices)]) > looking || warp.finished();
      alive |= !warp.finished();
    }
    if (alive) continue;
    end(*cluster);
    keep(std::move(cluster));
    worked = true;
  }
  std::erase(running, nullptr);
  return worked;
}

// Those of which all threads that are left wait for earlier kernels, or some do.
void Machine::State::set_aside_if(bool all) {
  for (auto& cluster : running) {
    bool one_waits = false, all_wait = true;
    for (const auto& warp : cluster->warps) {
      const LaneMask waiting = warp->waiting_for(&earlier_ended);
      one_waits |= waiting != 0;
      all_wait &= waiting == warp->live();
    }
    if (all ? all_wait : one_waits) set_aside.push_back(std::move(cluster));
  }
  std::erase(running, nullptr);
}

void Machine::State::run_to_waits() {
  const uint64_t clusters = clusters_of(*launch).count();
  int waited = 0;
  while ((next < clusters || !running.empty()) && waited < quiet) {
    if (waited >= patience && earlier_ended == 0) set_aside_if(false);
    if (next < clusters && (running.empty() || waited >= patience)) {
      start_next();
      waited = 0;
    }
    waited = pass() ? 0 : waited + 1;
    if (earlier_ended == 0) set_aside_if(true);
  }
  leave();
}

void Machine::State::run_to_triggers() {
  goes_on = 0;
  std::vector<std::unique_ptr<RunningCluster>> there;
  for (int waited = 0; (has_more() || !running.empty()) && waited < quiet;) {
    if (has_more() && (running.empty() || waited >= patience)) {
      take_up_next();
      waited = 0;
    }
    waited = pass() ? 0 : waited + 1;
    for (auto& cluster : running)
      if (let_next_start(cluster)) there.push_back(std::move(cluster));
    std::erase(running, nullptr);
  }
  leave();
  for (auto& cluster : there) set_aside.push_back(std::move(cluster));
  goes_on = 1;
}

void Machine::State::leave() {
  for (auto& cluster : running) set_aside.push_back(std::move(cluster));
  running.clear();
}

void Machine::State::finish() {
  int waited = 0;
  while (!has_ended()) {
    if (has_more() && (running.empty() || waited >= patience)) {
      take_up_next();
      waited = 0;
    }
    waited = pass() ? 0 : waited + 1;
    if (waited >= deadlock) report_deadlock();
  }
}

void Machine::State::report_deadlock() const {
  constexpr int shown = 4;
  std::string text;
  int count = 0;
  for (const auto& cluster : running) {
    for (const auto& block : cluster->blocks) {
      for (const Warp* warp : block->warps) {
        if (warp->finished() || ++count > shown) continue;
        text += fmt::format("; block ({}, {}, {}), warp {}: {}", block->index.x, block->index.y,
                            block->index.z, warp->index(), warp->where());
      }
    }
  }
  fail("kernel {}: all {} warps wait for ever{}", launch->kernel->name, count, text);
}

Machine::Machine(std::shared_ptr<const Launch> launch, uint32_t seed) {
  const Kernel& kernel = *launch->kernel;
  if (launch->parameters.size() != kernel.parameter_bytes) {
    fail("kernel {} takes {} bytes of parameters, the launch has {}", kernel.name,
         kernel.parameter_bytes, launch->parameters.size());
  }
  state_ = std::make_unique<State>(std::move(launch), seed);
}

Machine::~Machine() = default;

void Machine::run_to_waits() {
  state_->run_to_waits();
}

void Machine::run_to_triggers() {
  open_gate();
  state_->run_to_triggers();
}

void Machine::finish() {
  open_gate();
  state_->finish();
}

void Machine::open_gate() {
  state_->earlier_ended = 1;
}

bool Machine::triggered() const {
  return state_->triggered();
}

bool Machine::ended() const {
  return state_->has_ended();
}

void run(const Launch& launch, uint32_t seed) {
  // The caller's, for as long as this takes.
  Machine(std::shared_ptr<const Launch>(std::shared_ptr<const Launch>(), &launch), seed).finish();
}

size_t bytes_of_all_blocks(const Launch& launch) {
  return clusters_of(launch).count() * bytes_of_cluster(launch);
}

}  // namespace qnext::emulator
