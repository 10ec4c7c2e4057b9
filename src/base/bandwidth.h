// What this machine can read: the roofline that decode speed is held against.
#pragma once

#include <cstddef>

#include "base/aligned_buffer.h"
#include "base/thread_pool.h"

namespace qnext {

// Bytes a second that all workers of the pool read together from a buffer of `bytes` (well beyond
// the last-level cache; 1 GiB and more), over several passes: their mean, as what is held against
// it is a mean over time too. Against the best pass of a memory that others share, even this very
// loop would not reach 100 %.
double measure_read_bandwidth(ThreadPool& pool, size_t bytes);

// The measurement in parts, for programs that interleave it with something else.
class ReadBandwidth {
 public:
  explicit ReadBandwidth(size_t bytes);
  double pass(ThreadPool& pool);  // bytes a second of one pass over the buffer

 private:
  AlignedBuffer buffer_;
};

}  // namespace qnext
