// Who computes what in the experts' kernels: the chosen experts of a batch, each with its (row,
// slot) pairs in groups of 8 (the columns of one mma). A unit is one strip of 16 rows of an
// expert's matrix for one group; a group's strips are consecutive units.
//
// The shared expert comes first (nothing has to be known to fetch it), the others ascend. One row:
// every slot is a group. More rows: expert_groups.cuh lists them once for all blocks.
#pragma once

#include <cstdint>

#include "ops/moe/expert_chunks.cuh"

namespace qnext::ops::cuda {

// Division by a number known beforehand, exact for dividends below 2^32 / value.
struct Divisor {
  int32_t value = 1;
  uint32_t inverse = 0;

  Divisor() = default;
  explicit Divisor(int32_t value_)
      : value(value_),
        inverse(static_cast<uint32_t>(((uint64_t{1} << 32) + static_cast<uint32_t>(value_) - 1) /
                                      static_cast<uint32_t>(value_))) {}
  __device__ int32_t divide(int32_t dividend) const {
    return value == 1 ? dividend
                      : static_cast<int32_t>(__umulhi(static_cast<uint32_t>(dividend), inverse));
  }
};

struct Unit {
  int32_t expert;
  int32_t strip;
  int32_t group;
  bool again;  // other groups read the same weights
};

// More rows: device arrays of the groups behind the shared expert's, written by list_groups().
struct ExpertGroups {
  int32_t* count;    // [1]: of all groups
  short2* expert;    // [groups]: the expert, and whether it has other groups as well
  int16_t* columns;  // [groups][8]: pair, or -1; 16-byte aligned
};

// Groups that so many pairs may make.
inline int64_t expert_groups_limit(int64_t experts, int64_t rows, int64_t slots) {
  const int64_t pairs = rows * slots, used = pairs < experts ? pairs : experts;
  const int64_t full = used + pairs / 8;
  return full < pairs ? full : pairs;
}

__host__ __device__ constexpr int32_t groups_of(int32_t pairs) {
  return (pairs + 7) / 8;
}

// The share of a block: of the shared expert's units, whose weights all blocks read, and of all
// others.
struct UnitShare {
  int32_t shared_first = 0, shared_count = 0, first = 0, count = 0;

  UnitShare() = default;
  // shared_groups: of the shared expert. At first only its units count.
  __device__ UnitShare(int32_t shared_groups, int32_t strips) : shared_(shared_groups * strips) {
    shared_first = part(shared_, blockIdx.x);
    count = shared_count = part(shared_, blockIdx.x + 1) - shared_first;
  }
  __device__ void add_others(int32_t groups, int32_t strips) {
    const int32_t others = strips * groups - shared_;
    first = shared_ + part(others, blockIdx.x);
    count = shared_count + part(others, blockIdx.x + 1) - part(others, blockIdx.x);
  }
  __device__ int32_t index(int32_t i) const {
    return i < shared_count ? shared_first + i : first + i - shared_count;
  }

 private:
  static __device__ int32_t part(int32_t all, uint32_t block) {
    return static_cast<int32_t>(int64_t{all} * block / gridDim.x);
  }
  int32_t shared_ = 0;
};

// Goes through units in the order of their indices. What is known of a group (Known, by `look`)
// comes from memory a group ahead of its use.
template <typename Known>
class GroupCursor {
 public:
  // Returns what is known of `group`. groups: how many are listed, or fewer.
  template <typename Look>
  __device__ const Known& move_to(int32_t group, int32_t groups, Look look) {
    if (group == group_) return known_;
    known_ = group == group_ + 1 && ahead_ ? coming_ : look(group);
    ahead_ = group + 1 < groups;
    if (ahead_) coming_ = look(group + 1);
    group_ = group;
    return known_;
  }

 private:
  int32_t group_ = -2;
  bool ahead_ = false;
  Known known_{}, coming_{};
};

// What a lane needs of a group's columns.
struct LanePairs {
  int32_t row;     // the pair whose row it brings (column lane / 4), or -1
  int32_t out[2];  // those of its two sums (columns 2 (lane % 4) and the next), or -1
};

}  // namespace qnext::ops::cuda
