// CUDA operations on rows against their fp64 oracles; recurrences and attention have files of their
// own beside the kernels.
#include <cuda_runtime_api.h>

#include "ops/cuda_test.h"
#include "ops/embedding/embedding_cuda.h"
#include "ops/gated_delta/gated_delta_cuda.h"
#include "ops/rms_norm/rms_norm.h"
#include "ops/rms_norm/rms_norm_cuda.h"
#include "ops/rope/rope.h"
#include "ops/rope/rope_cuda.h"

namespace qnext::ops::cuda {
namespace {

constexpr int64_t row_counts[] = {1, 63, 64, 65, 200};

// A partial sum adds at most width / 32 terms, eleven shuffles and eight warps join them; half of
// the sum's relative error reaches y, and some sixteen operations (exp among them) follow.
double norm_tolerance(int64_t width) {
  return (0.5 * (static_cast<double>(width) / 32 + 13) + 16) * unit_roundoff;
}

void expect_relative(const float* actual, const std::vector<double>& expected, double tolerance) {
  for (size_t i = 0; i < expected.size(); ++i)
    ASSERT_NEAR(static_cast<double>(actual[i]), expected[i], tolerance * std::abs(expected[i]))
        << "value " << i;
}

TEST_F(CudaOps, RmsNorm) {
  Random random(1);
  for (int64_t rows : row_counts) {
    for (int64_t width : {1, 16, 20, 128, 256, 2048, 2051}) {
      const int64_t stride = width + 5;
      const std::vector<float> x = random.normals(rows * stride, 3);
      const std::vector<float> weight = random.normals(width, 0.3f);
      const OnDevice<float> dx(x), dw(weight), dy(poisoned(rows * stride));
      rms_norm(nullptr, dx.get(), stride, dw.get(), 1e-6f, rows, width, dy.get(), stride);
      const std::vector<float> y = dy.values();
      for (int64_t row = 0; row < rows; ++row) {
        std::vector<double> expected(static_cast<size_t>(width));
        rms_norm_oracle(widened(x.data() + row * stride, width).data(),
                        widened(weight.data(), width).data(), static_cast<double>(1e-6f), width,
                        expected.data());
        expect_relative(y.data() + row * stride, expected, norm_tolerance(width));
        for (int64_t i = width; i < stride; ++i)  // the gap stays poisoned
          ASSERT_TRUE(std::isnan(y[static_cast<size_t>(row * stride + i)]));
      }
      // The last row alone, in place.
      const OnDevice<float> alone(slice(x, (rows - 1) * stride, width));
      rms_norm(nullptr, alone.get(), width, dw.get(), 1e-6f, 1, width, alone.get(), width);
      expect_same_bits(alone.values(), slice(y, (rows - 1) * stride, width));
    }
  }
}

TEST_F(CudaOps, GatedRmsNorm) {
  Random random(2);
  for (int64_t rows : row_counts) {
    for (int64_t width : {1, 16, 20, 128, 256}) {
      const std::vector<float> x = random.normals(rows * width, 3);
      const std::vector<float> gate = random.normals(rows * width, 10);
      const std::vector<float> weight = random.normals(width);
      const OnDevice<float> dx(x), dg(gate), dw(weight), dy(poisoned(rows * width));
      gated_rms_norm(nullptr, dx.get(), dg.get(), dw.get(), 1e-6f, rows, width, dy.get());
      const std::vector<float> y = dy.values();
      for (int64_t row = 0; row < rows; ++row) {
        std::vector<double> expected(static_cast<size_t>(width));
        gated_rms_norm_oracle(widened(x.data() + row * width, width).data(),
                              widened(gate.data() + row * width, width).data(),
                              widened(weight.data(), width).data(), static_cast<double>(1e-6f),
                              width, expected.data());
        expect_relative(y.data() + row * width, expected, norm_tolerance(width));
      }
      gated_rms_norm(nullptr, dx.get(), dg.get(), dw.get(), 1e-6f, rows, width, dx.get());
      expect_same_bits(dx.values(), y);
    }
  }
}

// Three sequences at positions up to a million.
HostBatch positions_batch() {
  HostBatch batch;
  batch.add(1, -1, 0);
  batch.add(65, -1, 262'100);
  batch.add(7, -1, 1'009'999);
  return batch;
}

int64_t position_of(const HostBatch& batch, int64_t row) {
  const SequenceRows& s =
      batch.sequence[static_cast<size_t>(batch.sequence_of[static_cast<size_t>(row)])];
  return s.first_position + row - s.first_row;
}

// The angle is the same fp32 product; its fp64 cosine is rounded once, the factor once more.
TEST_F(CudaOps, RopeAngles) {
  RopeTable table = make_rope_table(1e7, 64, std::nullopt);
  table.attention_factor = 1.25f;
  const HostBatch host = positions_batch();
  const DeviceBatch device(host);
  const int64_t rows = device.batch.rows;
  const OnDevice<float> frequency(table.inverse_frequency);
  const OnDevice<float> dc(poisoned(rows * 32)), ds(poisoned(rows * 32));
  rope_angles(nullptr, device.batch, frequency.get(), 32, 1.25f, dc.get(), ds.get());
  const std::vector<float> cosine = dc.values(), sine = ds.values();
  for (int64_t row = 0; row < rows; ++row) {
    for (size_t i = 0; i < 32; ++i) {
      const double angle = static_cast<double>(static_cast<float>(position_of(host, row)) *
                                               table.inverse_frequency[i]);
      const size_t at = static_cast<size_t>(row) * 32 + i;
      ASSERT_NEAR(static_cast<double>(cosine[at]), 1.25 * std::cos(angle), 3 * unit_roundoff);
      ASSERT_NEAR(static_cast<double>(sine[at]), 1.25 * std::sin(angle), 3 * unit_roundoff);
    }
  }
}

// Queries with their gates between them, which must stay as they are; keys dense.
TEST_F(CudaOps, PrepareHeads) {
  Random random(3);
  constexpr int64_t query_heads = 6, key_heads = 2;
  for (int64_t rows : row_counts) {
    for (const auto& [width, half] :
         {std::pair<int64_t, int64_t>{16, 8}, {20, 3}, {128, 16}, {256, 32}, {256, 128}}) {
      const std::vector<float> q = random.normals(rows * query_heads * 2 * width, 3);
      const std::vector<float> k = random.normals(rows * key_heads * width, 3);
      const std::vector<float> q_norm = random.normals(width, 0.3f);
      const std::vector<float> k_norm = random.normals(width, 0.3f);
      std::vector<float> cosine, sine;
      for (int64_t i = 0; i < rows * half; ++i) {
        const float angle = random.normal(3);
        cosine.push_back(std::cos(angle));
        sine.push_back(std::sin(angle));
      }
      const OnDevice<float> dq(q), dk(k), dqn(q_norm), dkn(k_norm), dc(cosine), ds(sine);
      prepare_heads(nullptr, {dq.get(), query_heads * 2 * width, 2 * width, query_heads, dqn.get()},
                    {dk.get(), key_heads * width, width, key_heads, dkn.get()}, rows, width, 1e-6f,
                    dc.get(), ds.get(), half);
      const auto check = [&, w = width, h = half](const std::vector<float>& before,
                                                  const std::vector<float>& after, int64_t stride,
                                                  int64_t heads, const std::vector<float>& norm) {
        for (int64_t item = 0; item < rows * heads; ++item) {
          const int64_t row = item / heads;
          std::vector<double> expected(static_cast<size_t>(w));
          rms_norm_oracle(widened(before.data() + item * stride, w).data(),
                          widened(norm.data(), w).data(), static_cast<double>(1e-6f), w,
                          expected.data());
          // Both values of a pair carry the norm's error; three roundings follow.
          const double tolerance = (2 * norm_tolerance(w) + 3 * unit_roundoff) * largest(expected);
          rope_oracle(expected.data(), widened(cosine.data() + row * h, h).data(),
                      widened(sine.data() + row * h, h).data(), 2 * h);
          expect_close(after.data() + item * stride, expected, tolerance);
          if (stride > w)
            expect_same_bits(slice(after, item * stride + w, stride - w),
                             slice(before, item * stride + w, stride - w));
        }
      };
      check(q, dq.values(), 2 * width, query_heads, q_norm);
      check(k, dk.values(), width, key_heads, k_norm);
    }
  }
}

TEST_F(CudaOps, Embed) {
  Random random(4);
  constexpr int64_t vocabulary = 300, width = 130, stride = 2 * width;
  const std::vector<float> values = random.normals(vocabulary * width);
  std::vector<uint16_t> bf16, f16;
  for (float value : values) {
    bf16.push_back(float_to_bf16(value));
    f16.push_back(float_to_f16(value));
  }
  const OnDevice<float> table(values);
  const OnDevice<uint16_t> table_bf16(bf16), table_f16(f16);
  for (int64_t rows : row_counts) {
    std::vector<int32_t> tokens;
    for (int64_t i = 0; i < rows; ++i)
      tokens.push_back(static_cast<int32_t>(random.integer(0, vocabulary - 1)));
    const OnDevice<int32_t> dt(tokens);
    for (DType dtype : {DType::f32, DType::bf16, DType::f16}) {
      const void* from = dtype == DType::f32    ? static_cast<const void*>(table.get())
                         : dtype == DType::bf16 ? table_bf16.get()
                                                : table_f16.get();
      const OnDevice<float> out(poisoned(rows * stride));
      embed(nullptr, dtype, from, width, dt.get(), rows, out.get(), stride);
      const std::vector<float> actual = out.values();
      for (int64_t row = 0; row < rows; ++row) {
        for (int64_t i = 0; i < width; ++i) {
          const auto at = static_cast<size_t>(tokens[static_cast<size_t>(row)] * width + i);
          const float expected = dtype == DType::f32    ? values[at]
                                 : dtype == DType::bf16 ? bf16_to_float(bf16[at])
                                                        : f16_to_float(f16[at]);
          ASSERT_EQ(actual[static_cast<size_t>(row * stride + i)], expected);
        }
        ASSERT_TRUE(std::isnan(actual[static_cast<size_t>(row * stride + width)]));
      }
    }
    const OnDevice<float> picked(poisoned(rows * width));
    gather_rows(nullptr, table.get(), width, width, dt.get(), rows, picked.get(), width);
    const std::vector<float> actual = picked.values();
    for (int64_t row = 0; row < rows; ++row)
      expect_same_bits(slice(actual, row * width, width),
                       slice(values, tokens[static_cast<size_t>(row)] * width, width));
  }
  const OnDevice<int32_t> none({});
  embed(nullptr, DType::f32, table.get(), width, none.get(), 0, nullptr, width);
  EXPECT_THROW(embed(nullptr, DType::q8_0, table.get(), width, none.get(), 0, nullptr, width),
               std::runtime_error);
}

// Every value names where it came from: group, part and place.
TEST_F(CudaOps, UngroupProjections) {
  for (int64_t rows : {1, 65}) {
    for (const GatedDeltaShape& shape :
         {GatedDeltaShape{1, 1, 1, 1}, {2, 6, 20, 16}, {3, 3, 16, 20}, {16, 32, 128, 128}}) {
      const int64_t groups = shape.key_heads, r = shape.value_heads / groups;
      const int64_t dk = shape.key_dim, values = r * shape.value_dim;
      std::vector<float> qkvz, ba;
      const int64_t group_width = 2 * dk + 2 * values;
      for (int64_t i = 0; i < rows * groups * group_width; ++i)
        qkvz.push_back(static_cast<float>(i));
      for (int64_t i = 0; i < rows * groups * 2 * r; ++i) ba.push_back(static_cast<float>(i));
      const OnDevice<float> dqkvz(qkvz), dba(ba);
      const OnDevice<float> dconv(poisoned(rows * groups * (2 * dk + values)));
      const OnDevice<float> dz(poisoned(rows * groups * values));
      const OnDevice<float> da(poisoned(rows * groups * r)), db(poisoned(rows * groups * r));
      ungroup_projections(nullptr, shape, rows, dqkvz.get(), dba.get(), dconv.get(), dz.get(),
                          da.get(), db.get());
      std::vector<float> conv, z, a, b;
      for (int64_t row = 0; row < rows; ++row) {
        const auto take = [&](std::vector<float>& to, const std::vector<float>& from, int64_t width,
                              int64_t begin, int64_t count) {
          for (int64_t g = 0; g < groups; ++g) {
            const std::vector<float> part = slice(from, (row * groups + g) * width + begin, count);
            to.insert(to.end(), part.begin(), part.end());
          }
        };
        take(conv, qkvz, group_width, 0, dk);
        take(conv, qkvz, group_width, dk, dk);
        take(conv, qkvz, group_width, 2 * dk, values);
        take(z, qkvz, group_width, 2 * dk + values, values);
        take(b, ba, 2 * r, 0, r);
        take(a, ba, 2 * r, r, r);
      }
      expect_same_bits(dconv.values(), conv);
      expect_same_bits(dz.values(), z);
      expect_same_bits(da.values(), a);
      expect_same_bits(db.values(), b);
    }
  }
}

}  // namespace
}  // namespace qnext::ops::cuda
