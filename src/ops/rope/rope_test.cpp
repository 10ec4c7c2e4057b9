#include "ops/rope/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "ops/activation/op_test.h"

namespace qnext::ops {
namespace {

double plain_frequency(double theta, int64_t dims, int64_t i) {
  return std::pow(theta, -2.0 * static_cast<double>(i) / static_cast<double>(dims));
}

// The exponent, the power and its inverse are rounded once each; the exponent's error grows by
// ln(theta) < 17.
constexpr double frequency_tolerance = 20 * unit_roundoff;

TEST(RopeTable, PlainFrequencies) {
  for (double theta : {1e4, 1e6, 1e7}) {
    for (int64_t dims : {2, 8, 24, 64, 256}) {
      const RopeTable table = make_rope_table(theta, dims, std::nullopt);
      EXPECT_EQ(table.attention_factor, 1.0f);
      ASSERT_EQ(static_cast<int64_t>(table.inverse_frequency.size()), dims / 2);
      EXPECT_EQ(table.inverse_frequency[0], 1.0f);
      for (int64_t i = 0; i < dims / 2; ++i) {
        const double expected = plain_frequency(theta, dims, i);
        EXPECT_NEAR(static_cast<double>(table.inverse_frequency[static_cast<size_t>(i)]), expected,
                    frequency_tolerance * expected);
      }
    }
  }
}

// Turns within the original context decide: many, and the frequency stays; few, and it is divided
// by the factor; between them a straight ramp over the dimensions.
double yarn_frequency(double theta, int64_t dims, int64_t i, const YarnParameters& yarn) {
  const auto dimension = [&](double turns) {
    return static_cast<double>(dims) *
           std::log(yarn.original_max_position_embeddings / (turns * 2 * std::numbers::pi)) /
           (2 * std::log(theta));
  };
  double low = dimension(yarn.beta_fast);
  double high = dimension(yarn.beta_slow);
  if (yarn.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, static_cast<double>(dims - 1));
  const double stretched = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
  const double plain = plain_frequency(theta, dims, i);
  return plain * (1 - stretched) + plain / yarn.factor * stretched;
}

TEST(RopeTable, YarnFrequencies) {
  for (bool truncate : {true, false}) {
    for (double original : {64.0, 4096.0, 262144.0}) {
      for (int64_t dims : {8, 64}) {
        const YarnParameters yarn{
            .factor = 4, .original_max_position_embeddings = original, .truncate = truncate};
        const RopeTable table = make_rope_table(1e7, dims, yarn);
        for (int64_t i = 0; i < dims / 2; ++i) {
          const double expected = yarn_frequency(1e7, dims, i, yarn);
          EXPECT_NEAR(static_cast<double>(table.inverse_frequency[static_cast<size_t>(i)]),
                      expected, frequency_tolerance * expected)
              << original << " " << dims << " " << i;
        }
      }
    }
  }
}

// Worked by hand: theta 1e4, 8 dimensions, 64 positions. 32 turns: dimension -0.5, so 0; one turn:
// dimension 1.008, so 2. Pair 0 stays, pair 1 lies half way, pairs 2 and 3 are divided by 4.
TEST(RopeTable, YarnByHand) {
  const RopeTable table =
      make_rope_table(1e4, 8, YarnParameters{.factor = 4, .original_max_position_embeddings = 64});
  ASSERT_EQ(table.inverse_frequency.size(), 4u);
  EXPECT_FLOAT_EQ(table.inverse_frequency[0], 1.0f);
  EXPECT_FLOAT_EQ(table.inverse_frequency[1], 0.1f * (0.5f + 0.125f));
  EXPECT_FLOAT_EQ(table.inverse_frequency[2], 0.01f / 4);
  EXPECT_FLOAT_EQ(table.inverse_frequency[3], 0.001f / 4);
  EXPECT_FLOAT_EQ(table.attention_factor, 1.1386294f);  // 0.1 ln 4 + 1
}

TEST(RopeTable, AttentionFactor) {
  YarnParameters yarn{.factor = 1, .original_max_position_embeddings = 64};
  EXPECT_EQ(make_rope_table(1e4, 8, yarn).attention_factor, 1.0f);
  yarn.factor = 0.5;
  EXPECT_EQ(make_rope_table(1e4, 8, yarn).attention_factor, 1.0f);
  yarn.attention_factor = 1.25;
  EXPECT_EQ(make_rope_table(1e4, 8, yarn).attention_factor, 1.25f);
}

// Both ends of the ramp at dimension 0.
TEST(RopeTable, EmptyRampStaysFinite) {
  const RopeTable table =
      make_rope_table(1e4, 8, YarnParameters{.factor = 4, .original_max_position_embeddings = 1});
  EXPECT_EQ(table.inverse_frequency[0], 1.0f);
  for (size_t i = 1; i < 4; ++i)
    EXPECT_FLOAT_EQ(table.inverse_frequency[i],
                    static_cast<float>(plain_frequency(1e4, 8, static_cast<int64_t>(i)) / 4));
}

TEST(RopeAngles, AreOfTheProductInFp32) {
  RopeTable table = make_rope_table(1e7, 64, std::nullopt);
  table.attention_factor = 1.25f;
  for (int64_t position : {0, 1, 77, 4095, 262'143, 1'009'999}) {
    std::vector<float> cosine = poisoned(32);
    std::vector<float> sine = poisoned(32);
    rope_angles(table, position, cosine.data(), sine.data());
    for (size_t i = 0; i < 32; ++i) {
      const long double angle =
          static_cast<long double>(static_cast<float>(position) * table.inverse_frequency[i]);
      EXPECT_NEAR(static_cast<double>(cosine[i]), static_cast<double>(1.25L * std::cos(angle)),
                  3 * unit_roundoff);
      EXPECT_NEAR(static_cast<double>(sine[i]), static_cast<double>(1.25L * std::sin(angle)),
                  3 * unit_roundoff);
    }
  }
}

TEST(RopeRow, MatchesOracleAndLeavesTheRest) {
  Random random(1);
  for (int64_t dims : {2, 8, 20, 64, 96}) {
    const RopeTable table = make_rope_table(1e4, dims, std::nullopt);
    std::vector<float> cosine(static_cast<size_t>(dims / 2));
    std::vector<float> sine = cosine;
    rope_angles(table, 1234, cosine.data(), sine.data());
    std::vector<float> head = random.normals(dims + 7);
    const std::vector<float> before = head;
    std::vector<double> expected = widened(head.data(), dims);
    rope_oracle(expected.data(), widened(cosine.data(), dims / 2).data(),
                widened(sine.data(), dims / 2).data(), dims);
    rope_row(head.data(), cosine.data(), sine.data(), dims);
    // Two products of values below 5 and their difference: three roundings.
    expect_close(head.data(), expected, 3 * 5 * unit_roundoff);
    expect_same_bits({head.begin() + dims, head.end()}, {before.begin() + dims, before.end()});
  }
}

// A quarter turn takes the first half to the second and the second to minus the first.
TEST(RopeRow, TurnsTheRightWay) {
  std::vector<float> head{1, 2, 3, 4};
  const std::vector<float> cosine{0, 1};
  const std::vector<float> sine{1, 0};
  rope_row(head.data(), cosine.data(), sine.data(), 4);
  EXPECT_EQ(head, (std::vector<float>{-3, 2, 1, 4}));
}

}  // namespace
}  // namespace qnext::ops
