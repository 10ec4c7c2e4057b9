// Rows of the fast path (norms, the MTP head's input, embeddings) bit for bit: their order of
// operations is defined, so the host repeats it; the oracle says that it is a norm.
#include "ops/rms_norm/row_norms_cuda.h"

#include "base/error.h"
#include "ops/cuda_test.h"
#include "ops/embedding/embed_rows_cuda.h"
#include "ops/rms_norm/rms_norm.h"

namespace qnext::ops::cuda {
namespace {

constexpr float eps = 1e-6f;
constexpr int64_t row_counts[] = {1, 2, 64, 65, 600};
constexpr int64_t widths[] = {1, 3, 64, 130, 1000, 2048, 2051, 5000};

class RowNorms : public CudaOps {};

// Round to nearest, ties to even.
Bf16 to_bf16(float value) {
  uint32_t bits = 0;
  std::memcpy(&bits, &value, sizeof bits);
  return static_cast<Bf16>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}
float from_bf16(Bf16 value) {
  const uint32_t bits = uint32_t{value} << 16;
  float result = 0;
  std::memcpy(&result, &bits, sizeof result);
  return result;
}

// The order of row_norm.cuh.
std::vector<float> norm(const float* x, const float* weight, int64_t columns) {
  float lane_sums[32];
  for (int64_t lane = 0; lane < 32; ++lane) {
    float runs[8] = {};
    const int64_t whole = columns / 4 * 4;
    for (int64_t i = 0; i < whole; ++i)
      if (i / 4 % 32 == lane) {
        float& run = runs[i / 4 / 32 % 8];
        run = std::fma(x[i], x[i], run);
      }
    if (whole + lane < columns) runs[0] = std::fma(x[whole + lane], x[whole + lane], runs[0]);
    lane_sums[lane] =
        ((runs[0] + runs[1]) + (runs[2] + runs[3])) + ((runs[4] + runs[5]) + (runs[6] + runs[7]));
  }
  for (int distance = 16; distance > 0; distance /= 2)
    for (int lane = 0; lane < distance; ++lane) lane_sums[lane] += lane_sums[lane + distance];
  const float scale = 1.0f / std::sqrt(lane_sums[0] / static_cast<float>(columns) + eps);
  std::vector<float> y(static_cast<size_t>(columns));
  for (int64_t i = 0; i < columns; ++i)
    y[static_cast<size_t>(i)] = x[i] * scale * (1.0f + weight[i]);
  return y;
}

// A lane adds columns / 256 terms to each of eight chains, three and five sums join them; half of
// the sum's relative error reaches y, and some five operations follow.
double norm_tolerance(int64_t columns) {
  return (0.5 * (static_cast<double>(columns) / 256 + 10) + 6) * unit_roundoff;
}

int64_t padded(int64_t columns) {
  return (columns + 63) / 64 * 64;
}

TEST_F(RowNorms, Norms) {
  Random random(1);
  for (int64_t rows : row_counts) {
    for (int64_t columns : widths) {
      const int64_t stride = padded(columns);
      const std::vector<float> x = random.normals(rows * stride, 3);
      const std::vector<float> weight = random.normals(columns, 0.3f);
      std::vector<int32_t> row_of;  // null in every other case
      for (int64_t row = 0; row < rows; ++row)
        row_of.push_back(static_cast<int32_t>(random.integer(row == 1 ? -1 : 0, rows - 1)));
      const OnDevice<float> dx(x), dw(weight), dy(poisoned(rows * stride));
      const OnDevice<Bf16> db(std::vector<Bf16>(static_cast<size_t>(rows * stride), 0x7FC1));
      const OnDevice<int32_t> device_row_of(row_of);
      const int32_t* picks = (rows + columns) % 2 == 0 ? device_row_of.get() : nullptr;
      rms_norm_rows(nullptr, dx.get(), stride, picks, dw.get(), eps, rows, columns, dy.get(),
                    stride);
      rms_norm_rows(nullptr, dx.get(), stride, picks, dw.get(), eps, rows, columns, db.get(),
                    stride);
      const std::vector<float> y = dy.values();
      const std::vector<Bf16> rounded = db.values();
      for (int64_t row = 0; row < rows; ++row) {
        const int64_t from = picks == nullptr ? row : row_of[static_cast<size_t>(row)];
        std::vector<float> expected(static_cast<size_t>(columns));
        if (from >= 0) {
          expected = norm(x.data() + from * stride, weight.data(), columns);
          std::vector<double> exact(expected.size());
          rms_norm_oracle(widened(x.data() + from * stride, columns).data(),
                          widened(weight.data(), columns).data(), static_cast<double>(eps), columns,
                          exact.data());
          for (size_t i = 0; i < exact.size(); ++i)
            ASSERT_NEAR(static_cast<double>(expected[i]), exact[i],
                        norm_tolerance(columns) * std::abs(exact[i]));
        }
        expect_same_bits(slice(y, row * stride, columns), expected);
        for (int64_t i = 0; i < stride; ++i) {
          const auto at = static_cast<size_t>(row * stride + i);
          ASSERT_EQ(rounded[at], i < columns ? to_bf16(y[at]) : 0x7FC1);
          if (i >= columns) {
            ASSERT_TRUE(std::isnan(y[at]));
          }
        }
      }
    }
  }
}

// Values that all three types hold exactly, so that one expectation serves them all.
template <typename Stored>
std::vector<Stored> stored_as(const std::vector<float>& values) {
  std::vector<Stored> result;
  for (float value : values) {
    if constexpr (std::is_same_v<Stored, float>)
      result.push_back(value);
    else
      result.push_back(to_bf16(value));
  }
  return result;
}

TEST_F(RowNorms, MtpInputAndEmbeddings) {
  Random random(2);
  constexpr int64_t vocabulary = 50;
  for (int64_t rows : row_counts) {
    for (int64_t columns : {8, 64, 2048, 2056}) {
      std::vector<float> table = random.normals(vocabulary * columns);
      for (float& value : table) value = from_bf16(to_bf16(value));
      const int64_t stride = padded(columns), out_stride = padded(2 * columns);
      const std::vector<float> hidden = random.normals(rows * stride, 2);
      const std::vector<float> weights = random.normals(2 * stride, 0.3f);
      std::vector<int32_t> tokens, row_of;
      for (int64_t row = 0; row < rows; ++row) {
        tokens.push_back(static_cast<int32_t>(row % 7 == 5 ? -1 : random.integer(0, vocabulary)));
        row_of.push_back(static_cast<int32_t>(random.integer(-1, rows - 1)));
      }
      const OnDevice<float> wide(table), dh(hidden), dw(weights);
      const OnDevice<Bf16> narrow(stored_as<Bf16>(table));
      const OnDevice<int32_t> dt(tokens), dr(row_of);
      for (DType dtype : {DType::f32, DType::bf16}) {
        const void* rows_of_table =
            dtype == DType::f32 ? static_cast<const void*>(wide.get()) : narrow.get();
        const OnDevice<Bf16> dy(std::vector<Bf16>(static_cast<size_t>(rows * out_stride), 0x7FC1));
        const OnDevice<float> de(poisoned(rows * stride)), dp(poisoned(rows * stride));
        const OnDevice<Bf16> picked(
            std::vector<Bf16>(static_cast<size_t>(rows * out_stride), 0x7FC1));
        mtp_input_rows(nullptr,
                       {dtype, rows_of_table, vocabulary, dt.get(), dw.get(), dh.get(), stride,
                        dr.get(), dw.get() + stride, eps},
                       rows, columns, dy.get(), out_stride);
        embed_rows(nullptr, dtype, rows_of_table, vocabulary, columns, dt.get(), rows, de.get(),
                   stride);
        pick_rows(nullptr, dh.get(), stride, columns, dr.get(), rows, dp.get(), stride);
        pick_rows(nullptr, dy.get(), out_stride, 2 * columns, dr.get(), rows, picked.get(),
                  out_stride);
        const std::vector<Bf16> y = dy.values(), picked_rows = picked.values();
        const std::vector<float> embedded = de.values(), picked_hidden = dp.values();
        for (int64_t row = 0; row < rows; ++row) {
          const int64_t token = tokens[static_cast<size_t>(row)];
          const int64_t from = row_of[static_cast<size_t>(row)];
          const std::vector<float> nothing(static_cast<size_t>(columns));
          const bool known = token >= 0 && token < vocabulary;
          expect_same_bits(slice(embedded, row * stride, columns),
                           known ? slice(table, token * columns, columns) : nothing);
          expect_same_bits(slice(picked_hidden, row * stride, columns),
                           from >= 0 ? slice(hidden, from * stride, columns) : nothing);
          std::vector<float> expected =
              known ? norm(table.data() + token * columns, weights.data(), columns) : nothing;
          const std::vector<float> second =
              from >= 0 ? norm(hidden.data() + from * stride, weights.data() + stride, columns)
                        : nothing;
          expected.insert(expected.end(), second.begin(), second.end());
          for (int64_t i = 0; i < out_stride; ++i) {
            const bool inside = i < 2 * columns;
            ASSERT_EQ(y[static_cast<size_t>(row * out_stride + i)],
                      inside ? to_bf16(expected[static_cast<size_t>(i)]) : 0x7FC1);
            ASSERT_EQ(picked_rows[static_cast<size_t>(row * out_stride + i)],
                      !inside     ? 0x7FC1
                      : from >= 0 ? y[static_cast<size_t>(from * out_stride + i)]
                                  : 0);
          }
        }
      }
    }
  }
}

// Halves by way of a few values that are exact in f16.
TEST_F(RowNorms, HalfEmbeddings) {
  const std::vector<uint16_t> table{0x3C00, 0xC000, 0x0001, 0x7BFF, 0, 0x3555, 0x8000, 0x4248};
  const std::vector<float> values{1, -2, 0x1p-24f, 65504, 0, 0x1.554p-2f, -0.0f, 0x1.92p1f};
  const OnDevice<uint16_t> device(table);
  const OnDevice<int32_t> tokens(std::vector<int32_t>{0});
  const OnDevice<float> out(poisoned(8)), weight(std::vector<float>(8, 0.5f));
  embed_rows(nullptr, DType::f16, device.get(), 1, 8, tokens.get(), 1, out.get(), 8);
  expect_same_bits(out.values(), values);
  const OnDevice<Bf16> y(std::vector<Bf16>(16, 0x7FC1));
  mtp_input_rows(nullptr,
                 {DType::f16, device.get(), 1, tokens.get(), weight.get(), out.get(), 8, nullptr,
                  weight.get(), eps},
                 1, 8, y.get(), 16);
  const std::vector<float> expected = norm(values.data(), weight.values().data(), 8);
  const std::vector<Bf16> actual = y.values();
  for (size_t i = 0; i < 16; ++i) EXPECT_EQ(actual[i], to_bf16(expected[i % 8])) << i;
  EXPECT_THROW(embed_rows(nullptr, DType::q4_0, device.get(), 1, 8, tokens.get(), 1, out.get(), 8),
               Error);
}

}  // namespace
}  // namespace qnext::ops::cuda
