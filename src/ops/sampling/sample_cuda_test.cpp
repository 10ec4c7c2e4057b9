// The GPU's draws against the CPU's, token by token.
#include "ops/sampling/sample_cuda.h"

#include <algorithm>
#include <limits>

#include "base/error.h"
#include "ops/cuda_test.h"

namespace qnext::ops::cuda {
namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr float not_a_number = std::numeric_limits<float>::quiet_NaN();
constexpr int32_t poison = -7;

int32_t expected_token(const float* logits, int64_t vocabulary,
                       const SamplingParameters& parameters, const TokenCounts& counts,
                       int64_t position) {
  try {
    return sample(logits, vocabulary, parameters, counts, position).token;
  } catch (const Error&) {
    return -1;
  }
}

struct Request {
  SamplingParameters parameters;
  TokenCounts counts;
  int64_t position = 0;
};

std::vector<int32_t> draw(const OnDevice<float>& logits, int64_t stride, int64_t vocabulary,
                          const std::vector<Request>& requests, int64_t first_row = 0,
                          double doubt = rounding_doubt) {
  std::vector<LogitChange> changes;
  std::vector<RowSampling> rows;
  for (const Request& request : requests)
    rows.push_back(
        row_sampling(request.parameters, request.counts, vocabulary, request.position, changes));
  const OnDevice<LogitChange> device_changes(changes);
  const OnDevice<RowSampling> device_rows(rows);
  const OnDevice<int32_t> tokens(std::vector<int32_t>(requests.size() + 1, poison));
  const OnDevice<int32_t> copy(std::vector<int32_t>(requests.size() + 1, poison));
  sample_rows(nullptr, logits.get() + first_row * stride, stride,
              static_cast<int64_t>(requests.size()), vocabulary, device_rows.get(),
              device_changes.get(), tokens.get(), copy.get(), doubt);
  std::vector<int32_t> result = tokens.values();
  EXPECT_EQ(copy.values(), result);
  EXPECT_EQ(result.back(), poison);
  result.pop_back();
  return result;
}

std::vector<int32_t> greedy(const OnDevice<float>& logits, int64_t stride, int64_t rows,
                            int64_t vocabulary) {
  const OnDevice<int32_t> tokens(std::vector<int32_t>(static_cast<size_t>(rows) + 1, poison));
  const OnDevice<int32_t> copy(std::vector<int32_t>(static_cast<size_t>(rows) + 1, poison));
  greedy_rows(nullptr, logits.get(), stride, rows, vocabulary, tokens.get(), copy.get());
  std::vector<int32_t> result = tokens.values();
  EXPECT_EQ(copy.values(), result);
  EXPECT_EQ(result.back(), poison);
  result.pop_back();
  return result;
}

TokenCounts some_counts(int64_t vocabulary) {
  TokenCounts counts;
  for (int32_t token : {0, 3, 3, 5, 7, 700})
    counts.add(token % static_cast<int32_t>(vocabulary), false);
  for (int32_t token : {3, 4, 4, 4, 9, 998})
    counts.add(token % static_cast<int32_t>(vocabulary), true);
  return counts;
}

// Each parameter alone, together as models recommend them, and the extremes.
std::vector<SamplingParameters> cases(int64_t vocabulary) {
  std::vector<SamplingParameters> all;
  const auto add = [&](auto change) {
    SamplingParameters parameters;
    parameters.temperature = 1;
    parameters.seed = 1000 + all.size();
    change(parameters);
    all.push_back(parameters);
  };
  add([](auto& p) { p.temperature = 0; });
  add([](auto&) {});
  for (float t : {1e-40f, 1e-6f, 0.3f, 1.7f, 1e6f}) add([&](auto& p) { p.temperature = t; });
  for (int32_t k : {1, 2, 20, 1000, 3000, 100'000}) add([&](auto& p) { p.top_k = k; });
  for (float p : {1e-9f, 0.1f, 0.5f, 0.95f, 0.9999f}) add([&](auto& q) { q.top_p = p; });
  for (float m : {1e-9f, 0.01f, 0.3f, 1.0f}) add([&](auto& p) { p.min_p = m; });
  add([](auto& p) { p.repetition_penalty = 1.8f; });
  add([](auto& p) { p.repetition_penalty = 0.5f; });
  add([](auto& p) {
    p.presence_penalty = 1.5f;
    p.frequency_penalty = -0.7f;
    p.temperature = 0;
  });
  const auto last = static_cast<int32_t>(vocabulary - 1);
  add([&](auto& p) { p.logit_bias = {{last, 3.0f}, {last / 2, -100.0f}, {last, 0.5f}}; });
  for (float t : {0.02f, 0.7f, 1.5f, 5.0f}) {
    add([&](auto& p) {
      p.temperature = t;
      p.top_k = 20;
      p.top_p = 0.8f;
    });
    add([&](auto& p) {
      p.temperature = t;
      p.top_p = 0.9f;
      p.min_p = 0.02f;
      p.presence_penalty = 0.5f;
      p.repetition_penalty = 1.2f;
      p.logit_bias = {{last / 3, 2.0f}};
    });
    add([&](auto& p) {
      p.temperature = t;
      p.top_k = 5000;
      p.top_p = 0.99f;
      p.min_p = 0.001f;
    });
  }
  return all;
}

// Normal, peaked, flat, with many ties, with tokens that are never drawn.
std::vector<std::vector<float>> logit_sets(Random& random, int64_t vocabulary) {
  std::vector<std::vector<float>> sets{random.normals(vocabulary, 3), random.normals(vocabulary, 1),
                                       std::vector<float>(static_cast<size_t>(vocabulary), 0.25f),
                                       random.normals(vocabulary, 3),
                                       random.normals(vocabulary, 2)};
  sets[1][static_cast<size_t>(random.integer(0, vocabulary - 1))] = 15;
  for (float& x : sets[3]) x = std::round(x * 4) / 4;
  for (size_t i = 1; i < sets[4].size(); i += 3) sets[4][i] = -infinity;
  for (size_t i = 2; i < sets[3].size(); i += 5) sets[3][i] = -0.0f;
  return sets;
}

class Sampling : public CudaOps {};

// Where more than 1,024 tokens are left over, a border may fall otherwise once in 1e8 draws: none
// of these does.
TEST_F(Sampling, SameTokenAsTheCpu) {
  Random random(1);
  for (int64_t vocabulary : {1, 31, 64, 65, 1000, 5000, 151'936}) {
    const int64_t positions = vocabulary > 10'000 ? 4 : 20;
    for (const std::vector<float>& logits : logit_sets(random, vocabulary)) {
      const OnDevice<float> device(logits);
      std::vector<Request> requests;
      for (const SamplingParameters& parameters : cases(vocabulary))
        for (int64_t position = 0; position < positions; ++position)
          requests.push_back({parameters, some_counts(vocabulary), position});
      // A stride of 0: all rows have the same logits.
      const std::vector<int32_t> tokens = draw(device, 0, vocabulary, requests);
      // The way of the few draws that are decided by a rounding, for some and for all.
      if (vocabulary <= 5000) {
        for (double doubt : {1e-3, 1e300}) {
          ASSERT_EQ(draw(device, 0, vocabulary, requests, 0, doubt), tokens) << doubt;
        }
      }
      for (size_t i = 0; i < requests.size(); ++i)
        EXPECT_EQ(tokens[i], expected_token(logits.data(), vocabulary, requests[i].parameters,
                                            requests[i].counts, requests[i].position))
            << "vocabulary " << vocabulary << " request " << i << " case "
            << i / static_cast<size_t>(positions);
    }
  }
}

TEST_F(Sampling, ManyDrawsOfTheUsualParameters) {
  Random random(2);
  constexpr int64_t vocabulary = 151'936;
  const std::vector<float> logits = random.normals(vocabulary, 2.5f);
  const OnDevice<float> device(logits);
  std::vector<Request> requests;
  for (int64_t position = 0; position < 500; ++position) {
    requests.push_back({{.temperature = 0.7f, .top_k = 20, .top_p = 0.8f}, {}, position});
    requests.push_back({{.temperature = 0.6f, .top_p = 0.95f}, {}, position});
    requests.push_back({{.temperature = 1}, {}, position});
    requests.push_back({{.temperature = 0.8f, .min_p = 0.05f}, {}, position});
  }
  const std::vector<int32_t> tokens = draw(device, 0, vocabulary, requests);
  for (size_t i = 0; i < requests.size(); ++i)
    ASSERT_EQ(tokens[i], expected_token(logits.data(), vocabulary, requests[i].parameters, {},
                                        requests[i].position))
        << i;
}

// Rows of different parameters side by side, at aligned and odd strides, and each alone.
TEST_F(Sampling, RowsDoNotSeeEachOther) {
  Random random(3);
  constexpr int64_t vocabulary = 3001;
  const std::vector<SamplingParameters> all = cases(vocabulary);
  for (int64_t rows : {1, 2, 64, 65, 256}) {
    for (int64_t stride : {3004, 3007}) {
      std::vector<float> logits = random.normals(rows * stride, 3);
      if (rows > 2) {
        logits[static_cast<size_t>(1 * stride + 2999)] = not_a_number;
        std::fill(logits.begin() + 2 * stride, logits.begin() + 2 * stride + vocabulary, -infinity);
        logits[static_cast<size_t>(40 * stride)] = infinity;
      }
      const OnDevice<float> device(logits);
      std::vector<Request> requests;
      for (int64_t row = 0; row < rows; ++row)
        requests.push_back(
            {all[static_cast<size_t>(row * 7) % all.size()], some_counts(vocabulary), 1000 + row});
      const std::vector<int32_t> tokens = draw(device, stride, vocabulary, requests);
      for (int64_t row = 0; row < rows; ++row) {
        const Request& request = requests[static_cast<size_t>(row)];
        const int32_t token = tokens[static_cast<size_t>(row)];
        ASSERT_EQ(token, expected_token(logits.data() + row * stride, vocabulary,
                                        request.parameters, request.counts, request.position))
            << "row " << row << " of " << rows;
        if (row % 16 < 3) {
          ASSERT_EQ(draw(device, stride, vocabulary, {request}, row), std::vector<int32_t>{token});
        }
      }
    }
  }
}

TEST_F(Sampling, GreedyRows) {
  Random random(4);
  for (int64_t vocabulary : {1, 31, 64, 1000, 16'385, 151'936}) {
    for (int64_t rows : {1, 2, 65, 256}) {
      if (vocabulary > 100'000 && rows > 65) continue;
      const int64_t stride = vocabulary + random.integer(0, 5);
      std::vector<float> logits = random.normals(rows * stride, 3);
      for (int64_t row = 0; row < rows; ++row) {
        float* of_row = logits.data() + row * stride;
        if (row % 3 == 1)
          for (int64_t i = 0; i < vocabulary; ++i) of_row[i] = std::round(of_row[i]);  // ties
        const int64_t at = random.integer(0, vocabulary - 1);
        if (row % 8 == 5) of_row[at] = not_a_number;
        if (row % 8 == 6) of_row[at] = infinity;
        if (row % 8 == 7) std::fill(of_row, of_row + vocabulary, -infinity);
        if (row % 16 == 7) of_row[at] = -3e38f;
      }
      const OnDevice<float> device(logits);
      const std::vector<int32_t> tokens = greedy(device, stride, rows, vocabulary);
      for (int64_t row = 0; row < rows; ++row)
        ASSERT_EQ(tokens[static_cast<size_t>(row)],
                  expected_token(logits.data() + row * stride, vocabulary, {}, {}, 0))
            << "row " << row << " of " << rows << " vocabulary " << vocabulary;
    }
  }
}

TEST_F(Sampling, ChiSquareAgainstTheOracle) {
  Random random(5);
  constexpr int64_t vocabulary = 300;
  constexpr int draws = 20'000;
  for (const std::vector<float>& logits : logit_sets(random, vocabulary)) {
    const OnDevice<float> device(logits);
    for (const SamplingParameters& parameters : cases(vocabulary)) {
      const TokenCounts counts = some_counts(vocabulary);
      std::vector<LogitChange> changes;
      const RowSampling row = row_sampling(parameters, counts, vocabulary, 0, changes);
      std::vector<RowSampling> rows(draws, row);
      for (int i = 0; i < draws; ++i) rows[static_cast<size_t>(i)].position = i;
      const OnDevice<RowSampling> device_rows(rows);
      const OnDevice<LogitChange> device_changes(changes);
      const OnDevice<int32_t> tokens(std::vector<int32_t>(draws, poison));
      sample_rows(nullptr, device.get(), 0, draws, vocabulary, device_rows.get(),
                  device_changes.get(), tokens.get());
      std::vector<double> seen(static_cast<size_t>(vocabulary));
      for (int32_t token : tokens.values()) ++seen.at(static_cast<size_t>(token));
      const std::vector<double> expected =
          sampling_distribution_oracle(logits.data(), vocabulary, parameters, counts);
      double chi_square = 0, rest_expected = 0, rest_seen = 0;
      int freedom = -1;
      for (size_t i = 0; i < seen.size(); ++i) {
        if (expected[i] == 0) {
          ASSERT_EQ(seen[i], 0) << "token " << i;
        }
        const double want = expected[i] * draws;
        if (want < 5) {
          rest_expected += want;
          rest_seen += seen[i];
          continue;
        }
        chi_square += (seen[i] - want) * (seen[i] - want) / want;
        ++freedom;
      }
      if (rest_expected >= 5) {
        chi_square += (rest_seen - rest_expected) * (rest_seen - rest_expected) / rest_expected;
        ++freedom;
      }
      // Five standard deviations above the mean of the chi-square distribution.
      EXPECT_LE(chi_square, freedom + 5 * std::sqrt(2.0 * std::max(freedom, 1)));
    }
  }
}

TEST_F(Sampling, RefusesWhatItCannotHold) {
  const OnDevice<float> logits(std::vector<float>(4));
  EXPECT_THROW(sample_rows(nullptr, logits.get(), 0, 1, widest_sampled_vocabulary + 1, nullptr,
                           nullptr, nullptr),
               Error);
  std::vector<LogitChange> changes;
  EXPECT_THROW(row_sampling({.logit_bias = {{10, 1.0f}}}, {}, 10, 0, changes), Error);
}

// A captured graph draws with the parameters that lie there when it runs.
TEST_F(Sampling, GraphsTakeNewParameters) {
  Random random(6);
  constexpr int64_t vocabulary = 5000;
  const std::vector<float> logits = random.normals(vocabulary, 3);
  const OnDevice<float> device(logits);
  const OnDevice<RowSampling> rows(std::vector<RowSampling>(1));
  const OnDevice<int32_t> tokens(std::vector<int32_t>(1, poison));
  cudaStream_t stream = nullptr;
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t ready = nullptr;
  check_cuda(cudaStreamCreate(&stream), "cudaStreamCreate");
  check_cuda(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "capture");
  sample_rows(stream, device.get(), 0, 1, vocabulary, rows.get(), nullptr, tokens.get());
  check_cuda(cudaStreamEndCapture(stream, &graph), "capture");
  check_cuda(cudaGraphInstantiate(&ready, graph, 0), "cudaGraphInstantiate");
  for (int64_t position = 0; position < 20; ++position) {
    const SamplingParameters parameters{.temperature = 1.2f, .top_p = 0.9f, .seed = 5};
    std::vector<LogitChange> changes;
    const RowSampling row = row_sampling(parameters, {}, vocabulary, position, changes);
    check_cuda(cudaMemcpy(rows.get(), &row, sizeof row, cudaMemcpyHostToDevice), "cudaMemcpy");
    check_cuda(cudaGraphLaunch(ready, stream), "cudaGraphLaunch");
    EXPECT_EQ(tokens.values()[0],
              expected_token(logits.data(), vocabulary, parameters, {}, position));
  }
  cudaGraphExecDestroy(ready);
  cudaGraphDestroy(graph);
  cudaStreamDestroy(stream);
}

}  // namespace
}  // namespace qnext::ops::cuda
