// Perplexity and divergence against what the fp64 oracle says of the same windows.
#include "engine/perplexity.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "engine/text_windows.h"
#include "model/oracle_forward.h"
#include "tests/models.h"

namespace qnext {
namespace {

using engine::Comparison;
using engine::measure_perplexity;
using engine::Perplexity;
using engine::ReadingOptions;
using engine::TextWindow;
using testing::TestModel;

std::vector<int32_t> random_tokens(const Config& config, size_t count) {
  std::mt19937 random(5);
  std::uniform_int_distribution<int32_t> token(0, static_cast<int32_t>(config.vocabulary_size) - 1);
  std::vector<int32_t> tokens(count);
  for (int32_t& t : tokens) t = token(random);
  return tokens;
}

// log p of every token behind a row of logits.
std::vector<double> log_softmax(const double* logits, int64_t vocabulary) {
  std::vector<double> out(logits, logits + vocabulary);
  const double maximum = *std::ranges::max_element(out);
  double sum = 0;
  for (const double x : out) sum += std::exp(x - maximum);
  for (double& x : out) x -= maximum + std::log(sum);
  return out;
}

// What predicts each scored token, in order, by the oracle; and the largest logit of all.
struct OracleRows {
  std::vector<std::vector<double>> log_probabilities;
  double largest = 0;
};
OracleRows oracle_rows(const TestModel& model, const std::vector<int32_t>& tokens,
                       const ReadingOptions& options) {
  OracleRows rows;
  const int64_t vocabulary = model.config.vocabulary_size;
  for (const TextWindow& window :
       engine::text_windows(std::ssize(tokens), options.context, options.stride)) {
    const OracleOutputs outputs =
        oracle_forward(model.config, model.checkpoint,
                       std::span(tokens).subspan(static_cast<size_t>(window.first),
                                                 static_cast<size_t>(window.end - window.first)));
    for (const double x : outputs.logits) rows.largest = std::max(rows.largest, std::abs(x));
    for (int64_t t = window.first_scored; t < window.end; ++t)
      rows.log_probabilities.push_back(
          log_softmax(outputs.logits.data() + (t - 1 - window.first) * vocabulary, vocabulary));
  }
  return rows;
}

// A logit errs by at most the backend's error of the largest one, and so does the logarithm of the
// sum of their exponentials.
double tolerance(const backend::Backend& backend, const OracleRows& rows) {
  return 2 * backend.capabilities().relative_error * rows.largest;
}

TEST(MeasuredPerplexity, MatchesTheOracle) {
  for (const char* name : {"g1-small", "g3-yarn"}) {
    const TestModel model(testing::data_folder(name));
    const std::vector<int32_t> tokens = random_tokens(model.config, 75);
    const auto backend = model.backend(2);
    ThreadPool pool(2);
    const ReadingOptions options{.context = 30, .stride = 12};
    const OracleRows expected = oracle_rows(model, tokens, options);
    const Perplexity found = measure_perplexity(*backend, tokens, options, pool);
    ASSERT_EQ(found.losses.size(), tokens.size() - 1);
    ASSERT_EQ(expected.log_probabilities.size(), tokens.size() - 1);
    double sum = 0;
    for (size_t i = 0; i < found.losses.size(); ++i) {
      const double loss = -expected.log_probabilities[i][static_cast<size_t>(tokens[i + 1])];
      EXPECT_NEAR(found.losses[i], loss, tolerance(*backend, expected)) << name << " token " << i;
      sum += loss;
    }
    const double mean = sum / static_cast<double>(found.losses.size());
    EXPECT_NEAR(found.value().value, std::exp(mean),
                std::exp(mean) * 2 * tolerance(*backend, expected));
    EXPECT_NEAR(found.bits() * std::log(2), sum, sum * 1e-3);
  }
}

TEST(MeasuredPerplexity, IsTheSameWhateverTheChunkAndTheThreads) {
  const TestModel model(testing::tiny_shakespeare);
  const std::vector<int32_t> tokens = random_tokens(model.config, 400);
  ReadingOptions options{.context = 200, .stride = 90};
  ThreadPool one(1);
  ThreadPool three(3);
  const std::vector<double> whole =
      measure_perplexity(*model.backend(2), tokens, options, one).losses;
  EXPECT_EQ(measure_perplexity(*model.backend(3), tokens, options, three).losses, whole);
  for (const int32_t chunk : testing::on_cuda ? std::vector<int32_t>{64, 128, 1024}
                                              : std::vector<int32_t>{13, 64, 100, 1024}) {
    options.chunk = chunk;
    EXPECT_EQ(measure_perplexity(*model.backend(2), tokens, options, three).losses, whole) << chunk;
  }
}

TEST(MeasuredPerplexity, TellsItsProgress) {
  const TestModel model(testing::data_folder("g1-small"));
  const std::vector<int32_t> tokens = random_tokens(model.config, 100);
  ThreadPool pool(1);
  ReadingOptions options{.context = 40, .stride = 20, .chunk = 16};
  int64_t last = 0;
  double mean = 0;
  options.progress = [&](int64_t scored, int64_t total, double mean_loss) {
    EXPECT_EQ(total, 99);
    EXPECT_GT(scored, last);
    last = scored;
    mean = mean_loss;
  };
  const Perplexity found = measure_perplexity(*model.backend(1), tokens, options, pool);
  EXPECT_EQ(last, 99);
  EXPECT_NEAR(mean, found.mean_loss().value, 1e-12);
}

TEST(MeasuredPerplexity, SaysWhatCannotBe) {
  const TestModel model(testing::data_folder("g1-small"));
  const auto backend = model.backend(1);
  ThreadPool pool(1);
  std::vector<int32_t> tokens = random_tokens(model.config, 20);
  const auto measure = [&](const ReadingOptions& options) {
    return measure_perplexity(*backend, tokens, options, pool);
  };
  EXPECT_THROW(measure({.context = 1, .stride = 1}), Error);
  EXPECT_THROW(measure({.context = 8, .stride = 8}), Error);
  EXPECT_THROW(measure({.context = 8, .stride = 0}), Error);
  EXPECT_THROW(measure({.context = 1 << 20, .stride = 8}), Error);
  tokens[3] = static_cast<int32_t>(model.config.vocabulary_size);
  EXPECT_THROW(measure({.context = 8, .stride = 4}), Error);
  tokens.resize(1);
  EXPECT_THROW(measure({.context = 8, .stride = 4}), Error);
}

// g1-small and g3-yarn have one vocabulary and nothing else in common.
TEST(ComparedModels, MatchTheOracle) {
  const TestModel model(testing::data_folder("g1-small"));
  const TestModel other(testing::data_folder("g3-yarn"));
  const std::vector<int32_t> tokens = random_tokens(model.config, 60);
  const ReadingOptions options{.context = 40, .stride = 16};
  const OracleRows p = oracle_rows(other, tokens, options);
  const OracleRows q = oracle_rows(model, tokens, options);
  const auto candidate = model.backend(2);
  const auto reference = other.backend(2);
  ThreadPool pool(2);
  const Comparison found = engine::compare_models(*candidate, *reference, tokens, options, pool);
  ASSERT_EQ(found.divergences.size(), tokens.size() - 1);
  const double error = tolerance(*candidate, q) + tolerance(*reference, p);
  double sum = 0;
  for (size_t i = 0; i < found.divergences.size(); ++i) {
    double expected = 0;
    double weight = 0;  // of what the reference's own errors move
    for (size_t x = 0; x < p.log_probabilities[i].size(); ++x) {
      const double difference = p.log_probabilities[i][x] - q.log_probabilities[i][x];
      expected += std::exp(p.log_probabilities[i][x]) * difference;
      weight += std::exp(p.log_probabilities[i][x]) * std::abs(difference);
    }
    EXPECT_NEAR(found.divergences[i], expected, error * (1 + weight)) << i;
    sum += expected;
  }
  EXPECT_NEAR(found.mean_divergence().value, sum / static_cast<double>(found.divergences.size()),
              1e-2 * sum / static_cast<double>(found.divergences.size()));
  EXPECT_EQ(found.candidate.losses, measure_perplexity(*candidate, tokens, options, pool).losses);
  EXPECT_EQ(found.reference.losses, measure_perplexity(*reference, tokens, options, pool).losses);
}

TEST(ComparedModels, AModelIsItself) {
  const TestModel model(testing::tiny_shakespeare);
  const std::vector<int32_t> tokens = random_tokens(model.config, 300);
  ThreadPool pool(2);
  const Comparison found = engine::compare_models(*model.backend(1), *model.backend(2), tokens,
                                                  {.context = 200, .stride = 50}, pool);
  EXPECT_EQ(found.divergence_percentile(100), 0);
  EXPECT_EQ(found.same_top, 299);
  EXPECT_EQ(found.ratio().value, 1);
  EXPECT_EQ(found.ratio().standard_error, 0);
}

TEST(ComparedModels, FiguresFromWhatWasMeasured) {
  Comparison comparison;
  for (int i = 1; i <= 200; ++i) comparison.divergences.push_back((i * 73) % 200 + 1);
  EXPECT_EQ(comparison.divergence_percentile(50), 100);
  EXPECT_EQ(comparison.divergence_percentile(99), 198);
  EXPECT_EQ(comparison.divergence_percentile(100), 200);
  EXPECT_EQ(comparison.divergence_percentile(0.1), 1);
  comparison.same_top = 50;
  EXPECT_EQ(comparison.same_top_share().value, 0.25);
  const std::vector<double> values = {1, 2, 3, 4};
  const engine::Mean mean = engine::mean_of(values);
  EXPECT_EQ(mean.value, 2.5);
  EXPECT_NEAR(mean.standard_error, std::sqrt(5.0 / 3 / 4), 1e-15);
  comparison.candidate.losses = {2, 3};
  comparison.reference.losses = {1, 1};
  EXPECT_NEAR(comparison.ratio().value, std::exp(1.5), 1e-12);
  EXPECT_NEAR(comparison.ratio().standard_error, std::exp(1.5) * 0.5, 1e-12);
}

}  // namespace
}  // namespace qnext
