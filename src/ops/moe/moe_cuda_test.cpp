// Routing and experts on the GPU against the fp64 oracles, and the same bits for a row whoever else
// is there.
#include "ops/moe/moe_cuda.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <deque>
#include <numeric>
#include <string>

#include "ops/matmul/cuda_matrices.h"

namespace qnext::ops::cuda {
namespace {

constexpr double unit_roundoff = 0x1p-24;

// --- route -----------------------------------------------------------------------------------

struct Routed {
  std::vector<int32_t> ids;
  std::vector<float> weights;
  std::vector<uint8_t> chosen;
};

Routed route_on_gpu(const std::vector<float>& logits, int64_t rows, int64_t experts, int64_t top_k,
                    bool renormalize, const std::vector<float>& shared_gate, int64_t stride) {
  const OnDevice<float> device_logits(logits), gate(shared_gate);
  const OnDevice<int32_t> ids(std::vector<int32_t>(static_cast<size_t>(rows * stride), -7));
  const OnDevice<float> weights(poisoned(static_cast<size_t>(rows * stride)));
  const OnDevice<uint8_t> chosen(std::vector<uint8_t>(static_cast<size_t>(experts + 1)));
  route(nullptr, device_logits.get(), rows, experts, top_k, renormalize,
        shared_gate.empty() ? nullptr : gate.get(), ids.get(), weights.get(), stride, chosen.get());
  return {ids.values(), weights.values(), chosen.values()};
}

class RouteCuda : public CudaOps, public testing::WithParamInterface<bool> {};

TEST_P(RouteCuda, AgreesWithTheOracle) {
  const bool renormalize = GetParam();
  for (int64_t experts : {1, 2, 31, 60, 512})
    for (int64_t top_k : {1, 2, 10, 60}) {
      if (top_k > experts) continue;
      constexpr int64_t rows = 33;
      const int64_t stride = top_k + 1;
      const std::vector<float> logits = random_floats(static_cast<size_t>(rows * experts), 1, 3);
      const std::vector<float> gate = random_floats(rows, 2);
      const std::vector<double> wide(logits.begin(), logits.end());
      std::vector<int32_t> expected_ids(static_cast<size_t>(rows * top_k));
      std::vector<double> expected(expected_ids.size());
      route_oracle(wide.data(), rows, experts, top_k, renormalize, expected_ids.data(),
                   expected.data());
      const Routed found = route_on_gpu(logits, rows, experts, top_k, renormalize, gate, stride);
      std::vector<uint8_t> chosen(static_cast<size_t>(experts + 1));
      for (int64_t row = 0; row < rows; ++row) {
        for (int64_t slot = 0; slot < top_k; ++slot) {
          const auto at = static_cast<size_t>(row * stride + slot);
          const auto from = static_cast<size_t>(row * top_k + slot);
          ASSERT_EQ(found.ids[at], expected_ids[from]);
          chosen[static_cast<size_t>(found.ids[at])] = 1;
          // Exponentials of at most 2 ulp whose argument was rounded (|logit| < 32: 2^-20
          // relative), a sum of up to `experts` terms, a quotient.
          ASSERT_NEAR(double{found.weights[at]}, expected[from],
                      expected[from] * (64 + static_cast<double>(experts)) * unit_roundoff);
        }
        const auto shared = static_cast<size_t>(row * stride + top_k);
        const double weight = 1 / (1 + std::exp(-double{gate[static_cast<size_t>(row)]}));
        ASSERT_EQ(found.ids[shared], experts);
        ASSERT_NEAR(double{found.weights[shared]}, weight, 8 * unit_roundoff);
      }
      chosen.back() = 1;
      EXPECT_EQ(found.chosen, chosen);
    }
}
INSTANTIATE_TEST_SUITE_P(Renormalize, RouteCuda, testing::Bool());

TEST_F(CudaOps, RoutingTiesGoToTheLowerIndex) {
  const Routed found = route_on_gpu({1, 3, 2, 3, 3, 2, 0, 2}, 1, 8, 5, true, {}, 6);
  EXPECT_EQ(found.ids, (std::vector<int32_t>{1, 3, 4, 2, 5, -7}));
  EXPECT_EQ(found.weights[0], found.weights[2]);
  EXPECT_EQ(found.weights[3], found.weights[4]);
  EXPECT_TRUE(std::isnan(found.weights[5]));
}

TEST_F(CudaOps, RoutingNotANumberStillGivesExpertsOnce) {
  std::vector<float> logits = poisoned(int64_t{40});
  logits[5] = 1;
  Routed found = route_on_gpu(logits, 1, 40, 40, true, {}, 40);
  EXPECT_EQ(found.ids[0], 5);
  std::sort(found.ids.begin(), found.ids.end());
  for (int32_t e = 0; e < 40; ++e) EXPECT_EQ(found.ids[static_cast<size_t>(e)], e);
}

// --- gated_experts ---------------------------------------------------------------------------

// Experts of the given widths, types in turn, here and on the device.
struct Mixture {
  std::deque<TestMatrix> host;
  std::deque<DeviceMatrix> device;
  std::vector<GatedExpert> experts, device_experts;
  int64_t hidden = 0;
  int64_t largest_width = 0;

  Mixture(int64_t hidden_, const std::vector<int64_t>& widths, const std::vector<DType>& types)
      : hidden(hidden_) {
    unsigned seed = 100;
    for (size_t e = 0; e < widths.size(); ++e) {
      const auto add = [&](int64_t rows, int64_t columns) {
        host.push_back(random_matrix(types[e % types.size()], rows, columns, seed += 2));
        device.emplace_back(host.back());
      };
      add(widths[e], hidden);
      add(widths[e], hidden);
      add(hidden, widths[e]);
      const size_t first = host.size() - 3;
      experts.push_back({host[first].view, host[first + 1].view, host[first + 2].view});
      device_experts.push_back(
          {device[first].view(), device[first + 1].view(), device[first + 2].view()});
      largest_width = std::max(largest_width, widths[e]);
    }
  }
};

struct Rows {
  std::vector<float> x;
  std::vector<int32_t> ids;
  std::vector<float> weights;
  int64_t count, slots;
};

std::vector<float> run(const Mixture& mixture, const Rows& rows, int64_t first, int64_t count) {
  const OnDevice<float> x(slice(rows.x, first * mixture.hidden, count * mixture.hidden));
  const OnDevice<int32_t> ids(std::vector<int32_t>(
      rows.ids.begin() + first * rows.slots, rows.ids.begin() + (first + count) * rows.slots));
  const OnDevice<float> weights(slice(rows.weights, first * rows.slots, count * rows.slots));
  const OnDevice<GatedExpert> experts(mixture.device_experts);
  const OnDevice<float> y(std::vector<float>(static_cast<size_t>(count * mixture.hidden), 1.0f));
  const OnDevice<float> workspace(
      poisoned(gated_experts_workspace(count, rows.slots, mixture.largest_width) / sizeof(float)));
  gated_experts(nullptr, x.get(), mixture.hidden, count, mixture.hidden, experts.get(),
                mixture.largest_width, ids.get(), weights.get(), rows.slots, y.get(),
                mixture.hidden, workspace.get());
  return y.values();
}

// `experts_used` of the mixture's experts, each row `slots` different ones.
Rows make_rows(const Mixture& mixture, int64_t count, int64_t slots, int32_t experts_used) {
  Rows rows{random_floats(static_cast<size_t>(count * mixture.hidden), 7, 0.1f),
            {},
            random_floats(static_cast<size_t>(count * slots), 8),
            count,
            slots};
  std::mt19937 random(9);
  std::vector<int32_t> all(static_cast<size_t>(experts_used));
  std::iota(all.begin(), all.end(), 0);
  for (int64_t row = 0; row < count; ++row) {
    std::shuffle(all.begin(), all.end(), random);
    rows.ids.insert(rows.ids.end(), all.begin(), all.begin() + slots);
  }
  return rows;
}

void expect_oracle(const Mixture& mixture, const Rows& rows) {
  const std::vector<double> weights(rows.weights.begin(), rows.weights.end());
  std::vector<double> expected(rows.x.size());
  gated_experts_oracle({rows.x.data(), rows.count, mixture.hidden, mixture.hidden, nullptr},
                       mixture.experts, rows.ids.data(), weights.data(), rows.slots,
                       expected.data());
  for (double& value : expected) value += 1;
  const std::vector<float> found = run(mixture, rows, 0, rows.count);
  for (float value : found) ASSERT_TRUE(std::isfinite(value));
  // Sums of hundreds of fp32 products stay well below this, a wrong one far above.
  EXPECT_LT(relative_rms_error(found.data(), expected), 1e-5);
}

class ExpertsCuda : public CudaOps, public testing::WithParamInterface<DType> {};

TEST_P(ExpertsCuda, AgreeWithTheOracle) {
  for (int64_t hidden : {48, 61, 136})
    for (int64_t rows : {1, 63, 64, 65}) {
      const Mixture mixture(hidden, {24, 40, 7, 130, 24}, {GetParam()});
      expect_oracle(mixture, make_rows(mixture, rows, 3, 5));
    }
}

TEST_P(ExpertsCuda, SomeEmptyOrAllRowsToOne) {
  const Mixture mixture(64, {32, 32, 32, 32, 32, 32}, {GetParam()});
  expect_oracle(mixture, make_rows(mixture, 100, 2, 3));
  expect_oracle(mixture, make_rows(mixture, 1000, 1, 1));
}

TEST_P(ExpertsCuda, ARowsBitsDoNotDependOnTheOthers) {
  const Mixture mixture(72, {24, 40, 32}, {GetParam(), DType::bf16});
  const Rows rows = make_rows(mixture, 17, 2, 3);
  std::vector<float> alone;
  for (int64_t row = 0; row < rows.count; ++row) {
    const std::vector<float> one = run(mixture, rows, row, 1);
    alone.insert(alone.end(), one.begin(), one.end());
  }
  EXPECT_TRUE(same_bits(run(mixture, rows, 0, rows.count), alone));
}

INSTANTIATE_TEST_SUITE_P(Types, ExpertsCuda, testing::ValuesIn(stored_types),
                         [](const auto& test) { return std::string(dtype_name(test.param)); });

TEST_F(CudaOps, ExpertsOfDifferentTypesTogether) {
  const Mixture mixture(128, {24, 40, 32, 56}, stored_types);
  expect_oracle(mixture, make_rows(mixture, 20, 3, 4));
}

TEST_F(CudaOps, RouteToOneIsTheDenseLayer) {
  const OnDevice<int32_t> ids(std::vector<int32_t>(300, -7));
  const OnDevice<float> weights(poisoned(int64_t{300}));
  const OnDevice<uint8_t> chosen(std::vector<uint8_t>(2));
  route_to_one(nullptr, 300, ids.get(), weights.get(), chosen.get());
  EXPECT_EQ(ids.values(), std::vector<int32_t>(300, 0));
  EXPECT_EQ(weights.values(), std::vector<float>(300, 1.0f));
  EXPECT_EQ(chosen.values(), (std::vector<uint8_t>{1, 0}));
}

}  // namespace
}  // namespace qnext::ops::cuda
