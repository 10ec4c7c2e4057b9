// The barrier of a cluster's blocks: all threads of all of them arrive, and wait.
#pragma once

namespace qnext::ops::sm90 {

// Others see what was written before. Behind stores to global memory it waits until every one has
// reached it: microseconds for a state.
inline __device__ void arrive_at_cluster() {
  asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
}
// Orders nothing but itself.
inline __device__ void arrive_at_cluster_relaxed() {
  asm volatile("barrier.cluster.arrive.relaxed.aligned;" ::: "memory");
}
inline __device__ void wait_for_cluster() {
  asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
}

}  // namespace qnext::ops::sm90
