// st.async: stores into shared memory of the cluster which an mbarrier counts.
#include <array>
#include <bit>
#include <cstring>
#include <vector>

#include "emulator/copies.h"
#include "emulator/warp.h"

namespace qnext::emulator {
namespace {

// What one thread stores.
struct Sent {
  std::byte* to = nullptr;
  std::array<std::byte, 16> value{};
};

// operands: address, barrier; many: values. detail[0 to 1]: what is added to the addresses.
template <typename T>
Sent sent(Warp& warp, const Instruction& instruction, int lane, const BarrierPlace& barrier) {
  const uint32_t address = warp.lanes<uint32_t>(instruction.operands[0])[lane] +
                           static_cast<uint32_t>(instruction.detail[0]);
  const size_t bytes = sizeof(T) * instruction.many.size();
  Sent one;
  one.to = warp.shared(address, bytes, instruction, lane, Access::none);
  if (&block_of(warp, address) != barrier.owner)
    warp.fault(instruction, lane, "the barrier is in another block than the bytes");
  for (size_t i = 0; i < instruction.many.size(); ++i)
    std::memcpy(one.value.data() + i * sizeof(T), &warp.lanes<T>(instruction.many[i])[lane],
                sizeof(T));
  return one;
}

template <typename T>
void store(Warp& warp, const Instruction& instruction, LaneMask active) {
  const uint32_t* barriers = warp.lanes<uint32_t>(instruction.operands[1]);
  const size_t bytes = sizeof(T) * instruction.many.size();
  while (active != 0) {
    // Threads with one barrier send together.
    const int first = std::countr_zero(active);
    const uint32_t address = barriers[first] + static_cast<uint32_t>(instruction.detail[1]);
    const BarrierPlace barrier = find_barrier(warp, address, instruction, first);
    std::vector<Sent> all;
    LaneMask left = 0;
    for_lanes(active, [&](int lane) {
      if (barriers[lane] == barriers[first])
        all.push_back(sent<T>(warp, instruction, lane, barrier));
      else
        left |= lane_bit(lane);
    });
    active = left;
    const auto total = static_cast<uint32_t>(all.size() * bytes);
    Delayed delayed(warp, instruction);
    copy_behind(warp, instruction, first, barrier, total,
                [all = std::move(all), bytes, barrier, delayed]() mutable {
                  delayed.happen(barrier.word);
                  for (const Sent& one : all) {
                    delayed.note(one.to, bytes, Access::write);
                    std::memcpy(one.to, one.value.data(), bytes);
                  }
                });
  }
}

}  // namespace

void decode_async_store(const Statement& statement, Names& names, Instruction& instruction) {
  const auto& arguments = statement.arguments;
  const Type type = statement.type();
  const bool known = statement.has("shared::cluster") &&
                     statement.has("mbarrier::complete_tx::bytes") && arguments.size() == 3 &&
                     (bits_of(type) == 32 || bits_of(type) == 64);
  if (!known) names.refuse("this form of st.async is not known here");
  instruction.handler = bits_of(type) == 32 ? store<uint32_t> : store<uint64_t>;
  instruction.operands[0] = names.source(arguments[0].text, Type::b32);
  instruction.operands[1] = names.source(arguments[2].text, Type::b32);
  instruction.detail[0] = static_cast<int32_t>(arguments[0].offset);
  instruction.detail[1] = static_cast<int32_t>(arguments[2].offset);
  if (arguments[1].kind == Argument::Kind::vector) {
    for (const std::string_view value : arguments[1].elements)
      instruction.many.push_back(names.source(value, type));
  } else {
    instruction.many.push_back(names.source(arguments[1], type));
  }
  if (instruction.many.size() * static_cast<size_t>(bits_of(type)) > 128)
    names.refuse("st.async of more than 16 bytes");
}

}  // namespace qnext::emulator
