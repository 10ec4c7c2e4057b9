// The streamed product against the fp64 oracle over the packed values, and the same bits for a row
// whoever else is there.
#include "ops/matmul/stream_matmul_cuda.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>

#include "ops/matmul/packed_test.h"

namespace qnext::ops::cuda {
namespace {

constexpr float eps = 1e-6f;
constexpr uint16_t bf16_poison = 0xFFFF;

// The tensor core may cut where fp32 would round: a unit is 2^-23. Within 128 columns every
// product may meet every other; then one rounding for the scale and one a run.
double sum_tolerance(int64_t columns) {
  return (128 + static_cast<double>(columns) / 128 + 3) * 0x1p-23;
}

// The sum and what its error is measured by, for every [row, output].
struct Oracle {
  std::vector<double> sum, magnitude;

  Oracle(const std::vector<double>& x, const std::vector<double>& w, int64_t rows, int64_t outputs,
         int64_t columns)
      : sum(static_cast<size_t>(rows * outputs)), magnitude(sum.size()) {
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t n = 0; n < outputs; ++n) {
        double total = 0, absolute = 0;
        const double* a = x.data() + r * columns;
        const double* b = w.data() + n * columns;
        for (int64_t k = 0; k < columns; ++k) {
          total += a[k] * b[k];
          absolute += std::abs(a[k] * b[k]);
        }
        sum[static_cast<size_t>(r * outputs + n)] = total;
        magnitude[static_cast<size_t>(r * outputs + n)] = absolute;
      }
  }
};

std::vector<double> widened_rows(const Bf16Rows& rows, int64_t count, int64_t columns) {
  std::vector<double> values;
  for (int64_t r = 0; r < count; ++r)
    for (int64_t k = 0; k < columns; ++k) values.push_back(rows.value(r, k));
  return values;
}

// Poisoned outputs of one product, with a gap behind each row.
class Output {
 public:
  Output(StreamStore store, int64_t rows, int64_t outputs)
      : store_(store),
        outputs_(outputs),
        stride_(outputs + 3),
        before_(store == StreamStore::add_f32
                    ? random_floats(static_cast<size_t>(rows * stride_), 11)
                    : poisoned(static_cast<size_t>(rows * stride_))),
        floats_(before_),
        halves_(std::vector<uint16_t>(static_cast<size_t>(rows * stride_), bf16_poison)) {}

  StreamProduct product(const PackedMatrix& weight, int64_t first_row = 0) const {
    return {weight, store_,
            store_ == StreamStore::bf16 ? static_cast<void*>(halves_.get() + first_row * stride_)
                                        : static_cast<void*>(floats_.get() + first_row * stride_),
            stride_};
  }
  std::vector<float> found() const {
    if (store_ != StreamStore::bf16) return floats_.values();
    std::vector<float> values;
    for (uint16_t bits : halves_.values()) values.push_back(bf16_to_float(bits));
    return values;
  }
  void expect(const Oracle& oracle, int64_t rows, int64_t columns) const {
    const std::vector<float> all = found();
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t n = 0; n < outputs_; ++n) {
        const auto i = static_cast<size_t>(r * outputs_ + n);
        const auto at = static_cast<size_t>(r * stride_ + n);
        const double before = store_ == StreamStore::add_f32 ? double{before_[at]} : 0;
        const double expected = before + oracle.sum[i];
        const double rounding = store_ == StreamStore::bf16      ? 0x1p-8
                                : store_ == StreamStore::add_f32 ? 0x1p-23
                                                                 : 0;
        ASSERT_NEAR(double{all[at]}, expected,
                    sum_tolerance(columns) * oracle.magnitude[i] + rounding * std::abs(expected))
            << "row " << r << " of " << rows << ", output " << n << " of " << outputs_ << ", "
            << columns << " columns";
      }
      for (auto gap = static_cast<size_t>(r * stride_ + outputs_);
           gap < static_cast<size_t>((r + 1) * stride_); ++gap)
        ASSERT_TRUE(store_ == StreamStore::add_f32 ? all[gap] == before_[gap]
                                                   : std::isnan(all[gap]));
    }
  }

 private:
  StreamStore store_;
  int64_t outputs_, stride_;
  std::vector<float> before_;
  OnDevice<float> floats_;
  OnDevice<uint16_t> halves_;
};

class StreamMatmul : public CudaOps, public testing::WithParamInterface<PackedFormat> {};

TEST_P(StreamMatmul, AgreesWithTheOracle) {
  // Columns: part of a tile, a whole run and a rest, several strips a step (40 to 512), a step
  // (2048), two (4096), two and a part (4500).
  for (const auto& [outputs, columns] : std::vector<std::pair<int64_t, int64_t>>{{1, 40},
                                                                                 {17, 130},
                                                                                 {170, 40},
                                                                                 {90, 512},
                                                                                 {1, 2048},
                                                                                 {17, 2048},
                                                                                 {33, 4096},
                                                                                 {40, 4500}}) {
    const PackedOnDevice weight(GetParam(), random_matrix(DType::bf16, outputs, columns, 3));
    const std::vector<double> w = weight.values();
    for (int64_t rows : {1, 2, 3, 4, 5, 7, 8, 9, 63, 64, 65, 256}) {
      const Bf16Rows x(random_floats(static_cast<size_t>(rows * columns), 5), columns);
      const Oracle oracle(widened_rows(x, rows, columns), w, rows, outputs, columns);
      const OnDevice<Bf16> device_x(x.bits);
      const StreamInput input{device_x.get(), x.stride};
      for (StreamStore store : {StreamStore::bf16, StreamStore::f32, StreamStore::add_f32}) {
        const Output y(store, rows, outputs);
        const StreamProduct product = y.product(weight.matrix());
        stream_matmul(nullptr, input, rows, &product, 1);
        y.expect(oracle, rows, columns);
        if (HasFatalFailure()) return;
      }
    }
  }
}

// More steps than blocks, so that rings go round many times; 70 rows: the kernel of many rows and
// outputs, three tiles a block.
TEST_P(StreamMatmul, ManyOutputs) {
  constexpr int64_t columns = 576;
  for (const auto& [rows, outputs] :
       std::vector<std::pair<int64_t, int64_t>>{{1, 20000}, {3, 20000}, {20, 20000}, {70, 5000}}) {
    PackedOnDevice weight(GetParam(), outputs, columns);
    fill_random(nullptr, weight.matrix(), 1, 9);
    weight.read();
    const std::vector<double> w = weight.values();
    const Bf16Rows x(random_floats(static_cast<size_t>(rows * columns), 5), columns);
    const OnDevice<Bf16> device_x(x.bits);
    const Output y(StreamStore::f32, rows, outputs);
    const StreamProduct product = y.product(weight.matrix());
    stream_matmul(nullptr, {device_x.get(), x.stride}, rows, &product, 1);
    y.expect(Oracle(widened_rows(x, rows, columns), w, rows, outputs, columns), rows, columns);
  }
}

// Where every block has some strips, one row, up to four and up to eight have kernels of their own.
// Strips of bf16 may come with the others, and f16 may not hold the rows.
TEST_P(StreamMatmul, FewRowsOfManyStripsHaveTheBitsOfOne) {
  for (int64_t columns : {512, 1536, 2048, 4096}) {
    constexpr int64_t rows = 8, outputs = 4600, others = 70;
    const PackedOnDevice weight(GetParam(), random_matrix(DType::f32, outputs, columns, 3)),
        plain(PackedFormat::bf16, random_matrix(DType::bf16, others, columns, 4));
    for (const float factor : {1.0f, 0x1p-19f}) {
      std::vector<float> values = random_floats(static_cast<size_t>(rows * columns), 5);
      for (int64_t k = 0; k < columns; ++k) values[static_cast<size_t>(2 * columns + k)] *= factor;
      const Bf16Rows x(values, columns);
      const OnDevice<Bf16> device_x(x.bits);
      for (const StreamStore store : {StreamStore::bf16, StreamStore::add_f32}) {
        const Output alone(store, rows, outputs), other_alone(StreamStore::f32, rows, others);
        for (int64_t r = 0; r < rows; ++r) {
          const StreamProduct both[] = {alone.product(weight.matrix(), r),
                                        other_alone.product(plain.matrix(), r)};
          stream_matmul(nullptr, {device_x.get() + r * x.stride, x.stride}, 1, both, 2);
        }
        for (int64_t count : {2, 3, 4, 7, 8}) {
          const Output some(store, rows, outputs), other(StreamStore::f32, rows, others);
          for (int64_t r = 0; r < rows; r += count) {
            const StreamProduct both[] = {some.product(weight.matrix(), r),
                                          other.product(plain.matrix(), r)};
            stream_matmul(nullptr, {device_x.get() + r * x.stride, x.stride},
                          std::min(count, rows - r), both, 2);
          }
          EXPECT_TRUE(same_bits(some.found(), alone.found())) << columns << ", " << count;
          EXPECT_TRUE(same_bits(other.found(), other_alone.found())) << columns << ", " << count;
        }
      }
    }
  }
}

TEST_P(StreamMatmul, ARowsBitsDoNotDependOnTheOthers) {
  for (int64_t columns : {130, 1000, 2048, 4224}) {
    // Enough for wgmma to take all of them together.
    constexpr int64_t rows = 256, outputs = 1210;
    const PackedOnDevice weight(GetParam(), random_matrix(DType::f32, outputs, columns, 3));
    const Bf16Rows x(random_floats(static_cast<size_t>(rows * columns), 5), columns);
    const OnDevice<Bf16> device_x(x.bits);
    const Output together(StreamStore::f32, rows, outputs), alone(StreamStore::f32, rows, outputs);
    const StreamProduct product = together.product(weight.matrix());
    stream_matmul(nullptr, {device_x.get(), x.stride}, rows, &product, 1);
    // In groups of 1, 2, 3, .. rows.
    for (int64_t r = 0, count = 1; r < rows; r += count, ++count) {
      count = std::min(count, rows - r);
      const StreamProduct one = alone.product(weight.matrix(), r);
      stream_matmul(nullptr, {device_x.get() + r * x.stride, x.stride}, count, &one, 1);
    }
    EXPECT_TRUE(same_bits(together.found(), alone.found())) << columns;
  }
}

// A few rows may be multiplied in f16 where that holds all of them (half_row.cuh): rows at its
// bounds and beyond them, and such as span more powers of two than f16 has.
TEST_P(StreamMatmul, ARowsBitsDoNotDependOnTheOthersWhateverItsSize) {
  for (int64_t columns : {2048, 4096}) {
    constexpr int64_t rows = 12, outputs = 300;
    const PackedOnDevice weight(GetParam(), random_matrix(DType::f32, outputs, columns, 3));
    std::vector<float> values = random_floats(static_cast<size_t>(rows * columns), 5);
    const auto row = [&](int64_t r) { return values.begin() + r * columns; };
    row(1)[7] = 0x1p-21f;
    row(2)[columns - 1] = -0x1.FEp-22f;
    row(3)[100] = 0x1.FEp8f;
    row(4)[101] = -0x1p9f;
    row(5)[columns - 2] = 0x1p-130f;
    for (int64_t k = 0; k < columns; ++k) {
      const auto wide = static_cast<int>(k * 37 % 80) - 60, narrow = static_cast<int>(k * 37 % 29);
      row(6)[k] = std::ldexp(row(6)[k], wide);
      row(7)[k] = std::ldexp(row(7)[k] < 0 ? -1.5f : 1.25f, narrow - 21);
      row(8)[k] *= 0x1p-30f;
      row(9)[k] = k % 200 == 0 ? row(9)[k] : 0.0f;
      row(10)[k] *= 0x1p20f;
      if (k >= 64) row(11)[k] *= 0x1p-24f;
    }
    const Bf16Rows x(values, columns);
    const OnDevice<Bf16> device_x(x.bits);
    const Output together(StreamStore::f32, rows, outputs), alone(StreamStore::f32, rows, outputs);
    const StreamProduct product = together.product(weight.matrix());
    stream_matmul(nullptr, {device_x.get(), x.stride}, rows, &product, 1);
    for (int64_t r = 0; r < rows; ++r) {
      const StreamProduct one = alone.product(weight.matrix(), r);
      stream_matmul(nullptr, {device_x.get() + r * x.stride, x.stride}, 1, &one, 1);
    }
    EXPECT_TRUE(same_bits(together.found(), alone.found())) << columns;
    for (int64_t count : {2, 3, 4}) {
      const Output some(StreamStore::f32, rows, outputs);
      for (int64_t r = 0; r < rows; r += count) {
        const StreamProduct few = some.product(weight.matrix(), r);
        stream_matmul(nullptr, {device_x.get() + r * x.stride, x.stride}, count, &few, 1);
      }
      EXPECT_TRUE(same_bits(some.found(), alone.found())) << columns << ", " << count;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Formats, StreamMatmul, testing::ValuesIn(packed_formats),
                         [](const auto& test) { return format_name(test.param); });

class StreamMatmuls : public CudaOps {};

// Four products of different formats in one launch give what four launches give.
TEST_F(StreamMatmuls, SeveralAtOnce) {
  for (int64_t columns : {200, 2048})
    for (int64_t rows : {1, 2, 4, 5, 30, 100}) {
      const PackedOnDevice weights[] = {
          {PackedFormat::f8, random_matrix(DType::f8_e4m3, 3000, columns, 3)},
          {PackedFormat::bf16, random_matrix(DType::bf16, 64, columns, 4)},
          {PackedFormat::q4, random_matrix(DType::f32, 50, columns, 5)},
          {PackedFormat::bf16, random_matrix(DType::bf16, 1, columns, 6)}};
      const StreamStore stores[] = {StreamStore::bf16, StreamStore::f32, StreamStore::add_f32,
                                    StreamStore::f32};
      const Bf16Rows x(random_floats(static_cast<size_t>(rows * columns), 7), columns);
      const OnDevice<Bf16> device_x(x.bits);
      const StreamInput input{device_x.get(), x.stride};
      std::vector<std::unique_ptr<Output>> together, alone;
      std::vector<StreamProduct> products;
      for (size_t i = 0; i < 4; ++i) {
        const int64_t outputs = weights[i].matrix().rows;
        together.push_back(std::make_unique<Output>(stores[i], rows, outputs));
        alone.push_back(std::make_unique<Output>(stores[i], rows, outputs));
        products.push_back(together[i]->product(weights[i].matrix()));
        const StreamProduct one = alone[i]->product(weights[i].matrix());
        stream_matmul(nullptr, input, rows, &one, 1);
      }
      stream_matmul(nullptr, input, rows, products.data(), 4);
      for (size_t i = 0; i < 4; ++i)
        EXPECT_TRUE(same_bits(together[i]->found(), alone[i]->found())) << i << ", " << rows;
    }
}

class NormedStreamMatmuls : public StreamMatmuls,
                            public testing::WithParamInterface<PackedFormat> {};

// The norm in the prologue: the rows it writes are the oracle's but for bf16's rounding, and the
// product is that of those very rows.
TEST_P(NormedStreamMatmuls, NormItsRows) {
  for (int64_t columns : {40, 130, 2048, 4100})
    for (int64_t rows : {1, 2, 3, 4, 7, 8}) {
      // The width of a model's rows: some strips for every block.
      const int64_t outputs = columns == 2048 ? 4600 : 40;
      const int64_t stride = (columns + 3) / 4 * 4 + 4;
      const int64_t padded = (columns + tile_columns - 1) / tile_columns * tile_columns;
      const std::vector<float> x = random_floats(static_cast<size_t>(rows * stride), 5, 3);
      const std::vector<float> norm_weight = random_floats(static_cast<size_t>(columns), 6, 0.2f);
      // The second one as the gate behind a router.
      const PackedOnDevice weight(GetParam(), random_matrix(DType::f32, outputs, columns, 3)),
          gate(GetParam(), random_matrix(DType::f32, 1, columns, 4));
      const OnDevice<float> device_x(x), device_norm(norm_weight);
      const OnDevice<Bf16> normed(std::vector<Bf16>(static_cast<size_t>(rows * padded), Bf16{0}));
      const Output fused(StreamStore::f32, rows, outputs), apart(StreamStore::f32, rows, outputs),
          fused_gate(StreamStore::f32, rows, 1), apart_gate(StreamStore::f32, rows, 1);
      StreamInput input;
      input.residual = device_x.get();
      input.residual_stride = stride;
      input.norm_weight = device_norm.get();
      input.eps = eps;
      input.normed = normed.get();
      input.normed_stride = padded;
      const StreamProduct products[2] = {fused.product(weight.matrix()),
                                         fused_gate.product(gate.matrix())};
      stream_matmul(nullptr, input, rows, products, 2);
      const StreamProduct seconds[2] = {apart.product(weight.matrix()),
                                        apart_gate.product(gate.matrix())};
      stream_matmul(nullptr, {normed.get(), padded}, rows, seconds, 2);
      EXPECT_TRUE(same_bits(fused.found(), apart.found()));
      EXPECT_TRUE(same_bits(fused_gate.found(), apart_gate.found()));

      const std::vector<Bf16> found = normed.values();
      for (int64_t r = 0; r < rows; ++r) {
        double squares = 0;
        for (int64_t k = 0; k < columns; ++k)
          squares += std::pow(double{x[static_cast<size_t>(r * stride + k)]}, 2);
        const double scale = 1 / std::sqrt(squares / static_cast<double>(columns) + double{eps});
        for (int64_t k = 0; k < columns; ++k) {
          const double expected = double{x[static_cast<size_t>(r * stride + k)]} * scale *
                                  (1 + double{norm_weight[static_cast<size_t>(k)]});
          // bf16's rounding, and the fp32 ones before it.
          ASSERT_NEAR(double{bf16_to_float(found[static_cast<size_t>(r * padded + k)])}, expected,
                      (0x1p-8 + 0x1p-16) * std::abs(expected))
              << r << ", " << k;
        }
        for (int64_t k = columns; k < padded; ++k)
          ASSERT_EQ(found[static_cast<size_t>(r * padded + k)], 0);
      }
      // The norm of a row alone.
      if (rows == 1) continue;
      for (int64_t r = 0; r < rows; ++r) {
        StreamInput one = input;
        one.residual = device_x.get() + r * stride;
        one.normed = nullptr;
        const StreamProduct alone = apart.product(weight.matrix(), r);
        stream_matmul(nullptr, one, 1, &alone, 1);
      }
      EXPECT_TRUE(same_bits(fused.found(), apart.found()));
    }
}

INSTANTIATE_TEST_SUITE_P(Formats, NormedStreamMatmuls, testing::ValuesIn(packed_formats),
                         [](const auto& test) { return std::string(format_name(test.param)); });

TEST_F(StreamMatmuls, RefusesWhatItCannotDo) {
  const StreamProduct product{PackedMatrix{PackedFormat::bf16, 16, 64}, StreamStore::f32};
  EXPECT_ANY_THROW(stream_matmul(nullptr, {}, most_stream_rows + 1, &product, 1));
  StreamInput norm;
  const float any = 0;
  norm.residual = &any;
  EXPECT_ANY_THROW(stream_matmul(nullptr, norm, most_normed_stream_rows + 1, &product, 1));
}

}  // namespace
}  // namespace qnext::ops::cuda
