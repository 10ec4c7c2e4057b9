// Few words on their way to the device as a kernel's parameter: a copy takes 8 us, this 2.5.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "backend/cuda/device_memory.h"

namespace qnext::backend::cuda {

// A parameter has room for 4 KB.
constexpr size_t most_few_words = 1000;

// Words [first, first + count) of those that are written are places in `table`, whose values at
// that point of the stream take their places.
struct LookedUp {
  size_t first = 0, count = 0;
  const int32_t* table = nullptr;  // on the device
};

// words: at most most_few_words.
void write_few_words(const Stream& stream, std::span<const int32_t> words, int32_t* to,
                     const LookedUp& looked_up = {});
// The same for words that are there already.
void look_up(const Stream& stream, int32_t* words, const LookedUp& looked_up);

}  // namespace qnext::backend::cuda
