#include "emulator/mbarrier.h"

namespace qnext::emulator {
namespace {

constexpr uint32_t most = (1u << 20) - 1;  // of arrivals, and of bytes

struct State {
  bool odd = false;
  uint32_t expected = 0;  // arrivals a phase
  uint32_t missing = 0;   // arrivals of this phase
  int32_t bytes = 0;      // announced and not here yet
};

// From the lowest bit on: parity 1, expected 20, missing 20, bytes 21 (two's complement), mark 2.
// Memory that nobody has written is all ones, and mostly zeros are left by others: both have
// another mark.
constexpr uint64_t mark = 1;
constexpr int mark_bit = 62;

State unpack(uint64_t word) {
  const auto bytes = static_cast<uint32_t>(word >> 41 & 0x1FFFFF);
  return {(word & 1) != 0, static_cast<uint32_t>(word >> 1 & most),
          static_cast<uint32_t>(word >> 21 & most), static_cast<int32_t>(bytes << 11) >> 11};
}

uint64_t pack(const State& state) {
  const uint64_t bytes = static_cast<uint32_t>(state.bytes) & 0x1FFFFFu;
  return uint64_t{state.odd} | uint64_t{state.expected} << 1 | uint64_t{state.missing} << 21 |
         bytes << 41 | mark << mark_bit;
}

// Ends the phase if nothing is missing.
uint64_t after(State state) {
  if (state.missing == 0 && state.bytes == 0) {
    state.odd = !state.odd;
    state.missing = state.expected;
  }
  return pack(state);
}

}  // namespace

Mistake check(uint64_t barrier) {
  return barrier >> mark_bit == mark ? Mistake() : "the mbarrier has not been initialised";
}

bool phase_parity(uint64_t barrier) {
  return unpack(barrier).odd;
}

Mistake initialise(uint64_t& barrier, uint32_t arrivals) {
  if (arrivals == 0 || arrivals > most) return "an mbarrier's count is from 1 to 2^20 - 1";
  barrier = pack({false, arrivals, arrivals, 0});
  return {};
}

Mistake invalidate(uint64_t& barrier) {
  const Mistake mistake = check(barrier);
  barrier = 0;
  return mistake;
}

Mistake arrive(uint64_t& barrier, uint32_t arrivals) {
  if (const Mistake mistake = check(barrier); !mistake.empty()) return mistake;
  if (arrivals == 0) return {};
  State state = unpack(barrier);
  if (arrivals > state.missing) return "more arrivals than the mbarrier's phase waits for";
  state.missing -= arrivals;
  barrier = after(state);
  return {};
}

Mistake expect(uint64_t& barrier, uint32_t bytes) {
  if (const Mistake mistake = check(barrier); !mistake.empty()) return mistake;
  State state = unpack(barrier);
  if (bytes > most || state.bytes + static_cast<int32_t>(bytes) > static_cast<int32_t>(most))
    return "more than 2^20 - 1 bytes announced to an mbarrier";
  state.bytes += static_cast<int32_t>(bytes);
  barrier = pack(state);
  return {};
}

Mistake complete(uint64_t& barrier, uint32_t bytes) {
  if (const Mistake mistake = check(barrier); !mistake.empty()) return mistake;
  State state = unpack(barrier);
  if (bytes > most || state.bytes - static_cast<int32_t>(bytes) < -static_cast<int32_t>(most))
    return "more than 2^20 - 1 bytes came that the mbarrier does not know of";
  state.bytes -= static_cast<int32_t>(bytes);
  barrier = after(state);
  return {};
}

}  // namespace qnext::emulator
