// An mbarrier in its 64 bits of shared memory: arrivals and bytes that a phase still waits for.
//
// Functions give what is wrong, empty if nothing is: what hardware leaves undefined is a fault
// here.
#pragma once

#include <cstdint>
#include <string_view>

namespace qnext::emulator {

using Mistake = std::string_view;

[[nodiscard]] Mistake initialise(uint64_t& barrier, uint32_t arrivals);
[[nodiscard]] Mistake invalidate(uint64_t& barrier);
// `arrivals` of those that the phase waits for; 0 changes nothing.
[[nodiscard]] Mistake arrive(uint64_t& barrier, uint32_t arrivals);
// The phase waits for so many bytes more.
[[nodiscard]] Mistake expect(uint64_t& barrier, uint32_t bytes);
// So many have come; they may do so before they are announced.
[[nodiscard]] Mistake complete(uint64_t& barrier, uint32_t bytes);

// Empty for an mbarrier that has been initialised.
[[nodiscard]] Mistake check(uint64_t barrier);
// The parity of the phase that is not over yet: one waits for parity p until this is not p.
bool phase_parity(uint64_t barrier);

}  // namespace qnext::emulator
