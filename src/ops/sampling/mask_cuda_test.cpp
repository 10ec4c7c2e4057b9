// Masked rows on the GPU against the CPU's rule, and draws from them against the CPU's draws.
#include "ops/sampling/mask_cuda.h"

#include <cstring>
#include <limits>

#include "ops/cuda_test.h"
#include "ops/sampling/sample_cuda.h"

namespace qnext::ops::cuda {
namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();

class MaskLogitsCuda : public CudaOps {};

TEST_F(MaskLogitsCuda, ForbidsWhatTheMaskForbidsAndTouchesNothingElse) {
  Random random(3);
  for (const int64_t vocabulary : {1, 31, 32, 33, 1000, 4099, 151'936}) {
    constexpr int64_t rows = 5;
    const int64_t stride = vocabulary + 3;
    const int64_t words = mask_words(vocabulary);
    std::vector<float> logits = random.normals(rows * stride, 3);
    logits[0] = std::numeric_limits<float>::quiet_NaN();  // of row 0, which is masked
    const std::vector<int32_t> row_of = {3, 0, 4};
    std::vector<uint32_t> masks;
    for (int64_t i = 0; i < std::ssize(row_of) * words; ++i)
      masks.push_back(i % 7 == 0   ? ~uint32_t{0}
                      : i % 5 == 0 ? 0
                                   : static_cast<uint32_t>(random.integer(0, 0xFFFFFFFF)));
    const OnDevice<float> device(logits);
    const OnDevice<uint32_t> device_masks(masks);
    const OnDevice<int32_t> device_rows(row_of);
    mask_logits(nullptr, device.get(), stride, vocabulary, device_masks.get(), device_rows.get(),
                std::ssize(row_of));
    std::vector<float> expected = logits;
    for (size_t i = 0; i < row_of.size(); ++i)
      for (int64_t token = 0; token < vocabulary; ++token) {
        const uint32_t word =
            masks[i * static_cast<size_t>(words) + static_cast<size_t>(token / 32)];
        float& logit = expected[static_cast<size_t>(row_of[i] * stride + token)];
        if ((word >> (token % 32) & 1) == 0 && !std::isnan(logit)) logit = -infinity;
      }
    const std::vector<float> result = device.values();
    ASSERT_EQ(std::memcmp(result.data(), expected.data(), expected.size() * sizeof(float)), 0)
        << vocabulary;
  }
}

TEST_F(MaskLogitsCuda, DrawsAreThoseOfTheCpu) {
  Random random(4);
  for (const int64_t vocabulary : {40, 2048, 151'936}) {
    constexpr int64_t rows = 12;
    const int64_t words = mask_words(vocabulary);
    const std::vector<float> logits = random.normals(rows * vocabulary, 3);
    std::vector<uint32_t> masks(static_cast<size_t>(rows * words));
    std::vector<int32_t> row_of;
    std::vector<RowSampling> samplers;
    std::vector<SamplingParameters> parameters(rows);
    std::vector<LogitChange> changes;
    for (int64_t row = 0; row < rows; ++row) {
      row_of.push_back(static_cast<int32_t>(row));
      for (int64_t token = 0; token < vocabulary; ++token)
        if (token == row || random.integer(0, row % 3 == 0 ? 2 : 400) == 0)
          masks[static_cast<size_t>(row * words + token / 32)] |= uint32_t{1} << (token % 32);
      SamplingParameters& one = parameters[static_cast<size_t>(row)];
      one.temperature = row % 4 == 0 ? 0.0f : 0.8f;
      one.seed = static_cast<uint64_t>(row);
      if (row % 2 == 0) one.top_k = 20;
      if (row % 3 == 0) one.top_p = 0.9f;
      samplers.push_back(row_sampling(one, {}, vocabulary, row, changes));
    }
    const OnDevice<float> device(logits);
    const OnDevice<uint32_t> device_masks(masks);
    const OnDevice<int32_t> device_rows(row_of);
    const OnDevice<RowSampling> device_samplers(samplers);
    const OnDevice<int32_t> tokens(std::vector<int32_t>(rows, -7));
    mask_logits(nullptr, device.get(), vocabulary, vocabulary, device_masks.get(),
                device_rows.get(), rows);
    sample_rows(nullptr, device.get(), vocabulary, rows, vocabulary, device_samplers.get(), nullptr,
                tokens.get());
    const std::vector<int32_t> drawn = tokens.values();
    for (int64_t row = 0; row < rows; ++row)
      EXPECT_EQ(drawn[static_cast<size_t>(row)],
                sample(logits.data() + row * vocabulary, vocabulary,
                       parameters[static_cast<size_t>(row)], {}, row, masks.data() + row * words)
                    .token)
          << vocabulary << " row " << row;
  }
}

}  // namespace
}  // namespace qnext::ops::cuda
