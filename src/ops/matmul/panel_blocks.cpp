#include "ops/matmul/panel_blocks.h"

#include <cstring>

#include "base/error.h"

namespace qnext::ops {

const layout::Format& panel_format(DType dtype) {
  switch (dtype) {
    case DType::q8_0:
      return layout::q8_0;
    case DType::q4_0:
      return layout::q4_0;
    case DType::q4_1:
      return layout::q4_1;
    case DType::q5_0:
      return layout::q5_0;
    case DType::q5_1:
      return layout::q5_1;
    case DType::iq4_nl:
      return layout::iq4_nl;
    case DType::q2_k:
      return layout::q2_k;
    case DType::q3_k:
      return layout::q3_k;
    case DType::q4_k:
      return layout::q4_k;
    case DType::q5_k:
      return layout::q5_k;
    case DType::q6_k:
      return layout::q6_k;
    case DType::iq4_xs:
      return layout::iq4_xs;
    default:
      QNEXT_CHECK(false, "no panels of {} weights", dtype_name(dtype));
  }
  return layout::q8_0;
}

namespace {

// Where the halves and the dwords of a published block start.
size_t halves_of(const layout::Format& format) {
  return format.halves_last ? static_cast<size_t>(4 * format.dwords) : 0;
}
size_t dwords_of(const layout::Format& format) {
  return format.halves_last ? 0 : static_cast<size_t>(2 * format.halves);
}

}  // namespace

void place_block(const layout::Format& format, const std::byte* block, int64_t b, int64_t lane,
                 uint8_t* panel) {
  uint8_t* halves = panel + layout::halves_at(format, b) + 2 * lane;
  for (int64_t i = 0; i < format.halves; ++i)
    std::memcpy(halves + i * layout::half_bytes, block + halves_of(format) + 2 * i, 2);
  uint8_t* dwords = panel + layout::dwords_at(format, b) + 4 * lane;
  for (int64_t i = 0; i < format.dwords; ++i) {
    uint32_t dword;
    std::memcpy(&dword, block + dwords_of(format) + 4 * i, 4);
    dword ^= format.flip;
    std::memcpy(dwords + layout::dword_place(format, i) * layout::dword_bytes, &dword, 4);
  }
}

void gather_block(const layout::Format& format, const uint8_t* panel, int64_t b, int64_t lane,
                  std::byte* block) {
  const uint8_t* halves = panel + layout::halves_at(format, b) + 2 * lane;
  for (int64_t i = 0; i < format.halves; ++i)
    std::memcpy(block + halves_of(format) + 2 * i, halves + i * layout::half_bytes, 2);
  const uint8_t* dwords = panel + layout::dwords_at(format, b) + 4 * lane;
  for (int64_t i = 0; i < format.dwords; ++i) {
    uint32_t dword;
    std::memcpy(&dword, dwords + layout::dword_place(format, i) * layout::dword_bytes, 4);
    dword ^= format.flip;
    std::memcpy(block + dwords_of(format) + 4 * i, &dword, 4);
  }
}

}  // namespace qnext::ops
