#include "emulator/machine.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
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

// A cluster that runs: its blocks and their warps.
struct RunningCluster {
  Cluster cluster;
  std::vector<std::unique_ptr<Block>> blocks;
  std::vector<std::unique_ptr<Warp>> warps;
  std::unique_ptr<Races> races;
};

class Machine {
 public:
  Machine(const Launch& launch, uint32_t seed) : launch_(launch), random_(seed + 1) {}

  void run();

 private:
  void start_next();
  bool pass();
  void end(RunningCluster& running);
  [[noreturn]] void report_deadlock() const;

  const Launch& launch_;
  std::minstd_rand random_;
  uint64_t next_ = 0;  // cluster
  std::vector<std::unique_ptr<RunningCluster>> running_;
};

// Ended clusters by their number of blocks and of warps: their memory is used again.
using Ended = std::map<std::pair<uint64_t, uint64_t>, std::vector<std::unique_ptr<RunningCluster>>>;
Ended& ended_clusters() {
  static Ended ended;
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

void start_block(Block& block, const Launch& launch, std::minstd_rand& random) {
  constexpr size_t alignment = 1024;
  block.launch = &launch;
  block.shared_bytes = launch.kernel->static_shared_bytes + launch.dynamic_shared_bytes;
  block.shared_memory.assign(block.shared_bytes + alignment, std::byte{0xFF});
  const auto begin = reinterpret_cast<uintptr_t>(block.shared_memory.data());
  block.shared = block.shared_memory.data() + (alignment - begin % alignment) % alignment;
  block.threads = static_cast<uint32_t>(launch.block.count());
  block.live_threads = block.threads;
  block.barriers = {};
  block.pending.clear();
  block.random = &random;
}

std::unique_ptr<RunningCluster> take_cluster(uint64_t blocks, uint64_t warps) {
  auto& ended = ended_clusters()[{blocks, warps}];
  if (!ended.empty()) {
    std::unique_ptr<RunningCluster> cluster = std::move(ended.back());
    ended.pop_back();
    return cluster;
  }
  auto cluster = std::make_unique<RunningCluster>();
  for (uint64_t i = 0; i < blocks; ++i) cluster->blocks.push_back(std::make_unique<Block>());
  for (uint64_t i = 0; i < warps; ++i) cluster->warps.push_back(std::make_unique<Warp>());
  return cluster;
}

void Machine::start_next() {
  const uint64_t blocks = launch_.cluster.count();
  const uint64_t warps_a_block = (launch_.block.count() + warp_size - 1) / warp_size;
  running_.push_back(take_cluster(blocks, blocks * warps_a_block));
  RunningCluster& running = *running_.back();
  running.cluster = {};
  const Size3 at = place_of(next_++, clusters_of(launch_));
  const size_t warps = running.warps.size() / running.blocks.size();
  for (uint32_t rank = 0; rank < running.blocks.size(); ++rank) {
    Block& block = *running.blocks[rank];
    start_block(block, launch_, random_);
    const Size3 inside = place_of(rank, launch_.cluster);
    block.index = {at.x * launch_.cluster.x + inside.x, at.y * launch_.cluster.y + inside.y,
                   at.z * launch_.cluster.z + inside.z};
    block.rank = rank;
    block.cluster = &running.cluster;
    running.cluster.blocks.push_back(&block);
    block.warps.clear();
    for (size_t i = 0; i < warps; ++i) block.warps.push_back(running.warps[rank * warps + i].get());
  }
  const bool checks_races = launch_.race_check != RaceCheck::none;
  if (checks_races && running.races == nullptr) running.races = std::make_unique<Races>();
  if (checks_races) running.races->start(running.cluster);
  for (Block* block : running.cluster.blocks) {
    block->races = checks_races ? running.races.get() : nullptr;
    for (size_t i = 0; i < warps; ++i) {
      const size_t threads = std::min<size_t>(warp_size, block->threads - i * warp_size);
      block->warps[i]->start(*block, static_cast<int>(i), static_cast<int>(threads));
    }
  }
}

void Machine::end(RunningCluster& running) {
  for (const auto& block : running.blocks) {
    if (!block->pending.empty()) {
      fail(
          "kernel {}, block ({}, {}, {}) has ended while {} copies into its shared memory are on "
          "their way",
          launch_.kernel->name, block->index.x, block->index.y, block->index.z,
          block->pending.size());
    }
  }
}

// A slice for each warp. Was anything done but looking?
bool Machine::pass() {
  bool worked = false;
  for (auto& running : running_) {
    auto& warps = running->warps;
    const size_t first = random_() % warps.size();
    bool alive = false;
    for (size_t i = 0; i < warps.size(); ++i) {
      Warp& warp = *warps[(first + i) % warps.size()];
      if (warp.finished()) continue;
      worked |= warp.run(slices[random_() % std::size(slices)]) > looking || warp.finished();
      alive |= !warp.finished();
    }
    if (alive) continue;
    end(*running);
    ended_clusters()[{running->blocks.size(), running->warps.size()}].push_back(std::move(running));
    worked = true;
  }
  std::erase(running_, nullptr);
  return worked;
}

void Machine::run() {
  const uint64_t clusters = clusters_of(launch_).count();
  int waited = 0;
  while (next_ < clusters || !running_.empty()) {
    if (running_.empty() || (waited >= patience && next_ < clusters)) {
      start_next();
      waited = 0;
    }
    waited = pass() ? 0 : waited + 1;
    if (waited >= deadlock) report_deadlock();
  }
}

void Machine::report_deadlock() const {
  constexpr int shown = 4;
  std::string text;
  int count = 0;
  for (const auto& running : running_) {
    for (const auto& block : running->blocks) {
      for (const Warp* warp : block->warps) {
        if (warp->finished() || ++count > shown) continue;
        text += fmt::format("; block ({}, {}, {}), warp {}: {}", block->index.x, block->index.y,
                            block->index.z, warp->index(), warp->where());
      }
    }
  }
  fail("kernel {}: all {} warps wait for ever{}", launch_.kernel->name, count, text);
}

}  // namespace

void run(const Launch& launch, uint32_t seed) {
  const Kernel& kernel = *launch.kernel;
  if (launch.parameters.size() != kernel.parameter_bytes) {
    fail("kernel {} takes {} bytes of parameters, the launch has {}", kernel.name,
         kernel.parameter_bytes, launch.parameters.size());
  }
  if (!launch.parameters.empty())
    std::memcpy(kernel.parameter_memory.get(), launch.parameters.data(), launch.parameters.size());
  Machine(launch, seed).run();
}

}  // namespace qnext::emulator
