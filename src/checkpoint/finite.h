// Finding damaged weights: NaN and infinity.
#pragma once

#include <cstddef>
#include <optional>

#include "checkpoint/stored_tensor.h"

namespace qnext {

// The index of the first of `count` values that is NaN or infinite, if any. Integers and booleans
// have none; a block has one where a factor of it is not finite, and it is said of its first value.
// `data` need not be aligned. Runs at memory speed; a loader calls it from each of its
// threads on pieces of a tensor.
std::optional<size_t> first_non_finite(DType dtype, const void* data, size_t count);

// Throws Error naming the tensor and the index where a value is NaN or infinite.
void check_finite(const StoredTensor& tensor);
// The same for values [first, first + count) of one that lies together.
void check_finite(const StoredTensor& tensor, size_t first, size_t count);
// The same for `count` values of any from `first` on, which lie at `values` in its dtype.
void check_finite(const StoredTensor& tensor, const std::byte* values, size_t first, size_t count);

}  // namespace qnext
