#include "ops/activation/activation.h"

#include "ops/activation/op_test.h"

namespace qnext::ops {
namespace {

// A libm function is within 1 ulp = 2 roundoffs; each form adds at most three operations.
constexpr double tolerance = 8 * unit_roundoff;
// Below it results are subnormal and lose bits one by one.
constexpr double tiny = 0x1p-126;

void compare(float actual, double expected) {
  EXPECT_NEAR(static_cast<double>(actual), expected, tolerance * std::abs(expected) + tiny);
}

TEST(Activation, MatchesDouble) {
  for (float x = -120; x <= 120; x += 0.37f) {
    SCOPED_TRACE(x);
    compare(sigmoid(x), 1 / (1 + std::exp(-static_cast<double>(x))));
    compare(silu(x), static_cast<double>(x) / (1 + std::exp(-static_cast<double>(x))));
    compare(softplus(x), std::log1p(std::exp(static_cast<double>(x))));
  }
}

TEST(Activation, ExtremesStayFinite) {
  for (float x : {-3e38f, -1000.0f, 1000.0f, 3e38f}) {
    EXPECT_EQ(sigmoid(x), x > 0 ? 1.0f : 0.0f);
    EXPECT_EQ(silu(x), x > 0 ? x : 0.0f);
    EXPECT_EQ(softplus(x), x > 0 ? x : 0.0f);
    EXPECT_EQ(softplus(static_cast<double>(x)), x > 0 ? static_cast<double>(x) : 0.0);
  }
}

TEST(Activation, NotANumberStays) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  EXPECT_TRUE(std::isnan(sigmoid(nan)));
  EXPECT_TRUE(std::isnan(silu(nan)));
  EXPECT_TRUE(std::isnan(softplus(nan)));
}

}  // namespace
}  // namespace qnext::ops
