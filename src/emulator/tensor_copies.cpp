// cp.async.bulk.tensor from global to shared memory: a box of a tensor map, rows one behind the
// other, zeros for what lies outside of the tensor.
#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "emulator/copies.h"
#include "emulator/device_memory.h"
#include "emulator/tensor_map.h"
#include "emulator/warp.h"

namespace qnext::emulator {
namespace {

// A box as one thread asks for it.
struct Box {
  TensorMap map;
  std::array<int64_t, 5> at{};  // of its first element
  std::byte* shared = nullptr;  // begin of the block's memory
  uint32_t offset = 0;          // of the box in it

  size_t row_bytes() const { return size_t{map.box[0]} * map.element_bytes; }
  uint32_t rows() const {
    uint32_t count = 1;
    for (size_t i = 1; i < map.rank; ++i) count *= map.box[i];
    return count;
  }
};

// 16-byte chunks change places by the address: within 128 bytes by the 128 bytes they are in, and
// so on for less.
uint32_t swizzled(uint32_t address, uint32_t swizzle_bytes) {
  const uint32_t bits = swizzle_bytes == 0 ? 0 : swizzle_bytes - 16;
  return address ^ (address >> 3 & bits);
}

// Where row `row` of the box begins in global memory, as if it began at column 0; 0 for a row
// outside.
uint64_t row_begin(const Box& box, uint32_t row) {
  uint64_t address = box.map.base;
  for (size_t i = 1; i < box.map.rank; ++i) {
    const int64_t at = box.at[i] + row % box.map.box[i];
    row /= box.map.box[i];
    if (at < 0 || at >= static_cast<int64_t>(box.map.size[i])) return 0;
    address += static_cast<uint64_t>(at) * box.map.stride[i - 1];
  }
  return address;
}

void copy_row(const Box& box, uint64_t begin, uint32_t offset, Range& known, Warp& warp,
              const Instruction& instruction, int lane) {
  const size_t bytes = box.row_bytes();
  std::array<std::byte, 256 * 8> row{};
  const int64_t first = std::max<int64_t>(box.at[0], 0);
  const int64_t end = std::min<int64_t>(box.at[0] + box.map.box[0], box.map.size[0]);
  if (begin != 0 && first < end) {
    const auto width = static_cast<int64_t>(box.map.element_bytes);
    const uint64_t from = begin + static_cast<uint64_t>(first * width);
    const auto count = static_cast<size_t>((end - first) * width);
    if (!known.holds(from, count)) {
      const auto found = device_memory().find(from, count);
      if (!found)
        warp.fault(instruction, lane,
                   fmt::format("a row of the tensor is not there: {} bytes at {:#x}, {}", count,
                               from, device_memory().describe(from)));
      known = *found;
    }
    std::memcpy(row.data() + (first - box.at[0]) * width, reinterpret_cast<const void*>(from),
                count);
  }
  if (box.map.swizzle_bytes == 0) {
    std::memcpy(box.shared + offset, row.data(), bytes);
    return;
  }
  for (uint32_t chunk = 0; chunk < bytes; chunk += 16)
    std::memcpy(box.shared + swizzled(offset + chunk, box.map.swizzle_bytes), row.data() + chunk,
                16);
}

void copy_box(const Box& box, Warp& warp, const Instruction& instruction, int lane) {
  Range known;
  const auto row_bytes = static_cast<uint32_t>(box.row_bytes());
  for (uint32_t row = 0; row < box.rows(); ++row)
    copy_row(box, row_begin(box, row), box.offset + row * row_bytes, known, warp, instruction,
             lane);
}

void check_map(const TensorMap& map, int rank, Warp& warp, const Instruction& instruction,
               int lane) {
  if (map.magic != TensorMap::mark)
    warp.fault(instruction, lane, "what the address is of is no tensor map");
  if (map.rank != rank)
    warp.fault(instruction, lane, fmt::format("the tensor map has {} dimensions", map.rank));
  const uint32_t bytes = map.box[0] * map.element_bytes;
  if (bytes % 16 != 0 || map.box[0] > 256 || map.element_bytes > 8)
    warp.fault(instruction, lane, "the box's rows are no multiple of 16 bytes, or too long");
  if (map.swizzle_bytes != 0 && bytes != map.swizzle_bytes)
    warp.fault(instruction, lane, "the box's rows are not as long as its swizzle");
}

// operands: address in shared memory, of the tensor map, barrier; many: coordinates. detail[0 to
// 1], offset: what is added to the addresses of shared memory, of the barrier, of the map.
void copy_tensor(Warp& warp, const Instruction& instruction, LaneMask active) {
  const uint32_t* to = warp.lanes<uint32_t>(instruction.operands[0]);
  const uint64_t* maps = warp.lanes<uint64_t>(instruction.operands[1]);
  const uint32_t* barriers = warp.lanes<uint32_t>(instruction.operands[2]);
  const auto rank = static_cast<int>(instruction.many.size());
  for_lanes(active, [&](int lane) {
    const uint64_t map_address = maps[lane] + static_cast<uint64_t>(instruction.offset);
    if (map_address % 64 != 0) warp.fault(instruction, lane, "the tensor map is not aligned to 64");
    Box box;
    std::memcpy(&box.map, warp.generic(map_address, 128, instruction, lane), sizeof(TensorMap));
    check_map(box.map, rank, warp, instruction, lane);
    for (size_t i = 0; i < instruction.many.size(); ++i)
      box.at[i] = warp.lanes<int32_t>(instruction.many[i])[lane];
    const uint32_t address = to[lane] + static_cast<uint32_t>(instruction.detail[0]);
    const auto bytes = static_cast<uint32_t>(box.rows() * box.row_bytes());
    warp.shared(address, bytes, instruction, lane, Access::none);
    const BarrierPlace barrier = find_barrier(
        warp, barriers[lane] + static_cast<uint32_t>(instruction.detail[1]), instruction, lane);
    if (&block_of(warp, address) != barrier.owner)
      warp.fault(instruction, lane, "the barrier is in another block than the bytes");
    box.shared = barrier.owner->shared;
    box.offset = address & ((uint32_t{1} << Block::rank_shift) - 1);
    if (box.offset % 128 != 0)
      warp.fault(instruction, lane, "a box's address in shared memory is a multiple of 128");
    Delayed delayed(warp, instruction);
    copy_behind(warp, instruction, lane, barrier, bytes,
                [box, bytes, barrier, delayed, &warp, &instruction, lane]() mutable {
                  // A swizzle changes the order of chunks, and not which bytes are written.
                  delayed.happen(barrier.word);
                  delayed.note(box.shared + box.offset, bytes, Access::write);
                  copy_box(box, warp, instruction, lane);
                });
  });
}

}  // namespace

void decode_tensor_copy(const Statement& statement, Names& names, Instruction& instruction) {
  const auto& arguments = statement.arguments;
  const bool inwards = statement.parts.size() > 5 && (statement.parts[5] == "shared::cluster" ||
                                                      statement.parts[5] == "shared::cta");
  if (!inwards || !statement.has("global") || !statement.has("mbarrier::complete_tx::bytes") ||
      arguments.size() != (statement.has("L2::cache_hint") ? 4u : 3u))
    names.refuse("this form of cp.async.bulk.tensor is not known here");
  instruction.handler = copy_tensor;
  instruction.operands[0] = names.source(arguments[0].text, Type::b32);
  instruction.operands[1] = names.source(arguments[1].text, Type::b64);
  instruction.operands[2] = names.source(arguments[2].text, Type::b32);
  instruction.detail[0] = static_cast<int32_t>(arguments[0].offset);
  instruction.offset = arguments[1].offset;
  instruction.detail[1] = static_cast<int32_t>(arguments[2].offset);
  for (const std::string_view coordinate : arguments[1].elements)
    instruction.many.push_back(names.source(coordinate, Type::s32));
  const std::string_view rank = statement.parts[4];  // "2d"
  if (instruction.many.empty() || instruction.many.size() > 5 ||
      rank != fmt::format("{}d", instruction.many.size()))
    names.refuse("there are not as many coordinates as dimensions");
}

}  // namespace qnext::emulator
