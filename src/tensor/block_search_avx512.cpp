#include "tensor/block_search_vector.h"

namespace qnext {

void search_levels_avx512(const LevelGrid& grid, const float* values, const float* importance,
                          LevelFit& fit) {
  search_levels(grid, values, importance, fit);
}

}  // namespace qnext
