// Finding damaged weights: NaN and infinity.
#pragma once

#include <cstddef>
#include <optional>

#include "checkpoint/safetensors.h"

namespace qnext {

// The index of the first of `count` values that is NaN or infinite, if any. Integers and booleans
// have none. `data` need not be aligned. Runs at memory speed; a loader calls it from each of its
// threads on pieces of a tensor.
std::optional<size_t> first_non_finite(DType dtype, const void* data, size_t count);

// Throws Error naming the tensor and the index where a value is NaN or infinite.
void check_finite(const StoredTensor& tensor);
// The same for values [first, first + count) of it.
void check_finite(const StoredTensor& tensor, size_t first, size_t count);

}  // namespace qnext
