// Experts over many rows against fp64 sums over the packed values, and the same bits for a row
// whoever else is there.
#include "ops/moe/prompt_experts_cuda.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>
#include <random>
#include <string>

#include "ops/matmul/f8_rows_test.h"

namespace qnext::ops::cuda {
namespace {

// silu(gate) * up and every slot's result are rounded to bf16, each by at most this part of it: the
// root mean square of both together stays below one such rounding.
constexpr double bf16_rounding = 0x1p-8;
// With rows of e4m3 silu(gate) * up is rounded to it: by at most 2^-4 of it, in root mean square by
// less than half of that. The oracle takes x as rounded.
constexpr double f8_rounding = 0x1p-5;

// Packed experts on the device, one after another, and their values.
class Mixture {
 public:
  Mixture(const Operands& operands, int64_t experts, int64_t hidden, int64_t width)
      : activations(operands.activations) {
    const PackedFormat format = operands.format;
    view_ = {format, experts, hidden, width};
    const int64_t gate_up_bytes = view_.gate_up(0).bytes(), down_bytes = view_.down(0).bytes();
    for (int64_t e = 0; e < experts; ++e) {
      const auto seed = static_cast<unsigned>(100 + 10 * e);
      const DType type = format == PackedFormat::f8 ? DType::f8_e4m3 : DType::f32;
      const TestMatrix gate = random_matrix(type, width, hidden, seed);
      const TestMatrix up = random_matrix(type, width, hidden, seed + 2);
      PackedOnDevice gate_up(format, view_.gate_up_rows(), hidden);
      const DeviceMatrix device_gate(gate), device_up(up);
      pack(nullptr, device_gate.view(), Placement::upper, gate_up.matrix());
      pack(nullptr, device_up.view(), Placement::lower, gate_up.matrix());
      gate_up.read();
      const PackedOnDevice down(format, random_matrix(type, hidden, width, seed + 4));
      append(gate_up.matrix(), gate_up_tiles_, gate_up_scales_);
      append(down.matrix(), down_tiles_, down_scales_);
      gate_up_.push_back(gate_up.values());
      down_.push_back(down.values());
    }
    EXPECT_EQ(gate_up_tiles_.size(), static_cast<size_t>(experts * gate_up_bytes));
    EXPECT_EQ(down_tiles_.size(), static_cast<size_t>(experts * down_bytes));
    device_.reserve(2);
    scales_.reserve(2);
    view_.gate_up_tiles =
        device_.emplace_back(std::make_unique<OnDevice<std::byte>>(gate_up_tiles_))->get();
    view_.down_tiles =
        device_.emplace_back(std::make_unique<OnDevice<std::byte>>(down_tiles_))->get();
    view_.gate_up_scales =
        scales_.emplace_back(std::make_unique<OnDevice<float>>(gate_up_scales_))->get();
    view_.down_scales =
        scales_.emplace_back(std::make_unique<OnDevice<float>>(down_scales_))->get();
  }

  const PackedExperts& view() const { return view_; }
  const Activations activations;

  // The expert's result for one row.
  std::vector<double> apply(int32_t expert, const std::vector<double>& x) const {
    const auto& gate_up = gate_up_[static_cast<size_t>(expert)];
    const auto& down = down_[static_cast<size_t>(expert)];
    std::vector<double> act;
    for (int64_t j = 0; j < view_.width; ++j) {
      const int64_t gate_row = j / 8 * tile_rows + j % 8;
      const double gate = dot(gate_up, gate_row, x), up = dot(gate_up, gate_row + 8, x);
      act.push_back(gate / (1 + std::exp(-gate)) * up);
    }
    std::vector<double> y;
    for (int64_t n = 0; n < view_.hidden; ++n) y.push_back(dot(down, n, act));
    return y;
  }

 private:
  static double dot(const std::vector<double>& matrix, int64_t row, const std::vector<double>& x) {
    const double* w = matrix.data() + row * static_cast<int64_t>(x.size());
    return std::inner_product(x.begin(), x.end(), w, 0.0);
  }
  static void append(const PackedMatrix& matrix, std::vector<std::byte>& tiles,
                     std::vector<float>& scales) {
    const auto fetch = [](auto& to, const auto* from, int64_t count) {
      const size_t before = to.size();
      to.resize(before + static_cast<size_t>(count));
      check_cuda(cudaMemcpy(to.data() + before, from, static_cast<size_t>(count) * sizeof(*from),
                            cudaMemcpyDeviceToHost),
                 "cudaMemcpy");
    };
    fetch(tiles, matrix.tiles, matrix.bytes());
    fetch(scales, matrix.scales, matrix.scale_count());
  }

  PackedExperts view_;
  std::vector<std::byte> gate_up_tiles_, down_tiles_;
  std::vector<float> gate_up_scales_, down_scales_;
  std::vector<std::vector<double>> gate_up_, down_;
  std::vector<std::unique_ptr<OnDevice<std::byte>>> device_;
  std::vector<std::unique_ptr<OnDevice<float>>> scales_;
};

struct Rows {
  int64_t count, slots;
  Bf16Rows x;
  std::vector<int32_t> ids;
  std::vector<float> weights;

  // Each row chooses `slots` different ones among the first `experts_used`.
  Rows(const Mixture& mixture, int64_t count_, int64_t slots_, int32_t experts_used)
      : count(count_),
        slots(slots_),
        x(random_floats(static_cast<size_t>(count_ * mixture.view().hidden), 7, 0.1f),
          mixture.view().hidden),
        weights(random_floats(static_cast<size_t>(count_ * slots_), 8)) {
    std::mt19937 random(9);
    std::vector<int32_t> all(static_cast<size_t>(experts_used));
    std::iota(all.begin(), all.end(), 0);
    for (int64_t row = 0; row < count; ++row) {
      std::shuffle(all.begin(), all.end(), random);
      ids.insert(ids.end(), all.begin(), all.begin() + slots);
    }
    // What lies behind a row's columns is not read.
    for (int64_t row = 0; row < count; ++row)
      for (int64_t k = mixture.view().hidden; k < x.stride; ++k)
        x.bits[static_cast<size_t>(row * x.stride + k)] = 0x7FC0;
  }
};

std::vector<float> run(const Mixture& mixture, const Rows& rows, int64_t first, int64_t count) {
  const PackedExperts& experts = mixture.view();
  const auto part = [&](const auto& values, int64_t width) {
    using T = typename std::decay_t<decltype(values)>::value_type;
    return OnDevice<T>({values.begin() + first * width, values.begin() + (first + count) * width});
  };
  const auto x = part(rows.x.bits, rows.x.stride);
  const auto ids = part(rows.ids, rows.slots);
  const auto weights = part(rows.weights, rows.slots);
  const OnDevice<float> y(std::vector<float>(static_cast<size_t>(count * experts.hidden), 1.0f));
  const OnDevice<uint8_t> workspace(std::vector<uint8_t>(
      prompt_experts_bytes(experts, count, rows.slots, mixture.activations), 0xFF));
  prompt_experts(nullptr, x.get(), rows.x.stride, count, experts, ids.get(), weights.get(),
                 rows.slots, mixture.activations, y.get(), experts.hidden, workspace.get());
  return y.values();
}

// Every row_step-th row.
void expect_oracle(const Mixture& mixture, const Rows& rows, int64_t row_step = 1) {
  const int64_t hidden = mixture.view().hidden;
  const std::vector<float> found = run(mixture, rows, 0, rows.count);
  for (float value : found) ASSERT_TRUE(std::isfinite(value));
  std::vector<float> some;
  std::vector<double> expected;
  for (int64_t row = 0; row < rows.count; row += row_step) {
    std::vector<double> x, y(static_cast<size_t>(hidden), 1.0);
    for (int64_t k = 0; k < hidden; ++k) x.push_back(rows.x.value(row, k));
    if (mixture.activations == Activations::f8) x = rounded_to_f8(x);
    for (int64_t slot = row * rows.slots; slot < (row + 1) * rows.slots; ++slot) {
      const std::vector<double> of_slot = mixture.apply(rows.ids[static_cast<size_t>(slot)], x);
      for (size_t n = 0; n < y.size(); ++n)
        y[n] += double{rows.weights[static_cast<size_t>(slot)]} * of_slot[n];
    }
    expected.insert(expected.end(), y.begin(), y.end());
    const std::vector<float> own = slice(found, row * hidden, hidden);
    some.insert(some.end(), own.begin(), own.end());
  }
  EXPECT_LT(relative_rms_error(some.data(), expected),
            mixture.activations == Activations::f8 ? f8_rounding : bf16_rounding)
      << rows.count << " rows, hidden " << hidden << ", width " << mixture.view().width;
}

class PromptExperts : public CudaOps, public testing::WithParamInterface<Operands> {};

TEST_P(PromptExperts, AgreeWithTheOracle) {
  for (const auto& [hidden, width] :
       std::vector<std::pair<int64_t, int64_t>>{{16, 16}, {130, 40}, {136, 13}, {320, 130}}) {
    const Mixture mixture(GetParam(), 7, hidden, width);
    for (int64_t rows : {1, 63, 64, 65, 1000})
      expect_oracle(mixture, Rows(mixture, rows, 3, 7), rows < 100 ? 1 : 29);
  }
}

TEST_P(PromptExperts, WideOnes) {
  const Mixture mixture(GetParam(), 3, 1040, 264);
  expect_oracle(mixture, Rows(mixture, 400, 2, 3), 57);
}

// All to one: its list takes many tiles; the others have none.
TEST_P(PromptExperts, SomeEmptyOrAllRowsToOne) {
  const Mixture mixture(GetParam(), 6, 64, 32);
  expect_oracle(mixture, Rows(mixture, 100, 2, 3));
  expect_oracle(mixture, Rows(mixture, 1000, 1, 1), 13);
}

TEST_P(PromptExperts, ARowsBitsDoNotDependOnTheOthers) {
  const Mixture mixture(GetParam(), 5, 200, 72);
  constexpr int64_t count = 700;
  const Rows rows(mixture, count, 3, 5);
  const std::vector<float> together = run(mixture, rows, 0, count);
  for (const auto& [first, rows_here] : std::vector<std::pair<int64_t, int64_t>>{
           {0, 1}, {77, 1}, {699, 1}, {10, 65}, {300, 130}, {50, 650}})
    EXPECT_TRUE(same_bits(run(mixture, rows, first, rows_here),
                          slice(together, first * 200, rows_here * 200)))
        << rows_here << " rows from " << first;
}

INSTANTIATE_TEST_SUITE_P(Formats, PromptExperts, testing::ValuesIn(prompt_operands),
                         [](const auto& test) { return operands_name(test.param); });

}  // namespace
}  // namespace qnext::ops::cuda
