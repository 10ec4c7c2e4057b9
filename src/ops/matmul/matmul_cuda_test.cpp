// The product on the GPU against the fp64 oracle, and the same bits for a row whoever else is
// there.
#include "ops/matmul/matmul_cuda.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>

#include "ops/matmul/cuda_matrices.h"

namespace qnext::ops::cuda {
namespace {

constexpr double unit_roundoff = 0x1p-24;

class MatmulCuda : public CudaOps, public testing::WithParamInterface<DType> {};

TEST_P(MatmulCuda, AgreesWithTheOracle) {
  // Columns: less than a warp's run, odd, whole and cut scale blocks.
  for (const auto& [outputs, columns] :
       std::vector<std::pair<int64_t, int64_t>>{{1, 1}, {7, 31}, {130, 136}, {33, 513}, {300, 512}})
    for (int64_t rows : {1, 2, 7, 8, 9, 65}) {
      const TestMatrix w = random_matrix(GetParam(), outputs, columns, 3);
      const std::vector<float> x = random_floats(static_cast<size_t>(rows * columns), 5);
      std::vector<double> expected(static_cast<size_t>(rows * outputs));
      matmul_oracle({x.data(), rows, columns, columns, nullptr}, w.view, expected.data());
      const DeviceMatrix device_w(w);
      const OnDevice<float> device_x(x);
      const OnDevice<float> y(poisoned(expected.size()));
      matmul(nullptr, device_x.get(), columns, rows, device_w.view(), nullptr, y.get(), outputs);
      const std::vector<float> found = y.values();
      for (int64_t r = 0; r < rows; ++r)
        for (int64_t n = 0; n < outputs; ++n) {
          // One rounding a term of the longest chain of sums, one for a scaled weight.
          double magnitude = 0;
          const std::vector<float> weights = w.row(n);
          for (int64_t k = 0; k < columns; ++k)
            magnitude += std::abs(double{weights[static_cast<size_t>(k)]} *
                                  x[static_cast<size_t>(r * columns + k)]);
          const auto at = static_cast<size_t>(r * outputs + n);
          ASSERT_NEAR(double{found[at]}, expected[at],
                      (static_cast<double>(columns) + 8) * unit_roundoff * magnitude)
              << rows << " rows of " << columns << ", output " << n << " of " << outputs;
        }
    }
}

TEST_P(MatmulCuda, ARowsBitsDoNotDependOnTheOthers) {
  for (int64_t columns : {61, 256}) {
    constexpr int64_t rows = 19, outputs = 70;
    const DeviceMatrix w(random_matrix(GetParam(), outputs, columns, 3));
    const OnDevice<float> x(random_floats(static_cast<size_t>(rows * columns), 5));
    const OnDevice<float> together(poisoned(rows * outputs)), alone(poisoned(rows * outputs));
    matmul(nullptr, x.get(), columns, rows, w.view(), nullptr, together.get(), outputs);
    for (int64_t r = 0; r < rows; ++r)
      matmul(nullptr, x.get() + r * columns, columns, 1, w.view(), nullptr,
             alone.get() + r * outputs, outputs);
    EXPECT_TRUE(same_bits(together.values(), alone.values())) << columns;
  }
}

TEST_P(MatmulCuda, AddsToWhatIsThereAndTheBias) {
  constexpr int64_t rows = 3, outputs = 20, columns = 64;
  const DeviceMatrix w(random_matrix(GetParam(), outputs, columns, 3));
  const OnDevice<float> x(random_floats(rows * columns, 5));
  const std::vector<float> before = random_floats(rows * outputs, 6);
  const std::vector<float> bias = random_floats(outputs, 7);
  const OnDevice<float> product(poisoned(rows * outputs)), sum(before), device_bias(bias);
  matmul(nullptr, x.get(), columns, rows, w.view(), nullptr, product.get(), outputs);
  matmul(nullptr, x.get(), columns, rows, w.view(), device_bias.get(), sum.get(), outputs, true);
  std::vector<float> expected = product.values();
  for (size_t i = 0; i < expected.size(); ++i)
    expected[i] = (before[i] + expected[i]) + bias[i % bias.size()];
  EXPECT_TRUE(same_bits(sum.values(), expected));
}

INSTANTIATE_TEST_SUITE_P(Types, MatmulCuda, testing::ValuesIn(stored_types),
                         [](const auto& test) { return std::string(dtype_name(test.param)); });

}  // namespace
}  // namespace qnext::ops::cuda
