// What the tests of operations share.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "base/cpu_features.h"

namespace qnext::ops {

// The largest relative error of one fp32 rounding.
constexpr double unit_roundoff = 0x1p-24;

// Calls test() with the kernels of every instruction set that this machine can run.
template <typename Test>
void on_every_isa(Test test) {
  for (Isa isa : {Isa::scalar, Isa::avx2, Isa::avx512}) {
    if (isa > best_isa()) continue;
    SCOPED_TRACE(std::string(isa_name(isa)));
    limit_isa(isa);
    test();
  }
  limit_isa(Isa::avx512);
}

class Random {
 public:
  explicit Random(uint64_t seed) : engine_(seed) {}
  int64_t integer(int64_t low, int64_t high) {
    return std::uniform_int_distribution<int64_t>(low, high)(engine_);
  }
  float normal(float scale = 1) { return std::normal_distribution<float>(0, scale)(engine_); }
  std::vector<float> normals(int64_t count, float scale = 1) {
    std::vector<float> values(static_cast<size_t>(count));
    for (float& value : values) value = normal(scale);
    return values;
  }

 private:
  std::mt19937_64 engine_;
};

inline std::vector<float> poisoned(int64_t count) {
  return std::vector<float>(static_cast<size_t>(count), std::numeric_limits<float>::quiet_NaN());
}

inline std::vector<double> widened(const float* values, int64_t count) {
  return {values, values + count};
}

inline void expect_same_bits(const std::vector<float>& actual, const std::vector<float>& expected) {
  ASSERT_EQ(actual.size(), expected.size());
  for (size_t i = 0; i < actual.size(); ++i)
    ASSERT_EQ(std::memcmp(&actual[i], &expected[i], sizeof(float)), 0)
        << "value " << i << ": " << actual[i] << " against " << expected[i];
}

// Error of the largest value, so that a cancelled sum is held to what its terms allow.
inline void expect_close(const float* actual, const std::vector<double>& expected,
                         double tolerance) {
  for (size_t i = 0; i < expected.size(); ++i) {
    ASSERT_FALSE(std::isnan(actual[i])) << "value " << i;
    ASSERT_NEAR(static_cast<double>(actual[i]), expected[i], tolerance) << "value " << i;
  }
}

inline double largest(const std::vector<double>& values) {
  double most = 0;
  for (double value : values) most = std::max(most, std::abs(value));
  return most;
}

}  // namespace qnext::ops
