#include <vector>

#include "ops/matmul/matmul.h"

namespace qnext::ops {

void matmul_oracle(const Activations& x, const WeightMatrix& w, double* y) {
  std::vector<float> row(static_cast<size_t>(w.columns));
  for (int64_t n = 0; n < w.rows; ++n) {
    unpack_row(w, n, row.data());
    for (int64_t m = 0; m < x.rows; ++m) {
      double sum = 0;
      for (int64_t k = 0; k < w.columns; ++k)
        sum += double{x.values[m * x.stride + k]} * double{row[static_cast<size_t>(k)]};
      y[m * w.rows + n] = sum;
    }
  }
}

}  // namespace qnext::ops
