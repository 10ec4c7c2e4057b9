// Published blocks in panels (layout.h): which types are held so, and the way in and out.
#pragma once

#include <cstddef>
#include <cstdint>

#include "ops/matmul/layout.h"
#include "tensor/dtype.h"

namespace qnext::ops {

// How blocks of the type lie in a panel; `dtype` is a type in blocks.
const layout::Format& panel_format(DType dtype);

// The published bytes of one block to block b of a panel's row `lane`, and back.
void place_block(const layout::Format& format, const std::byte* block, int64_t b, int64_t lane,
                 uint8_t* panel);
void gather_block(const layout::Format& format, const uint8_t* panel, int64_t b, int64_t lane,
                  std::byte* block);

}  // namespace qnext::ops
