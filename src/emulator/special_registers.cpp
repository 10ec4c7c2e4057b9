#include "emulator/special_registers.h"

#include <array>
#include <atomic>
#include <cstdint>
#include <limits>

#include "emulator/elementwise.h"

namespace qnext::emulator {
namespace {

using Value = uint64_t (*)(Warp& warp, int lane);

struct Special {
  std::string_view name;
  Value value;
};

uint64_t thread_of(const Warp& warp, int lane) {
  return static_cast<uint64_t>(warp.index()) * warp_size + static_cast<uint64_t>(lane);
}

template <uint32_t Size3::*axis>
uint64_t block_index(Warp& warp, int) {
  return warp.block().index.*axis;
}

template <Size3 Launch::*size, uint32_t Size3::*axis>
uint64_t size_of(Warp& warp, int) {
  return warp.block().launch->*size.*axis;
}

template <uint32_t Size3::*axis>
uint64_t index_in_cluster(Warp& warp, int) {
  return warp.block().index.*axis % warp.block().launch->cluster.*axis;
}

template <uint32_t Size3::*axis>
uint64_t cluster_index(Warp& warp, int) {
  return warp.block().index.*axis / warp.block().launch->cluster.*axis;
}

template <uint32_t Size3::*axis>
uint64_t clusters(Warp& warp, int) {
  return warp.block().launch->grid.*axis / warp.block().launch->cluster.*axis;
}

// Blocks beside one another are on processors of their own.
uint64_t processor(Warp& warp, int) {
  const Size3 &index = warp.block().index, &grid = warp.block().launch->grid;
  return (uint64_t{index.z} * grid.y + index.y) * grid.x + index.x;
}

constexpr std::array specials = {
    Special{
        "%tid.x",
        [](Warp& warp, int lane) { return thread_of(warp, lane) % warp.block().launch->block.x; }},
    Special{"%tid.y",
            [](Warp& warp, int lane) {
              const Size3& size = warp.block().launch->block;
              return thread_of(warp, lane) / size.x % size.y;
            }},
    Special{"%tid.z",
            [](Warp& warp, int lane) {
              const Size3& size = warp.block().launch->block;
              return thread_of(warp, lane) / size.x / size.y;
            }},
    Special{"%ntid.x", size_of<&Launch::block, &Size3::x>},
    Special{"%ntid.y", size_of<&Launch::block, &Size3::y>},
    Special{"%ntid.z", size_of<&Launch::block, &Size3::z>},
    Special{"%ctaid.x", block_index<&Size3::x>},
    Special{"%ctaid.y", block_index<&Size3::y>},
    Special{"%ctaid.z", block_index<&Size3::z>},
    Special{"%nctaid.x", size_of<&Launch::grid, &Size3::x>},
    Special{"%nctaid.y", size_of<&Launch::grid, &Size3::y>},
    Special{"%nctaid.z", size_of<&Launch::grid, &Size3::z>},
    Special{"%cluster_ctaid.x", index_in_cluster<&Size3::x>},
    Special{"%cluster_ctaid.y", index_in_cluster<&Size3::y>},
    Special{"%cluster_ctaid.z", index_in_cluster<&Size3::z>},
    Special{"%cluster_nctaid.x", size_of<&Launch::cluster, &Size3::x>},
    Special{"%cluster_nctaid.y", size_of<&Launch::cluster, &Size3::y>},
    Special{"%cluster_nctaid.z", size_of<&Launch::cluster, &Size3::z>},
    Special{"%clusterid.x", cluster_index<&Size3::x>},
    Special{"%clusterid.y", cluster_index<&Size3::y>},
    Special{"%clusterid.z", cluster_index<&Size3::z>},
    Special{"%nclusterid.x", clusters<&Size3::x>},
    Special{"%nclusterid.y", clusters<&Size3::y>},
    Special{"%nclusterid.z", clusters<&Size3::z>},
    Special{"%cluster_ctarank", [](Warp& warp, int) { return uint64_t{warp.block().rank}; }},
    Special{"%cluster_nctarank",
            [](Warp& warp, int) { return uint64_t{warp.block().cluster->blocks.size()}; }},
    Special{"%laneid", [](Warp&, int lane) { return static_cast<uint64_t>(lane); }},
    Special{"%warpid", [](Warp& warp, int) { return static_cast<uint64_t>(warp.index()); }},
    Special{"%nwarpid",
            [](Warp& warp, int) { return uint64_t{(warp.block().threads + 31) / warp_size}; }},
    Special{"%smid", processor},
    Special{"%lanemask_eq", [](Warp&, int lane) { return uint64_t{lane_bit(lane)}; }},
    Special{"%lanemask_lt", [](Warp&, int lane) { return uint64_t{lane_bit(lane) - 1}; }},
    Special{"%lanemask_le",
            [](Warp&, int lane) { return uint64_t{(lane_bit(lane) - 1) | lane_bit(lane)}; }},
    Special{"%lanemask_gt",
            [](Warp&, int lane) { return uint64_t{~((lane_bit(lane) - 1) | lane_bit(lane))}; }},
    Special{"%lanemask_ge", [](Warp&, int lane) { return uint64_t{~(lane_bit(lane) - 1)}; }},
    Special{"%dynamic_smem_size",
            [](Warp& warp, int) { return uint64_t{warp.block().launch->dynamic_shared_bytes}; }},
    Special{"%total_smem_size",
            [](Warp& warp, int) { return uint64_t{warp.block().shared_bytes}; }},
};

template <typename T>
void read_special(Warp& warp, const Instruction& instruction, LaneMask active) {
  T* const result = warp.lanes<T>(instruction.operands[0]);
  const Value value = specials[static_cast<size_t>(instruction.detail[0])].value;
  for_lanes(active, [&](int lane) { result[lane] = static_cast<T>(value(warp, lane)); });
}

// Time passes when somebody looks: waits for an hour to come end, and runs repeat.
template <typename T, int shift>
void read_clock(Warp& warp, const Instruction& instruction, LaneMask active) {
  static std::atomic<uint64_t> ticks{0};
  T* const result = warp.lanes<T>(instruction.operands[0]);
  const auto now = static_cast<T>((ticks += 64) >> shift);
  for_lanes(active, [&](int lane) { result[lane] = now; });
}

Handler clock_of(std::string_view name, int bits) {
  if (name == "%clock_hi") return bits == 32 ? read_clock<uint32_t, 32> : nullptr;
  if (name != "%clock" && name != "%clock64" && name != "%globaltimer" && name != "%globaltimer_lo")
    return nullptr;
  return bits == 32 ? read_clock<uint32_t, 0> : read_clock<uint64_t, 0>;
}

}  // namespace

bool decode_special_register(std::string_view name, int bits, Instruction& instruction) {
  if (bits != 32 && bits != 64) return false;
  instruction.handler = clock_of(name, bits);
  if (instruction.handler != nullptr) return true;
  for (size_t i = 0; i < specials.size(); ++i) {
    if (specials[i].name != name) continue;
    instruction.detail[0] = static_cast<int32_t>(i);
    instruction.handler = bits == 32 ? read_special<uint32_t> : read_special<uint64_t>;
    return true;
  }
  return false;
}

}  // namespace qnext::emulator
