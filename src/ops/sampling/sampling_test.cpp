#include "ops/sampling/sampling.h"

#include <algorithm>
#include <map>
#include <numeric>

#include "base/error.h"
#include "ops/activation/op_test.h"

namespace qnext::ops {
namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr float not_a_number = std::numeric_limits<float>::quiet_NaN();

int64_t size_of(const std::vector<float>& x) {
  return static_cast<int64_t>(x.size());
}

// The known-answer vectors that Random123 publishes.
TEST(Philox, KnownAnswers) {
  using Block = std::array<uint32_t, 4>;
  constexpr uint32_t ones = 0xFFFFFFFF;
  EXPECT_EQ(philox_4x32_10({0, 0, 0, 0}, {0, 0}),
            (Block{0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8}));
  EXPECT_EQ(philox_4x32_10({ones, ones, ones, ones}, {ones, ones}),
            (Block{0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD}));
  EXPECT_EQ(
      philox_4x32_10({0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344}, {0xA4093822, 0x299F31D0}),
      (Block{0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1}));
  EXPECT_EQ(philox_uniform(0, 0), static_cast<double>(0xE169C58D6627E8D5 >> 11) * 0x1p-53);
}

TEST(Philox, SeedAndCounterUseAllBits) {
  EXPECT_NE(philox_uniform(1, 0), philox_uniform(uint64_t{1} << 32, 0));
  EXPECT_NE(philox_uniform(0, 1), philox_uniform(0, uint64_t{1} << 32));
  for (uint64_t i = 0; i < 1000; ++i) {
    EXPECT_GE(philox_uniform(7, i), 0.0);
    EXPECT_LT(philox_uniform(7, i), 1.0);
  }
}

TEST(Argmax, TiesGoToTheLowerIndex) {
  on_every_isa([] {
    for (int64_t size : {1, 2, 15, 16, 17, 63, 64, 65, 1000, 151'936}) {
      std::vector<float> x(static_cast<size_t>(size), -2.0f);
      EXPECT_EQ(argmax(x.data(), size), 0);
      x.back() = 3;
      EXPECT_EQ(argmax(x.data(), size), size - 1);
      x[x.size() / 2] = 3;
      EXPECT_EQ(argmax(x.data(), size), size / 2);
      std::fill(x.begin(), x.end(), -infinity);
      x.back() = -3e38f;
      EXPECT_EQ(argmax(x.data(), size), size - 1);
    }
    const std::vector<float> zeros{-1, -0.0f, 0.0f};
    EXPECT_EQ(argmax(zeros.data(), 3), 1);
  });
}

TEST(Argmax, DamagedLogitsAreErrors) {
  on_every_isa([] {
    for (int64_t size : {1, 17, 64, 200}) {
      for (int64_t at : {int64_t{0}, size / 2, size - 1}) {
        std::vector<float> x(static_cast<size_t>(size), 1.0f);
        x[static_cast<size_t>(at)] = not_a_number;
        EXPECT_THROW(argmax(x.data(), size), Error);
        x[static_cast<size_t>(at)] = infinity;
        EXPECT_THROW(argmax(x.data(), size), Error);
      }
      const std::vector<float> nothing(static_cast<size_t>(size), -infinity);
      EXPECT_THROW(argmax(nothing.data(), size), Error);
    }
    EXPECT_THROW(argmax(nullptr, 0), Error);
  });
}

TokenCounts some_counts() {
  TokenCounts counts;
  for (int32_t token : {0, 3, 3, 5, 7}) counts.add(token, false);
  for (int32_t token : {3, 4, 4, 4, 9}) counts.add(token, true);
  return counts;
}

// Each parameter alone, all together, and the extremes.
std::vector<SamplingParameters> cases() {
  std::vector<SamplingParameters> all;
  const auto add = [&](auto change) {
    SamplingParameters parameters;
    parameters.temperature = 1;
    change(parameters);
    all.push_back(parameters);
  };
  add([](auto&) {});
  for (float t : {1e-6f, 0.3f, 1.7f, 1e6f}) add([&](auto& p) { p.temperature = t; });
  for (int32_t k : {1, 2, 10, 64, 100'000}) add([&](auto& p) { p.top_k = k; });
  for (float p : {1e-9f, 0.1f, 0.5f, 0.9f, 0.999999f}) add([&](auto& q) { q.top_p = p; });
  for (float m : {1e-9f, 0.01f, 0.3f, 1.0f}) add([&](auto& p) { p.min_p = m; });
  add([](auto& p) { p.presence_penalty = 1.5f; });
  add([](auto& p) { p.frequency_penalty = -0.7f; });
  add([](auto& p) { p.repetition_penalty = 1.8f; });
  add([](auto& p) { p.repetition_penalty = 0.5f; });
  add([](auto& p) { p.logit_bias = {{2, 3.0f}, {4, -100.0f}, {2, 0.5f}}; });
  add([](auto& p) {
    p = {.temperature = 0.8f,
         .top_k = 12,
         .top_p = 0.9f,
         .min_p = 0.02f,
         .presence_penalty = 0.5f,
         .frequency_penalty = 0.25f,
         .repetition_penalty = 1.2f,
         .logit_bias = {{1, 2.0f}, {6, -1.0f}}};
  });
  add([](auto& p) {
    p.temperature = 1e6f;
    p.top_p = 0.7f;
  });
  return all;
}

std::vector<std::vector<float>> logit_sets(Random& random) {
  std::vector<std::vector<float>> sets{random.normals(20, 2), random.normals(300, 3),
                                       std::vector<float>(65, 0.25f), random.normals(10)};
  for (size_t i = 0; i < 300; ++i) sets[1][i] = std::round(sets[1][i] * 4) / 4;  // many ties
  for (size_t i = 1; i < 20; i += 3) sets[0][i] = -infinity;
  return sets;
}

// Every token with a probability is drawn, and no other: the uniform numbers are dense enough to
// hit all that are likelier than 1/5000 or so.
TEST(Sample, ChiSquareAgainstTheOracle) {
  Random random(1);
  const TokenCounts counts = some_counts();
  for (const std::vector<float>& logits : logit_sets(random)) {
    size_t index = 0;
    for (SamplingParameters parameters : cases()) {
      SCOPED_TRACE(index++);
      parameters.seed = 1000 + index;
      const std::vector<double> expected =
          sampling_distribution_oracle(logits.data(), size_of(logits), parameters, counts);
      constexpr int draws = 20'000;
      std::vector<int> seen(logits.size());
      for (int i = 0; i < draws; ++i)
        ++seen[static_cast<size_t>(
            sample(logits.data(), size_of(logits), parameters, counts, i).token)];
      double chi_square = 0;
      int freedom = -1;
      double rest_expected = 0;
      double rest_seen = 0;
      for (size_t i = 0; i < logits.size(); ++i) {
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

// The set of tokens that can be drawn, found by walking through [0, 1) in the order of tokens.
TEST(Sample, SameSetAndSameTokenAsTheOracle) {
  on_every_isa([] {
    Random random(2);
    const TokenCounts counts = some_counts();
    for (const std::vector<float>& logits : logit_sets(random)) {
      for (SamplingParameters parameters : cases()) {
        const std::vector<double> expected =
            sampling_distribution_oracle(logits.data(), size_of(logits), parameters, counts);
        for (int64_t position = 0; position < 200; ++position) {
          const double target = philox_uniform(parameters.seed, static_cast<uint64_t>(position));
          double sum = 0;
          size_t token = 0;
          while (sum + expected[token] <= target) sum += expected[token++];
          ASSERT_EQ(sample(logits.data(), size_of(logits), parameters, counts, position).token,
                    static_cast<int32_t>(token));
        }
      }
    }
  });
}

TEST(Sample, WholeVocabularyGivesTheSameTokenEverywhere) {
  Random random(3);
  const std::vector<float> logits = random.normals(151'936, 3);
  const TokenCounts counts = some_counts();
  for (SamplingParameters parameters : cases()) {
    std::vector<int32_t> tokens;
    on_every_isa([&] {
      for (int64_t position = 0; position < 3; ++position)
        tokens.push_back(
            sample(logits.data(), size_of(logits), parameters, counts, position).token);
    });
    for (size_t i = 3; i < tokens.size(); ++i) ASSERT_EQ(tokens[i], tokens[i % 3]);
    const std::vector<double> expected =
        sampling_distribution_oracle(logits.data(), size_of(logits), parameters, counts);
    for (int32_t token : tokens) EXPECT_GT(expected[static_cast<size_t>(token)], 0.0);
  }
}

TEST(Sample, GreedySeesPenaltiesAndBias) {
  const std::vector<float> logits{1, 2, 3, 4};
  TokenCounts counts;
  counts.add(3, true);
  SamplingParameters parameters;
  EXPECT_EQ(sample(logits.data(), 4, parameters, counts, 0).token, 3);
  parameters.presence_penalty = 1.5f;
  EXPECT_EQ(sample(logits.data(), 4, parameters, counts, 0).token, 2);
  parameters.logit_bias = {{0, 5.0f}};
  EXPECT_EQ(sample(logits.data(), 4, parameters, counts, 0).token, 0);
}

TEST(Sample, LogprobsAreOfTheUnmodifiedLogits) {
  on_every_isa([] {
    Random random(4);
    for (int64_t size : {5, 64, 1000}) {
      std::vector<float> logits = random.normals(size, 4);
      logits[1] = logits[0];
      double total = 0;
      for (float x : logits) total += std::exp(static_cast<double>(x));
      const auto logprob = [&](int32_t token) {
        return static_cast<double>(logits[static_cast<size_t>(token)]) - std::log(total);
      };
      const SamplingParameters parameters{.temperature = 2,
                                          .top_k = 2,
                                          .repetition_penalty = 1.5f,
                                          .logit_bias = {{0, 50.0f}},
                                          .logprobs = 5};
      TokenCounts counts;
      counts.add(3, true);
      const SampledToken result = sample(logits.data(), size, parameters, counts, 3);
      EXPECT_NEAR(static_cast<double>(result.logprob), logprob(result.token), 2e-6);
      ASSERT_EQ(result.top.size(), 5u);
      std::vector<int32_t> order(logits.size());
      std::iota(order.begin(), order.end(), 0);
      std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
        return logits[static_cast<size_t>(a)] > logits[static_cast<size_t>(b)];
      });
      for (size_t i = 0; i < 5; ++i) {
        EXPECT_EQ(result.top[i].token, order[i]);
        EXPECT_NEAR(static_cast<double>(result.top[i].logprob), logprob(order[i]), 2e-6);
      }
    }
  });
}

// As if the logits of all others had been -infinity, whatever else is asked for.
TEST(Sample, MaskedTokensNeverComeAndTheOthersAsIfAlone) {
  Random random(11);
  for (const int64_t vocabulary : {1, 31, 32, 33, 1000, 151'936}) {
    const std::vector<float> logits = random.normals(vocabulary, 3);
    TokenCounts counts;
    counts.add(0, false);
    counts.add(static_cast<int32_t>(vocabulary / 2), true);
    for (int trial = 0; trial < 20; ++trial) {
      std::vector<uint32_t> allowed(static_cast<size_t>(vocabulary + 31) / 32);
      std::vector<float> masked(logits.size(), -infinity);
      const auto allow = [&](size_t token) {
        allowed[token / 32] |= uint32_t{1} << (token % 32);
        masked[token] = logits[token];
      };
      allow(static_cast<size_t>(random.integer(0, vocabulary - 1)));
      for (size_t token = 0; token < logits.size(); ++token)
        if (random.integer(0, trial % 4 == 0 ? 300 : 2) == 0) allow(token);
      SamplingParameters parameters;
      parameters.temperature = trial % 3 == 0 ? 0.0f : 0.9f;
      parameters.seed = static_cast<uint64_t>(trial);
      if (trial % 2 == 0) parameters.top_k = 5;
      if (trial % 5 == 0) parameters.top_p = 0.8f;
      if (trial % 7 == 0) parameters.presence_penalty = 1;
      parameters.logprobs = 2;
      const SampledToken token =
          sample(logits.data(), vocabulary, parameters, counts, trial, allowed.data());
      EXPECT_EQ(token.token, sample(masked.data(), vocabulary, parameters, counts, trial).token);
      // Logprobs are what the model says.
      parameters.temperature = 0;
      const SampledToken free = sample(logits.data(), vocabulary, parameters, counts, trial);
      ASSERT_FALSE(token.top.empty());
      EXPECT_EQ(token.top[0].token, free.top[0].token);
      EXPECT_EQ(token.top[0].logprob, free.top[0].logprob);
    }
    const std::vector<uint32_t> nothing(static_cast<size_t>(vocabulary + 31) / 32);
    EXPECT_THROW(sample(logits.data(), vocabulary, {}, counts, 0, nothing.data()), Error);
  }
}

TEST(Sample, DamagedLogitsAreErrors) {
  for (float bad : {not_a_number, infinity}) {
    std::vector<float> logits(100, 1.0f);
    logits[70] = bad;
    for (float temperature : {0.0f, 1.0f}) {
      const SamplingParameters parameters{.temperature = temperature};
      EXPECT_THROW(sample(logits.data(), 100, parameters, {}, 0), Error);
    }
  }
}

TEST(Sample, TokensOutsideTheVocabularyAreErrors) {
  const std::vector<float> logits(10, 1.0f);
  TokenCounts counts;
  counts.add(10, false);
  EXPECT_THROW(sample(logits.data(), 10, {.repetition_penalty = 2}, counts, 0), Error);
  EXPECT_NO_THROW(sample(logits.data(), 10, {}, counts, 0));
  EXPECT_THROW(sample(logits.data(), 10, {.logit_bias = {{-1, 1.0f}}}, {}, 0), Error);
}

TEST(TokenCounts, CountsEachTokenOnce) {
  const TokenCounts counts = some_counts();
  std::map<int32_t, std::pair<int32_t, int32_t>> seen;
  for (const TokenCounts::Entry& entry : counts.entries()) {
    EXPECT_FALSE(seen.contains(entry.token));
    seen[entry.token] = {entry.in_prompt, entry.in_answer};
  }
  const std::map<int32_t, std::pair<int32_t, int32_t>> expected{
      {0, {1, 0}}, {3, {2, 1}}, {4, {0, 3}}, {5, {1, 0}}, {7, {1, 0}}, {9, {0, 1}}};
  EXPECT_EQ(seen, expected);
}

TEST(Validate, NamesTheParameter) {
  const auto message = [](const SamplingParameters& parameters) -> std::string {
    try {
      validate(parameters, 100);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_EQ(message({}), "");
  EXPECT_EQ(message({.temperature = 1e6f, .top_k = 1'000'000, .logprobs = 100}), "");
  const auto names = [&](const SamplingParameters& parameters, const char* name) {
    EXPECT_EQ(message(parameters).rfind(name, 0), 0u) << message(parameters);
  };
  for (float bad : {-0.1f, infinity, not_a_number}) {
    names({.temperature = bad}, "temperature");
    names({.min_p = bad}, "min_p");
    names({.repetition_penalty = bad}, "repetition_penalty");
  }
  names({.repetition_penalty = 0}, "repetition_penalty");
  names({.top_k = -1}, "top_k");
  for (float bad : {0.0f, 1.1f, not_a_number}) names({.top_p = bad}, "top_p");
  for (float bad : {-2.1f, 2.1f, not_a_number}) {
    names({.presence_penalty = bad}, "presence_penalty");
    names({.frequency_penalty = bad}, "frequency_penalty");
  }
  names({.logit_bias = {{100, 1.0f}}}, "logit_bias");
  names({.logit_bias = {{1, 101.0f}}}, "logit_bias");
  names({.logprobs = 101}, "logprobs");
  names({.logprobs = -2}, "logprobs");
}

}  // namespace
}  // namespace qnext::ops
