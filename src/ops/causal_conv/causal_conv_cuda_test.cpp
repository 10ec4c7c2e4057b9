#include "ops/causal_conv/causal_conv_cuda.h"

#include "ops/causal_conv/causal_conv.h"
#include "ops/cuda_test.h"

namespace qnext::ops::cuda {
namespace {

struct ConvProblem {
  int64_t rows, channels, width;
  std::vector<float> x, weight, state;

  ConvProblem(Random& random, int64_t rows_, int64_t channels_, int64_t width_)
      : rows(rows_),
        channels(channels_),
        width(width_),
        x(random.normals(rows * channels)),
        weight(random.normals(channels * width)),
        state(random.normals((width - 1) * channels)) {}
  int64_t state_size() const { return (width - 1) * channels; }
};

// Sequences of one problem each, sharing the first one's weights. Slot i holds sequence i's state;
// every third row keeps its state in a slot of its own, the last row replaces slot i.
TEST_F(CudaOps, CausalConv) {
  Random random(11);
  for (int64_t channels : {1, 16, 20, 96, 257}) {
    for (int64_t width : {1, 2, 4, 7}) {
      std::vector<ConvProblem> problems;
      for (int64_t rows : {1, 63, 2, 64, 65, 200, 3})
        problems.emplace_back(random, rows, channels, width);
      const int64_t state_size = problems[0].state_size(), stride = state_size + 5;
      HostBatch host;
      std::vector<float> x;
      for (const ConvProblem& problem : problems) {
        const auto i = static_cast<int32_t>(host.sequence.size());
        host.add(static_cast<int32_t>(problem.rows), i == 2 ? -1 : i);
        host.state_out.back() = i;
        x.insert(x.end(), problem.x.begin(), problem.x.end());
      }
      auto slots = static_cast<int32_t>(problems.size());
      for (size_t row = 0; row < host.state_out.size(); row += 3)
        if (host.state_out[row] < 0) host.state_out[row] = slots++;
      std::vector<float> states = poisoned(slots * stride);
      for (size_t i = 0; i < problems.size(); ++i)
        if (i != 2)
          std::copy(problems[i].state.begin(), problems[i].state.end(),
                    states.begin() + static_cast<int64_t>(i) * stride);
      const DeviceBatch device(host);
      const OnDevice<float> dx(x), dw(problems[0].weight), dstates(states);
      const OnDevice<float> dy(poisoned(device.batch.rows * channels));
      causal_conv(nullptr, device.batch, dx.get(), channels, dw.get(), channels, width,
                  {dstates.get(), stride}, dy.get(), channels);
      const std::vector<float> y = dy.values(), after = dstates.values();
      for (size_t i = 0; i < problems.size(); ++i) {
        const SequenceRows& s = host.sequence[i];
        std::vector<double> state = widened(problems[i].state.data(), state_size);
        if (i == 2) std::fill(state.begin(), state.end(), 0.0);
        for (int32_t t = 0; t < s.rows; ++t) {
          std::vector<double> expected(static_cast<size_t>(channels));
          causal_conv_oracle(widened(problems[i].x.data() + t * channels, channels).data(),
                             widened(problems[0].weight.data(), channels * width).data(), 1,
                             channels, width, state.data(), expected.data());
          // A sum of `width` products of values below 5 each; silu grows by at most 1.1, exp and
          // the quotient add some eight roundings.
          const double tolerance =
              (2.0 * static_cast<double>(width) * 25 + 8 * largest(expected)) * unit_roundoff;
          expect_close(y.data() + (s.first_row + t) * channels, expected, tolerance);
          const int32_t slot = host.state_out[static_cast<size_t>(s.first_row + t)];
          if (slot >= 0) expect_close(after.data() + slot * stride, state, 0);
        }
      }
      for (int32_t slot = 0; slot < slots; ++slot)  // what lies between slots stays poisoned
        for (int64_t i = state_size; i < stride; ++i)
          ASSERT_TRUE(std::isnan(after[static_cast<size_t>(slot * stride + i)]));
    }
  }
}

// Random cuts behind a companion of two rows, the state replaced in place.
TEST_F(CudaOps, CausalConvSameBitsHoweverSplit) {
  Random random(12);
  for (int round = 0; round < 10; ++round) {
    const ConvProblem problem(random, random.integer(1, 200), random.integer(1, 300), 4);
    const int64_t channels = problem.channels, stride = problem.state_size();
    const OnDevice<float> dw(problem.weight);
    const auto run = [&](bool whole) {
      const OnDevice<float> states(poisoned(stride));
      std::vector<float> y;
      for (int64_t begin = 0; begin < problem.rows;) {
        const int64_t rows =
            whole ? problem.rows : std::min(random.integer(1, 9), problem.rows - begin);
        HostBatch host;
        std::vector<float> x = whole ? std::vector<float>{} : random.normals(2 * channels);
        if (!whole) host.add(2);
        host.add(static_cast<int32_t>(rows), begin == 0 ? -1 : 0);
        host.state_out.back() = 0;
        const std::vector<float> cut = slice(problem.x, begin * channels, rows * channels);
        x.insert(x.end(), cut.begin(), cut.end());
        const DeviceBatch device(host);
        const OnDevice<float> dx(x), dy(poisoned(device.batch.rows * channels));
        causal_conv(nullptr, device.batch, dx.get(), channels, dw.get(), channels, 4,
                    {states.get(), stride}, dy.get(), channels);
        const std::vector<float> all = dy.values();
        y.insert(y.end(), all.end() - rows * channels, all.end());
        begin += rows;
      }
      const std::vector<float> state = states.values();
      y.insert(y.end(), state.begin(), state.end());
      return y;
    };
    expect_same_bits(run(false), run(true));
  }
}

}  // namespace
}  // namespace qnext::ops::cuda
