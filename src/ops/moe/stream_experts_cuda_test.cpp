// The experts of few rows against fp64, and the same bits for a row whoever else is there.
#include "ops/moe/stream_experts_cuda.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>

#include "ops/moe/moe.h"
#include "ops/moe/packed_experts_test.h"
#include "ops/rms_norm/row_norms_cuda.h"

namespace qnext::ops::cuda {
namespace {

constexpr double unit_roundoff = 0x1p-24;

// --- route_experts ---------------------------------------------------------------------------

struct Routed {
  std::vector<int32_t> ids;
  std::vector<float> weights;
  std::vector<uint8_t> chosen;
};

struct Case {
  int64_t experts = 0;  // routed
  int64_t top_k = 0;
  bool renormalize = true;
  bool shared = true;
};

// Device memory of a Routing.
struct RoutingOnDevice {
  int64_t rows;
  OnDevice<float> logits, gate;
  OnDevice<int32_t> ids;
  OnDevice<float> weights;
  OnDevice<uint8_t> chosen;
  Routing view;

  // logits [rows, experts + 3], of which the last are poison; gate [rows, 2] likewise.
  RoutingOnDevice(const Case& like, int64_t rows_, const std::vector<float>& logits_,
                  const std::vector<float>& gate_)
      : rows(rows_),
        logits(logits_),
        gate(gate_),
        ids(std::vector<int32_t>(pairs(like), -7)),
        weights(poisoned(pairs(like))),
        chosen(std::vector<uint8_t>(static_cast<size_t>(like.experts + 1))),
        view{like.experts,
             like.top_k,
             like.renormalize,
             like.shared,
             logits.get(),
             like.experts + 3,
             gate_.empty() ? nullptr : gate.get(),
             2,
             ids.get(),
             weights.get(),
             chosen.get()} {}
  Routed values() const { return {ids.values(), weights.values(), chosen.values()}; }

 private:
  size_t pairs(const Case& like) const {
    return static_cast<size_t>(rows * (like.top_k + (like.shared ? 1 : 0)));
  }
};

// [rows, stride] of which the first `columns` of a row are random, the rest NaN.
std::vector<float> random_rows(int64_t rows, int64_t columns, int64_t stride, unsigned seed,
                               float scale) {
  std::vector<float> values = poisoned(static_cast<size_t>(rows * stride));
  const std::vector<float> random = random_floats(static_cast<size_t>(rows * columns), seed, scale);
  for (int64_t row = 0; row < rows; ++row)
    std::copy_n(random.begin() + row * columns, columns, values.begin() + row * stride);
  return values;
}

void expect_routed(const Case& like, int64_t rows, const std::vector<float>& logits,
                   const std::vector<float>& gate, const Routed& found) {
  const int64_t slots = like.top_k + (like.shared ? 1 : 0);
  std::vector<uint8_t> chosen(static_cast<size_t>(like.experts + 1));
  for (int64_t row = 0; row < rows; ++row) {
    const float* from = logits.data() + row * (like.experts + 3);
    const std::vector<double> wide(from, from + like.experts);
    std::vector<int32_t> ids(static_cast<size_t>(like.top_k));
    std::vector<double> weights(ids.size());
    if (like.top_k > 0)
      route_oracle(wide.data(), 1, like.experts, like.top_k, like.renormalize, ids.data(),
                   weights.data());
    for (int64_t slot = 0; slot < slots; ++slot) {
      const auto at = static_cast<size_t>(row * slots + slot), in_row = static_cast<size_t>(slot);
      const bool is_shared = slot == like.top_k;
      const double weight = !is_shared ? weights[in_row]
                            : gate.empty()
                                ? 1
                                : 1 / (1 + std::exp(-double{gate[static_cast<size_t>(2 * row)]}));
      ASSERT_EQ(found.ids[at], is_shared ? like.experts : ids[in_row]) << row << " " << slot;
      // Exponentials of at most 2 ulp whose argument was rounded (|logit| < 32: 2^-20 relative), a
      // sum of up to `experts` terms, a quotient.
      ASSERT_NEAR(double{found.weights[at]}, weight,
                  weight * (64 + static_cast<double>(like.experts)) * unit_roundoff);
      chosen[static_cast<size_t>(found.ids[at])] = 1;
    }
  }
  EXPECT_EQ(found.chosen, chosen);
}

class RouteExpertsCuda : public CudaOps, public testing::WithParamInterface<bool> {};

TEST_P(RouteExpertsCuda, AgreesWithTheOracle) {
  for (int64_t experts : {1, 2, 31, 33, 60, 512, 700})
    for (int64_t top_k : {1, 2, 8, 10, 32, 60}) {
      if (top_k > experts) continue;
      const Case like{experts, top_k, GetParam(), top_k % 4 != 0};
      constexpr int64_t rows = 33;
      const std::vector<float> logits = random_rows(rows, experts, experts + 3, 1, 3);
      const std::vector<float> gate = random_rows(rows, 1, 2, 2, 1);
      const RoutingOnDevice device(like, rows, logits, gate);
      route_experts(nullptr, device.view, rows);
      expect_routed(like, rows, logits, gate, device.values());
    }
}
INSTANTIATE_TEST_SUITE_P(Renormalize, RouteExpertsCuda, testing::Bool());

// Few values: many ties, within the k and at its edge, up to a row of equals.
TEST_F(CudaOps, RoutedExpertsTiesGoToTheLowerIndex) {
  for (int values : {1, 2, 5, 20, 60}) {
    const Case like{500, 10, true, false};
    constexpr int64_t rows = 20;
    std::vector<float> logits = random_rows(rows, 500, 503, 3, 1);
    for (float& logit : logits)
      if (!std::isnan(logit))
        logit = static_cast<float>(static_cast<int>(std::abs(logit) * 1000) % values);
    logits[0] = -0.0f;
    const RoutingOnDevice device(like, rows, logits, {});
    route_experts(nullptr, device.view, rows);
    expect_routed(like, rows, logits, {}, device.values());
  }
}

TEST_F(CudaOps, RoutedExpertsNotANumberCountsAsTheSmallest) {
  for (int64_t experts : {40, 600}) {
    const Case like{experts, 32, true, false};
    std::vector<float> logits = poisoned(static_cast<size_t>(experts + 3));
    for (size_t i = 5; i < 40; ++i) logits[i] = static_cast<float>(i % 7);
    const RoutingOnDevice device(like, 1, logits, {});
    route_experts(nullptr, device.view, 1);
    const Routed found = device.values();
    for (int32_t id : found.ids) EXPECT_GE(id, 5);
    for (float weight : found.weights) EXPECT_TRUE(std::isfinite(weight));
    std::vector<float> all = poisoned(static_cast<size_t>(experts + 3));
    all[5] = 1;
    const RoutingOnDevice poison(like, 1, all, {});
    route_experts(nullptr, poison.view, 1);
    std::vector<int32_t> ids = poison.values().ids;
    EXPECT_EQ(ids[0], 5);
    std::sort(ids.begin(), ids.end());
    EXPECT_EQ(std::unique(ids.begin(), ids.end()), ids.end());
    EXPECT_LT(ids.back(), experts);
  }
}

// --- stream_experts --------------------------------------------------------------------------

struct Inputs {
  Case like;
  int64_t rows;
  std::vector<float> logits, gate;  // as RoutingOnDevice takes them
  std::vector<float> values;        // of normed, before they are bf16
};

Inputs make_inputs(const Case& like, int64_t hidden, int64_t rows, unsigned seed) {
  return {
      like, rows, random_rows(rows, like.experts, like.experts + 3, seed, 2),
      like.shared && like.experts > 0 ? random_rows(rows, 1, 2, seed + 1, 1) : std::vector<float>{},
      random_floats(static_cast<size_t>(rows * hidden), seed + 2, 0.1f)};
}

Inputs part_of(const Inputs& all, int64_t first, int64_t count) {
  const auto cut = [&](const std::vector<float>& values) {
    const auto a_row = static_cast<int64_t>(values.size()) / all.rows;
    return slice(values, first * a_row, count * a_row);
  };
  return {all.like, count, cut(all.logits), cut(all.gate), cut(all.values)};
}

struct Outputs {
  std::vector<float> x;  // [rows, hidden], from 1 on
  Routed routed;
};

// Nothing of what was used before is in the L2 cache behind this.
void empty_cache() {
  static const OnDevice<std::byte> large(std::vector<std::byte>(size_t{160} << 20));
  check_cuda(cudaMemset(large.get(), 1, size_t{160} << 20), "cudaMemset");
}

Outputs run(const ExpertsOnDevice& experts, const Inputs& inputs, bool from_empty_cache = false,
            bool takes_turns = true) {
  const int64_t hidden = experts.view().hidden, stride = hidden + 5;
  const RoutingOnDevice routing(inputs.like, inputs.rows, inputs.logits, inputs.gate);
  const Bf16Rows normed(inputs.values, hidden);
  const OnDevice<Bf16> device_normed(normed.bits);
  std::vector<float> x = poisoned(static_cast<size_t>(inputs.rows * stride));
  for (int64_t row = 0; row < inputs.rows; ++row)
    std::fill_n(x.begin() + row * stride, hidden, 1.0f);
  const OnDevice<float> device_x(x);
  const OnDevice<float> workspace(poisoned(
      stream_experts_workspace(experts.view(), inputs.rows, routing.view.slots()) / sizeof(float) +
      1));
  const OnDevice<ExpertTurns> turns({{0, 0}});
  if (from_empty_cache) empty_cache();
  stream_experts(nullptr, experts.view(), routing.view, inputs.rows, device_normed.get(),
                 normed.stride, device_x.get(), stride, workspace.get(), {},
                 takes_turns ? turns.get() : nullptr);
  const ExpertTurns behind = turns.values().front();
  EXPECT_TRUE(behind.taken == 0 && behind.done == 0);
  const std::vector<float> padded = device_x.values();
  Outputs outputs{{}, routing.values()};
  for (int64_t row = 0; row < inputs.rows; ++row) {
    outputs.x.insert(outputs.x.end(), padded.begin() + row * stride,
                     padded.begin() + row * stride + hidden);
    for (int64_t i = hidden; i < stride; ++i)
      EXPECT_TRUE(std::isnan(padded[static_cast<size_t>(row * stride + i)]));
  }
  return outputs;
}

// Of one row: what is expected, and what it may be off by.
struct Expected {
  std::vector<double> value, error;
};

Expected expected_row(const ExpertsOnDevice& experts, const Inputs& inputs, const Routed& routed,
                      int64_t row) {
  const PackedExperts& view = experts.view();
  const Bf16Rows normed(inputs.values, view.hidden);
  const auto slots = static_cast<int64_t>(routed.ids.size()) / inputs.rows;
  Expected sum{std::vector<double>(static_cast<size_t>(view.hidden), 1.0),
               std::vector<double>(static_cast<size_t>(view.hidden), 2 * unit_roundoff)};
  // A tensor core's sum of 16 products is off by a few units of its largest term's last place:
  // 2^-22 of the magnitudes, once for each step of 16 columns that follows.
  const auto of_sum = [](int64_t columns) {
    return static_cast<double>(columns / 16 + 4) * 0x1p-22;
  };
  for (int64_t slot = 0; slot < slots; ++slot) {
    const auto at = static_cast<size_t>(row * slots + slot);
    const int64_t expert = routed.ids[at];
    const double weight = double{routed.weights[at]};
    std::vector<double> act, act_error;
    for (int64_t j = 0; j < view.width; ++j) {
      double gate = 0, up = 0, gate_size = 0, up_size = 0;
      for (int64_t i = 0; i < view.hidden; ++i) {
        const double x = normed.value(row, i);
        gate += experts.gate(expert, j, i) * x;
        up += experts.up(expert, j, i) * x;
        gate_size += std::abs(experts.gate(expert, j, i) * x);
        up_size += std::abs(experts.up(expert, j, i) * x);
      }
      const double silu = gate / (1 + std::exp(-gate));
      act.push_back(silu * up);
      // |silu'| < 1.1. Then the rounding to bf16, of the erring value.
      const double before = 1.1 * std::abs(up) * of_sum(view.hidden) * gate_size +
                            std::abs(silu) * of_sum(view.hidden) * up_size +
                            16 * unit_roundoff * std::abs(silu * up);
      act_error.push_back(before * 1.01 + 0x1p-8 * std::abs(silu * up) * 1.01);
    }
    for (int64_t n = 0; n < view.hidden; ++n) {
      double value = 0, error = 0, size = 0;
      for (int64_t j = 0; j < view.width; ++j) {
        const double down = experts.down(expert, n, j);
        value += down * act[static_cast<size_t>(j)];
        error += std::abs(down) * act_error[static_cast<size_t>(j)];
        size += std::abs(down * act[static_cast<size_t>(j)]);
      }
      sum.value[static_cast<size_t>(n)] += weight * value;
      sum.error[static_cast<size_t>(n)] +=
          weight * (error + (of_sum(view.width) + 32 * unit_roundoff) * size);
    }
  }
  return sum;
}

void expect_oracle(const ExpertsOnDevice& experts, const Inputs& inputs,
                   const std::vector<int64_t>& rows) {
  const Outputs found = run(experts, inputs);
  expect_routed(inputs.like, inputs.rows, inputs.logits, inputs.gate, found.routed);
  const int64_t hidden = experts.view().hidden;
  for (int64_t row : rows) {
    if (row >= inputs.rows) continue;
    const Expected expected = expected_row(experts, inputs, found.routed, row);
    for (int64_t n = 0; n < hidden; ++n)
      ASSERT_NEAR(double{found.x[static_cast<size_t>(row * hidden + n)]},
                  expected.value[static_cast<size_t>(n)], expected.error[static_cast<size_t>(n)])
          << "row " << row << " of " << inputs.rows << " column " << n;
    std::vector<double> change = expected.value;
    std::vector<float> got = slice(found.x, row * hidden, hidden);
    for (double& value : change) value -= 1;
    for (float& value : got) value -= 1;
    // Roundings of act to bf16 are all that is large (x itself, from 1 on, rounds by 2^-24), and
    // their signs are random.
    EXPECT_LT(relative_rms_error(got.data(), change), 0x1p-8);
  }
}

class StreamExpertsCuda : public CudaOps, public testing::WithParamInterface<PackedFormat> {};

TEST_P(StreamExpertsCuda, AgreeWithTheOracle) {
  struct Shape {
    int64_t hidden, width, experts, top_k;
    bool renormalize, shared;
  };
  for (const Shape& s : {Shape{128, 48, 12, 10, true, true}, Shape{192, 16, 4, 2, false, true},
                         Shape{136, 200, 8, 1, true, false}, Shape{64, 24, 9, 8, false, false},
                         Shape{320, 72, 20, 8, true, true}}) {
    std::vector<int64_t> widths(static_cast<size_t>(s.experts + (s.shared ? 1 : 0)), s.width);
    if (s.shared) widths.back() = s.width / 2;
    const ExpertsOnDevice experts(GetParam(), s.hidden, widths);
    const Case like{s.experts, s.top_k, s.renormalize, s.shared};
    for (int64_t rows : {1, 2, 7, 8, 9, 63, 64, 65, 256})
      expect_oracle(experts, make_inputs(like, s.hidden, rows, 7), {0, 1, 6, 8, 62, 64, 255});
  }
}

TEST_P(StreamExpertsCuda, AgreeWithTheOracleAtFullSize) {
  const ExpertsOnDevice experts(GetParam(), 2048, {512, 512, 512});
  for (int64_t rows : {1, 20})
    expect_oracle(experts, make_inputs({2, 1, true, true}, 2048, rows, 9), {0, 19});
}

TEST_P(StreamExpertsCuda, ADenseLayerIsOneExpert) {
  // More columns than one pass over the warps takes, more of act than a warp keeps.
  const ExpertsOnDevice experts(GetParam(), 2240, {720});
  for (int64_t rows : {1, 3, 70})
    expect_oracle(experts, make_inputs({0, 0, true, true}, 2240, rows, 11), {0, 2, 69});
}

TEST_P(StreamExpertsCuda, ManyExpertsMostOfThemEmptyOrAllRowsToOne) {
  const ExpertsOnDevice experts(GetParam(), 64, std::vector<int64_t>(513, 16));
  Inputs inputs = make_inputs({512, 10, true, true}, 64, 100, 13);
  expect_oracle(experts, inputs, {0, 50, 99});
  expect_oracle(experts, part_of(inputs, 0, 8), {0, 7});
  for (int64_t row : {3, 4}) expect_oracle(experts, part_of(inputs, row, 1), {0});
  // The same ten for all rows.
  for (int64_t row = 0; row < 100; ++row)
    for (int64_t i = 0; i < 10; ++i)
      inputs.logits[static_cast<size_t>(row * 515 + 50 * i)] = 20 + static_cast<float>(i);
  expect_oracle(experts, inputs, {0, 50, 99});
}

TEST_P(StreamExpertsCuda, ARowsBitsDoNotDependOnTheOthers) {
  struct Shape {
    int64_t hidden, width;
  };
  for (const auto& [hidden, width] :
       {Shape{136, 40}, Shape{1024, 1280}, Shape{2048, 512}, Shape{3072, 256}, Shape{4096, 256}}) {
    const ExpertsOnDevice experts(GetParam(), hidden, std::vector<int64_t>(6, width));
    const Inputs inputs = make_inputs({5, 3, true, true}, hidden, 70, 15);
    const std::vector<float> all = run(experts, inputs).x;
    for (int64_t count : {1, 2, 5, 8, 9, 33})
      for (int64_t first : {int64_t{0}, int64_t{13}, 70 - count}) {
        const std::vector<float> some = run(experts, part_of(inputs, first, count)).x;
        ASSERT_TRUE(same_bits(some, slice(all, first * hidden, count * hidden)))
            << count << " rows from " << first << ", hidden " << hidden;
      }
  }
}

// Rows that f16 does not hold, see half_row.cuh.
TEST_P(StreamExpertsCuda, ARowsBitsDoNotDependOnTheOthersWhateverItsSize) {
  constexpr int64_t hidden = 2048, rows = 6;
  const ExpertsOnDevice experts(GetParam(), hidden, std::vector<int64_t>(6, 512));
  Inputs inputs = make_inputs({5, 3, true, true}, hidden, rows, 15);
  const auto row = [&](int64_t r) { return inputs.values.begin() + r * hidden; };
  row(1)[3] = 0x1p-23f;
  row(2)[2047] = 0x1p9f;
  for (int64_t i = 0; i < hidden; ++i) {
    row(3)[i] *= 0x1p-18f;
    row(4)[i] = std::ldexp(row(4)[i], static_cast<int>(i * 37 % 60) - 50);
    if (i % 300 != 0) row(5)[i] = 0;
  }
  const std::vector<float> all = run(experts, inputs).x;
  for (int64_t r = 0; r < rows; ++r)
    ASSERT_TRUE(same_bits(run(experts, part_of(inputs, r, 1)).x, slice(all, r * hidden, hidden)))
        << r;
}

// Where the launches norm what comes out, the bits are those of a norm behind them; elsewhere
// nothing is written.
TEST_P(StreamExpertsCuda, TheNextNormIsThatOfALaunchOfItsOwn) {
  for (int64_t hidden : {136, 192, 2048, 2240}) {
    const ExpertsOnDevice experts(GetParam(), hidden, std::vector<int64_t>(6, 64));
    const std::vector<float> weights = random_floats(static_cast<size_t>(hidden), 31, 0.5f);
    const OnDevice<float> weight(weights);
    for (int64_t rows : {1, 2, 3, 8, 9}) {
      const Inputs inputs = make_inputs({5, 3, true, true}, hidden, rows, 23);
      const RoutingOnDevice routing(inputs.like, rows, inputs.logits, inputs.gate);
      const Bf16Rows normed(inputs.values, hidden);
      const OnDevice<Bf16> device_normed(normed.bits);
      const int64_t stride = hidden + 4;
      const auto count = static_cast<size_t>(rows * stride);
      const OnDevice<float> x(random_floats(count, 29, 1));
      const std::vector<Bf16> untouched(count, 0x7FC1);
      const OnDevice<Bf16> found(untouched), expected(untouched);
      const OnDevice<float> workspace(poisoned(
          stream_experts_workspace(experts.view(), rows, routing.view.slots()) / sizeof(float) +
          1));
      const bool done = stream_experts(nullptr, experts.view(), routing.view, rows,
                                       device_normed.get(), normed.stride, x.get(), stride,
                                       workspace.get(), {weight.get(), 1e-6f, found.get(), stride});
      if (done)
        rms_norm_rows(nullptr, x.get(), stride, nullptr, weight.get(), 1e-6f, rows, hidden,
                      expected.get(), stride);
      EXPECT_EQ(found.values(), expected.values()) << rows << " rows of " << hidden;
      if (rows > 4) {
        EXPECT_EQ(done, rows == 8 && hidden <= 2048);
      }
    }
  }
}

// A row alone has kernels of its own, and so have a few rows where chunks are whole.
TEST_P(StreamExpertsCuda, FewRowsWhateverTheyChoose) {
  enum class Choice { random, same, disjoint, ties, all_equal };
  struct Shape {
    int64_t hidden, width, top_k;
    bool renormalize, shared;
  };
  constexpr int64_t routed = 48, most_rows = 9;
  for (const Shape& s : {Shape{512, 256, 5, true, true}, Shape{2048, 256, 5, false, false},
                         Shape{256, 768, 1, true, true}, Shape{448, 256, 5, true, true},
                         Shape{256, 320, 5, true, true}}) {
    const ExpertsOnDevice experts(
        GetParam(), s.hidden,
        std::vector<int64_t>(static_cast<size_t>(routed + (s.shared ? 1 : 0)), s.width));
    for (const Choice choice :
         {Choice::random, Choice::same, Choice::disjoint, Choice::ties, Choice::all_equal}) {
      Inputs inputs =
          make_inputs({routed, s.top_k, s.renormalize, s.shared}, s.hidden, most_rows, 19);
      for (int64_t row = 0; row < most_rows; ++row)
        for (int64_t e = 0; e < routed; ++e) {
          float& logit = inputs.logits[static_cast<size_t>(row * (routed + 3) + e)];
          if (choice == Choice::same && e % 9 == 4) logit = 20 + static_cast<float>(e * row % 7);
          if (choice == Choice::disjoint && e / s.top_k == row)
            logit = 20 + static_cast<float>(e % 9);
          if (choice == Choice::all_equal) logit = 1;
          if (choice == Choice::ties) logit = static_cast<float>(e / 16 == row % 3);
        }
      const std::vector<float> all = run(experts, inputs).x;
      for (int64_t count : {1, 2, 3, 4, 8}) {
        const int64_t first = count < 4 ? 3 : 1;
        ASSERT_TRUE(same_bits(run(experts, part_of(inputs, first, count)).x,
                              slice(all, first * s.hidden, count * s.hidden)))
            << count << " rows, hidden " << s.hidden << ", choice " << static_cast<int>(choice);
      }
      expect_oracle(experts, part_of(inputs, 1, 4), {0, 3});
    }
  }
}

// Copies then come late, and in another order than they were asked for.
TEST_P(StreamExpertsCuda, TheSameBitsFromAnEmptyCache) {
  const ExpertsOnDevice experts(GetParam(), 2048, std::vector<int64_t>(9, 512));
  for (int64_t rows : {1, 2, 4, 9, 40}) {
    const Inputs inputs = make_inputs({8, 3, true, true}, 2048, rows, 17);
    const std::vector<float> expected = run(experts, inputs).x;
    for (int i = 0; i < 4; ++i)
      ASSERT_TRUE(same_bits(run(experts, inputs, true, i % 2 == 0).x, expected)) << rows << " rows";
  }
}

INSTANTIATE_TEST_SUITE_P(Formats, StreamExpertsCuda, testing::ValuesIn(packed_formats),
                         [](const auto& test) { return std::string(format_name(test.param)); });

}  // namespace
}  // namespace qnext::ops::cuda
