#include "ops/activation/vector_avx512.h"
#include "ops/causal_conv/causal_conv_vector.h"

namespace qnext::ops {

void causal_conv_tile_avx512(const ConvTile& tile) {
  causal_conv_tile_vector(tile);
}

}  // namespace qnext::ops
