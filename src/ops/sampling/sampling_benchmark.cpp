// One token from 151,936 logits, the vocabulary of the released models.
#include <benchmark/benchmark.h>

#include <random>
#include <vector>

#include "ops/sampling/sampling.h"

namespace qnext::ops {
namespace {

std::vector<float> some_logits() {
  std::mt19937 engine(1);
  std::normal_distribution<float> normal(0, 3);
  std::vector<float> logits(151'936);
  for (float& logit : logits) logit = normal(engine);
  return logits;
}

void run(benchmark::State& state, const SamplingParameters& parameters) {
  const std::vector<float> logits = some_logits();
  TokenCounts counts;
  for (int32_t token = 0; token < 2000; ++token) counts.add(token * 7, token % 2 == 0);
  int64_t position = 0;
  for (auto _ : state)
    benchmark::DoNotOptimize(
        sample(logits.data(), static_cast<int64_t>(logits.size()), parameters, counts, ++position));
}

BENCHMARK_CAPTURE(run, greedy, {});
BENCHMARK_CAPTURE(run, greedy_logprobs_20, {.logprobs = 20});
BENCHMARK_CAPTURE(run, temperature, {.temperature = 0.7f});
BENCHMARK_CAPTURE(run, top_k_20, {.temperature = 0.7f, .top_k = 20});
BENCHMARK_CAPTURE(run, top_k_20_top_p, {.temperature = 0.7f, .top_k = 20, .top_p = 0.8f});
BENCHMARK_CAPTURE(run, top_p, {.temperature = 0.7f, .top_p = 0.8f});
BENCHMARK_CAPTURE(run, top_p_flat, {.temperature = 10, .top_p = 0.9f});
BENCHMARK_CAPTURE(run, min_p, {.temperature = 0.7f, .min_p = 0.05f});
BENCHMARK_CAPTURE(run, penalties, {.temperature = 0.7f, .top_k = 20, .repetition_penalty = 1.1f});

}  // namespace
}  // namespace qnext::ops
