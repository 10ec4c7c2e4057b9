#include "emulator/device_memory.h"

#include <fmt/format.h>

#include <cstdlib>
#include <cstring>
#include <iterator>

#include "emulator/alignment.h"

namespace qnext::emulator {
namespace {

constexpr size_t alignment = 256;
// Nobody's bytes behind each allocation: an access a little too far is not the next one's.
constexpr size_t gap = 256;

}  // namespace

std::byte* DeviceMemory::allocate(size_t bytes) {
  if (bytes == 0 || bytes > (size_t{1} << 47)) return nullptr;
  const size_t rounded = round_up(bytes + gap, alignment);
  auto* begin = static_cast<std::byte*>(std::aligned_alloc(alignment, rounded));
  if (!begin) return nullptr;
  std::memset(begin, 0xFF, bytes);
  blocks_[reinterpret_cast<uint64_t>(begin)] = {bytes, true};
  used_ += bytes;
  return begin;
}

void DeviceMemory::add(std::byte* begin, size_t bytes) {
  blocks_[reinterpret_cast<uint64_t>(begin)] = {bytes, false};
}

bool DeviceMemory::release(const void* begin) {
  const auto found = blocks_.find(reinterpret_cast<uint64_t>(begin));
  if (found == blocks_.end()) return false;
  if (found->second.owned) {
    used_ -= found->second.bytes;
    std::free(reinterpret_cast<void*>(found->first));
  }
  blocks_.erase(found);
  return true;
}

std::optional<Range> DeviceMemory::find(uint64_t address, size_t count) const {
  auto block = blocks_.upper_bound(address);
  if (block == blocks_.begin()) return std::nullopt;
  --block;
  const Range range{reinterpret_cast<std::byte*>(block->first), block->second.bytes};
  if (!range.holds(address, count)) return std::nullopt;
  return range;
}

std::string DeviceMemory::describe(uint64_t address) const {
  // Further away it is anybody's guess which allocation was meant.
  constexpr uint64_t near = uint64_t{1} << 20;
  const auto after = blocks_.upper_bound(address);
  if (after != blocks_.begin()) {
    const auto& [begin, block] = *std::prev(after);
    if (address < begin + block.bytes)
      return fmt::format("at byte {} of an allocation of {}", address - begin, block.bytes);
    const uint64_t behind = address - begin - block.bytes;
    if (behind < near)
      return fmt::format("{} bytes behind an allocation of {}", behind, block.bytes);
  }
  if (after != blocks_.end() && after->first - address <= near)
    return fmt::format("{} bytes before an allocation of {}", after->first - address,
                       after->second.bytes);
  return "in no allocation";
}

DeviceMemory& device_memory() {
  // Never destroyed: static objects may free their memory later than any order would allow.
  static DeviceMemory& memory = *new DeviceMemory;
  return memory;
}

}  // namespace qnext::emulator
