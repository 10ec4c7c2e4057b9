// Copies of a few bytes from global to shared memory on their own way (cp.async), in groups that a
// thread closes and waits for.
#pragma once

#include "ops/sm90/bulk_copy.cuh"

namespace qnext::ops::sm90 {

inline __device__ void copy_eight(void* shared, const void* global) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 8;" ::"r"(shared_address(shared)), "l"(global)
               : "memory");
}
inline __device__ void copy_sixteen(void* shared, const void* global) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(shared)),
               "l"(global)
               : "memory");
}
inline __device__ void close_copies() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}
// Until all but the last `groups_left` groups of this thread have come.
template <int groups_left>
inline __device__ void wait_for_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(groups_left) : "memory");
}

}  // namespace qnext::ops::sm90
