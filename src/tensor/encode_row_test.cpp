#include "tensor/encode_row.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "base/cpu_features.h"
#include "base/error.h"
#include "tensor/blocks.h"
#include "tensor/super_blocks.h"

namespace qnext {
namespace {

using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

constexpr DType block_types[] = {DType::q8_0, DType::q4_0, DType::q4_1,   DType::q5_0,
                                 DType::q5_1, DType::q4_k, DType::q5_k,   DType::q6_k,
                                 DType::q2_k, DType::q3_k, DType::iq4_nl, DType::iq4_xs};

std::vector<std::byte> encoded(DType dtype, const std::vector<float>& values,
                               const std::vector<float>& importance = {}) {
  // Poisoned: every bit of a block must be written.
  std::vector<std::byte> blocks(dtype_bytes(dtype, values.size()), std::byte{0xFF});
  encode_row(dtype, values.data(), importance.empty() ? nullptr : importance.data(), values.size(),
             blocks.data());
  return blocks;
}
std::vector<float> decoded(DType dtype, const std::vector<std::byte>& blocks, size_t count) {
  std::vector<float> values(count);
  convert_to_float(dtype, blocks.data(), values.data(), count);
  return values;
}
std::vector<float> round_trip(DType dtype, const std::vector<float>& values,
                              const std::vector<float>& importance = {}) {
  return decoded(dtype, encoded(dtype, values, importance), values.size());
}

double error_of(const std::vector<float>& values, const std::vector<float>& decoded_values,
                const std::vector<float>& importance = {}) {
  double error = 0;
  for (size_t i = 0; i < values.size(); ++i) {
    const double difference = double{values[i]} - decoded_values[i];
    error += (importance.empty() ? 1.0 : importance[i]) * difference * difference;
  }
  return error;
}

// --- plain rounding, on its own account --------------------------------------------------------

float as_f16(float value) {
  return f16_to_float(float_to_f16(value));
}

struct Plain {
  int run;
  std::vector<int> levels;
  int scale_low, scale_high;  // of the integers of super-blocks, else 0
  bool has_least;
};
std::vector<int> between(int low, int high) {
  std::vector<int> out;
  for (int i = low; i <= high; ++i) out.push_back(i);
  return out;
}
Plain plain_of(DType dtype) {
  const std::vector<int> nonlinear(std::begin(iq4_levels), std::end(iq4_levels));
  switch (dtype) {
    case DType::q8_0:
      return {32, between(-127, 127), 0, 0, false};
    case DType::q4_0:
      return {32, between(-8, 7), 0, 0, false};
    case DType::q5_0:
      return {32, between(-16, 15), 0, 0, false};
    case DType::q4_1:
      return {32, between(0, 15), 0, 0, true};
    case DType::q5_1:
      return {32, between(0, 31), 0, 0, true};
    case DType::q4_k:
      return {32, between(0, 15), 0, 63, true};
    case DType::q5_k:
      return {32, between(0, 31), 0, 63, true};
    case DType::q2_k:
      return {16, between(0, 3), 0, 15, true};
    case DType::q3_k:
      return {16, between(-4, 3), -32, 31, false};
    case DType::q6_k:
      return {16, between(-32, 31), -128, 127, false};
    case DType::iq4_nl:
      return {32, nonlinear, 0, 0, false};
    default:
      return {32, nonlinear, -32, 31, false};
  }
}

// The range of each run over the range of the levels, everything rounded to the nearest.
std::vector<float> plainly_rounded(DType dtype, const std::vector<float>& values) {
  const Plain plain = plain_of(dtype);
  const auto run = static_cast<size_t>(plain.run);
  const size_t group = plain.scale_high > 0 ? super_block_values : run;
  std::vector<float> out(values.size());
  for (size_t begin = 0; begin < values.size(); begin += group) {
    std::vector<float> scales, leasts;
    for (size_t at = begin; at < begin + group; at += run) {
      const auto [least, largest] =
          std::minmax_element(values.begin() + at, values.begin() + at + run);
      float low = *least, high = *largest;
      if (plain.scale_high > 0) low = std::min(low, 0.0f);
      scales.push_back(plain.has_least ? (high - low) / static_cast<float>(plain.levels.back())
                                       : (-low >= high ? low : high) /
                                             static_cast<float>(plain.levels.front()));
      leasts.push_back(plain.has_least ? -low : 0);
    }
    if (plain.scale_high > 0) {
      const auto quantize = [](std::vector<float>& factors, int low, int high) {
        float extreme = 0;
        for (const float factor : factors)
          if (std::abs(factor) > std::abs(extreme)) extreme = factor;
        const float d = as_f16(extreme / static_cast<float>(low < 0 ? low : high));
        for (float& factor : factors)
          factor = d == 0 ? 0
                          : d * std::clamp(std::nearbyint(factor / d), static_cast<float>(low),
                                           static_cast<float>(high));
      };
      quantize(scales, plain.scale_low, plain.scale_high);
      quantize(leasts, 0, plain.scale_high);
    }
    for (size_t i = 0; i < group; ++i) {
      float scale = scales[i / run], least = leasts[i / run];
      if (plain.scale_high == 0) scale = as_f16(scale), least = as_f16(least);
      float best = std::numeric_limits<float>::infinity();
      for (const int level : plain.levels) {
        const float value = scale * static_cast<float>(level) - least;
        if (std::abs(value - values[begin + i]) < std::abs(best - values[begin + i])) best = value;
      }
      out[begin + i] = best;
    }
  }
  return out;
}

// Rows of many kinds: normal, one-sided, with outliers, sparse, of very different runs.
std::vector<std::vector<float>> rows(uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, 0.02f);
  std::vector<std::vector<float>> out(7, std::vector<float>(512));
  for (size_t i = 0; i < 512; ++i) {
    out[0][i] = normal(random);
    out[1][i] = std::abs(normal(random)) + 0.01f;
    out[2][i] = -std::abs(normal(random)) - 0.3f;
    out[3][i] = normal(random) * (random() % 40 == 0 ? 20.0f : 1.0f);
    out[4][i] = random() % 4 == 0 ? normal(random) : 0.0f;
    out[5][i] = normal(random) * std::pow(3.0f, static_cast<float>(i / 16 % 8));
    out[6][i] = normal(random) * 1e-4f;
  }
  return out;
}

TEST(EncodeRow, IsNeverWorseThanPlainRounding) {
  for (uint32_t seed = 1; seed <= 20; ++seed)
    for (const std::vector<float>& row : rows(seed))
      for (const DType dtype : block_types) {
        if (dtype == DType::q8_0 || dtype == DType::q4_0) continue;  // published bits
        // Errors are summed in fp32 there: 256 sums, each rounded.
        constexpr double summing = 1 + 256 * 0x1p-23;
        const size_t block = block_layout(dtype).values;
        for (size_t at = 0; at < row.size(); at += block) {
          const std::vector<float> values(row.begin() + at, row.begin() + at + block);
          EXPECT_LE(error_of(values, round_trip(dtype, values)),
                    error_of(values, plainly_rounded(dtype, values)) * summing)
              << dtype_name(dtype) << " seed " << seed;
        }
      }
}

TEST(EncodeRow, ErrorsAreThoseOfTheSteps) {
  // Of normal values, what this search reaches; relative to their norm.
  const std::pair<DType, double> expected[] = {
      {DType::q8_0, 0.0055}, {DType::q4_0, 0.087}, {DType::q4_1, 0.071},   {DType::q5_0, 0.041},
      {DType::q5_1, 0.035},  {DType::q4_k, 0.071}, {DType::q5_k, 0.036},   {DType::q6_k, 0.018},
      {DType::q2_k, 0.265},  {DType::q3_k, 0.145}, {DType::iq4_nl, 0.074}, {DType::iq4_xs, 0.0745}};
  std::mt19937 random(3);
  std::normal_distribution<float> normal(0, 0.02f);
  std::vector<float> values(1 << 15);
  for (float& value : values) value = normal(random);
  const double norm = error_of(values, std::vector<float>(values.size()));
  for (const auto& [dtype, most] : expected)
    EXPECT_LT(std::sqrt(error_of(values, round_trip(dtype, values)) / norm), most)
        << dtype_name(dtype);
}

TEST(EncodeRow, ImportanceLowersTheErrorThatCounts) {
  std::mt19937 random(4);
  std::vector<float> importance(512);
  for (float& weight : importance) weight = std::exp(0.01f * static_cast<float>(random() % 500));
  for (const DType dtype : block_types) {
    double with = 0, without = 0;
    for (uint32_t seed = 1; seed <= 4; ++seed)
      for (const std::vector<float>& row : rows(seed)) {
        with += error_of(row, round_trip(dtype, row, importance), importance);
        without += error_of(row, round_trip(dtype, row), importance);
      }
    EXPECT_LT(with, 0.97 * without) << dtype_name(dtype);
  }
}

TEST(EncodeRow, OnlyRatiosOfImportanceMatter) {
  const std::vector<float> row = rows(5)[0];
  std::vector<float> importance(row.size()), scaled(row.size());
  for (size_t i = 0; i < row.size(); ++i) {
    importance[i] = static_cast<float>(i % 7);
    scaled[i] = 0x1p-60f * importance[i];
  }
  for (const DType dtype : block_types) {
    EXPECT_EQ(encoded(dtype, row, importance), encoded(dtype, row, scaled)) << dtype_name(dtype);
    const std::vector<float> none(row.size()), same(row.size(), 3.0f);
    EXPECT_EQ(encoded(dtype, row, none), encoded(dtype, row, same)) << dtype_name(dtype);
  }
}

TEST(EncodeRow, PublishedTypesKeepTheirBits) {
  for (const std::vector<float>& row : rows(6))
    for (size_t i = 0; i < row.size(); i += block_values) {
      const std::vector<float> values(row.begin() + i, row.begin() + i + block_values);
      BlockQ8_0 q8;
      encode(values.data(), q8);
      EXPECT_EQ(std::memcmp(encoded(DType::q8_0, values).data(), &q8, sizeof q8), 0);
      BlockQ4_0 q4;
      encode(values.data(), q4);
      EXPECT_EQ(std::memcmp(encoded(DType::q4_0, values).data(), &q4, sizeof q4), 0);
    }
}

// Blocks of any levels and scales, which reach the ends of their ranges.
TEST(EncodeRow, GivesRepresentableValuesBackExactly) {
  std::mt19937 random(7);
  for (const DType dtype : block_types) {
    const Plain plain = plain_of(dtype);
    const auto run = static_cast<size_t>(plain.run);
    for (int repeat = 0; repeat < 50; ++repeat) {
      std::vector<float> values(super_block_values);
      const float d = as_f16(0.001f * static_cast<float>(1 + random() % 100));
      const float minimum = as_f16(0.001f * static_cast<float>(1 + random() % 100));
      for (size_t at = 0; at < values.size(); at += run) {
        const auto integer = [&](int low, int high) {
          if (high == 0) return 1.0f;
          if (at == 0) return static_cast<float>(low < 0 ? low : high);
          return static_cast<float>(low + static_cast<int>(random() % (high - low + 1)));
        };
        const float scale = d * integer(plain.scale_low, plain.scale_high);
        const float least = plain.has_least ? minimum * integer(0, plain.scale_high) : 0;
        for (size_t i = 0; i < run; ++i) {
          const size_t index = i == 0   ? 0
                               : i == 1 ? plain.levels.size() - 1
                                        : random() % plain.levels.size();
          values[at + i] = scale * static_cast<float>(plain.levels[index]) - least;
        }
      }
      EXPECT_EQ(round_trip(dtype, values), values) << dtype_name(dtype);
    }
  }
}

TEST(EncodeRow, ZerosAndConstants) {
  for (const DType dtype : block_types) {
    const std::vector<float> zeros(512);
    for (const float value : round_trip(dtype, zeros)) EXPECT_EQ(value, 0) << dtype_name(dtype);
    for (const float constant : {0.03f, -0.03f, 1000.0f, -1000.0f}) {
      // A level or a minimum stands for the value itself: only its f16 factor is rounded, by at
      // most 2^-11 of it, and in some types the sum of two such.
      for (const float value : round_trip(dtype, std::vector<float>(512, constant)))
        EXPECT_NEAR(value, constant, std::abs(constant) * 0x1p-9f) << dtype_name(dtype);
    }
  }
}

TEST(EncodeRow, TinyValuesStayTiny) {
  std::mt19937 random(8);
  std::uniform_real_distribution<float> uniform(-1, 1);
  for (const DType dtype : block_types)
    for (const float size : {1e-5f, 1e-6f, 1e-7f, 1e-9f, 1e-30f, 1e-44f}) {
      std::vector<float> values(256);
      for (float& value : values) value = size * uniform(random);
      for (const float value : round_trip(dtype, values))
        EXPECT_LE(std::abs(value), 2 * size + 256 * 0x1p-24f) << dtype_name(dtype) << " " << size;
    }
}

TEST(EncodeRow, RefusesWhatNoBlockHolds) {
  std::vector<float> values(256, 1.0f);
  const auto expect_error = [&](DType dtype, const std::string& part) {
    EXPECT_THAT([&] { encoded(dtype, values); }, ThrowsMessage<Error>(HasSubstr(part)))
        << dtype_name(dtype);
  };
  for (const DType dtype : block_types) {
    for (const float bad : {NAN, INFINITY, -INFINITY}) {
      values[70] = bad;
      expect_error(dtype, "value 70 is not a finite number");
    }
    for (const float huge : {1e10f, -1e30f, 3e38f}) {
      values[70] = huge;
      expect_error(dtype, "are too large for " + std::string(dtype_name(dtype)));
    }
    values[70] = 1;
    const std::vector<float> bad(256, NAN), negative(256, -1);
    for (const auto& importance : {bad, negative})
      EXPECT_THAT([&] { encoded(dtype, values, importance); },
                  ThrowsMessage<Error>(HasSubstr("importance 0 of a row")));
  }
  values[3] = 1e5f;
  expect_error(DType::f16, "value 3 = 100000 is too large for F16");
  values[3] = NAN;
  expect_error(DType::f32, "value 3 is not a finite number");
}

TEST(EncodeRow, FloatTypesAreRoundedToNearest) {
  const std::vector<float> values = {1.0f, 1.0f + 0x1p-9f, -3.14159f, 0};
  EXPECT_EQ(round_trip(DType::f32, values), values);
  for (size_t i = 0; i < values.size(); ++i) {
    EXPECT_EQ(round_trip(DType::f16, values)[i], as_f16(values[i]));
    EXPECT_EQ(round_trip(DType::bf16, values)[i], bf16_to_float(float_to_bf16(values[i])));
  }
}

TEST(EncodeRow, BlocksDoNotKnowTheirNeighbours) {
  const std::vector<float> row = rows(9)[3];
  for (const DType dtype : block_types) {
    const std::vector<std::byte> whole = encoded(dtype, row);
    const BlockLayout& layout = block_layout(dtype);
    for (size_t i = 0; i < row.size() / layout.values; ++i) {
      const auto first = row.begin() + static_cast<ptrdiff_t>(i * layout.values);
      const std::vector<std::byte> alone =
          encoded(dtype, {first, first + static_cast<ptrdiff_t>(layout.values)});
      EXPECT_EQ(std::memcmp(alone.data(), whole.data() + i * layout.bytes, layout.bytes), 0)
          << dtype_name(dtype) << " block " << i;
    }
  }
}

TEST(EncodeRow, AllInstructionSetsAgree) {
  const Isa best = best_isa();
  std::vector<float> importance(512);
  for (size_t i = 0; i < importance.size(); ++i) importance[i] = static_cast<float>(i % 11);
  for (uint32_t seed = 1; seed <= 5; ++seed)
    for (const std::vector<float>& row : rows(seed))
      for (const DType dtype : block_types)
        for (const auto& weights : {std::vector<float>{}, importance}) {
          limit_isa(Isa::scalar);
          const std::vector<std::byte> scalar = encoded(dtype, row, weights);
          for (const Isa isa : {Isa::avx2, Isa::avx512}) {
            if (isa > best) continue;
            limit_isa(isa);
            EXPECT_EQ(encoded(dtype, row, weights), scalar)
                << dtype_name(dtype) << " " << isa_name(isa);
          }
        }
  limit_isa(best);
}

}  // namespace
}  // namespace qnext
