// A rehearsal: a launch finds none of its code in an SM's caches of instructions and fetches it at
// some 7 ns an instruction, one behind the other: for a kernel of a few microseconds that is most
// of its time. So a kernel that is launched overlapped goes through its code once before it waits
// for the kernels before it, with whatever its inputs hold by then (read past the first-level
// cache, as they are read again), and stores nothing to global memory.
//
// Few warps do the work of a rehearsal: one to each of the SM's four parts, which have a scheduler
// and a cache of instructions each. More would take time from the kernels before. But different
// parts of the code, each by so few warps, can be rehearsed at the same time, without the barriers
// between them: what is waited for is one miss behind the other, and a block that starts late has
// no time for all of them in turn.
#pragma once

namespace qnext::ops::cuda {

constexpr int rehearsing_warps = 4;

}  // namespace qnext::ops::cuda
