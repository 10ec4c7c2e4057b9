#include "ops/rms_norm/rms_norm.h"

#include "ops/activation/op_test.h"

namespace qnext::ops {
namespace {

constexpr int64_t widths[] = {1, 7, 8, 15, 16, 17, 20, 24, 96, 128, 130, 256, 2048, 2051};

// The scalar kernel has the fewest partial sums: each adds width / 8 terms, eight more are joined.
// Half of the sum's relative error reaches y, and some ten operations (exp among them) follow.
double relative_tolerance(int64_t width) {
  return (0.5 * (static_cast<double>(width) / 8 + 8) + 16) * unit_roundoff;
}

void compare(const float* actual, const std::vector<double>& expected, int64_t width) {
  for (size_t i = 0; i < expected.size(); ++i)
    ASSERT_NEAR(static_cast<double>(actual[i]), expected[i],
                relative_tolerance(width) * std::abs(expected[i]))
        << "value " << i << " of " << width;
}

TEST(RmsNorm, MatchesOracle) {
  on_every_isa([] {
    Random random(1);
    for (int64_t width : widths) {
      const std::vector<float> x = random.normals(width, 3);
      const std::vector<float> weight = random.normals(width, 0.3f);
      std::vector<float> y = poisoned(width);
      rms_norm_row(x.data(), weight.data(), 1e-6f, width, y.data());
      std::vector<double> expected(x.size());
      rms_norm_oracle(widened(x.data(), width).data(), widened(weight.data(), width).data(),
                      static_cast<double>(1e-6f), width, expected.data());
      compare(y.data(), expected, width);
    }
  });
}

TEST(RmsNorm, GatedMatchesOracle) {
  on_every_isa([] {
    Random random(2);
    for (int64_t width : widths) {
      const std::vector<float> x = random.normals(width, 3);
      const std::vector<float> gate = random.normals(width, 20);
      const std::vector<float> weight = random.normals(width);
      std::vector<float> y = poisoned(width);
      gated_rms_norm_row(x.data(), gate.data(), weight.data(), 1e-6f, width, y.data());
      std::vector<double> expected(x.size());
      gated_rms_norm_oracle(widened(x.data(), width).data(), widened(gate.data(), width).data(),
                            widened(weight.data(), width).data(), static_cast<double>(1e-6f), width,
                            expected.data());
      compare(y.data(), expected, width);
    }
  });
}

TEST(RmsNorm, ZerosAndSmallValues) {
  on_every_isa([] {
    const std::vector<float> zeros(24, 0.0f);
    std::vector<float> y = poisoned(24);
    rms_norm_row(zeros.data(), zeros.data(), 1e-6f, 24, y.data());
    expect_same_bits(y, zeros);
    // x^2 is far below eps: y = x / sqrt(eps).
    const std::vector<float> small(24, 1e-15f);
    rms_norm_row(small.data(), zeros.data(), 1e-6f, 24, y.data());
    compare(y.data(), std::vector<double>(24, 1e-12), 24);
  });
}

TEST(RmsNorm, RowsStridesThreadsAndInPlace) {
  on_every_isa([] {
    Random random(3);
    const int64_t rows = 13;
    const int64_t width = 2051;
    const int64_t stride = width + 5;
    const std::vector<float> x = random.normals(rows * stride);
    const std::vector<float> weight = random.normals(width);
    std::vector<float> expected = poisoned(rows * stride);
    for (int64_t row = 0; row < rows; ++row)
      rms_norm_row(x.data() + row * stride, weight.data(), 1e-5f, width,
                   expected.data() + row * stride);
    for (int threads : {1, 2, 3, 5}) {
      ThreadPool pool(threads);
      std::vector<float> y = poisoned(rows * stride);
      rms_norm(pool, x.data(), stride, weight.data(), 1e-5f, rows, width, y.data(), stride);
      expect_same_bits(y, expected);  // the gaps between rows stay poisoned
      std::vector<float> in_place = x;
      rms_norm(pool, in_place.data(), stride, weight.data(), 1e-5f, rows, width, in_place.data(),
               stride);
      for (int64_t row = 0; row < rows; ++row)
        for (int64_t i = 0; i < stride; ++i) {
          const size_t at = static_cast<size_t>(row * stride + i);
          ASSERT_EQ(in_place[at], i < width ? expected[at] : x[at]);
        }
    }
  });
}

}  // namespace
}  // namespace qnext::ops
