#include "engine/perplexity.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <numbers>
#include <numeric>

#include "base/error.h"
#include "engine/text_windows.h"

namespace qnext::engine {
namespace {

// The logits of one step, all backends together.
constexpr size_t largest_logits = size_t{256} << 20;

// A row of logits as a distribution: log p(x) = logits[x] - maximum - log_sum.
struct Distribution {
  const float* logits = nullptr;
  float maximum = 0;
  int64_t top = 0;     // where the maximum is, the first of equal ones
  double log_sum = 0;  // NaN where the logits are not numbers

  Distribution(const float* row, int64_t vocabulary) : logits(row) {
    top = std::max_element(row, row + vocabulary) - row;
    maximum = row[top];
    double sum = 0;
    for (int64_t x = 0; x < vocabulary; ++x) sum += std::exp(static_cast<double>(row[x] - maximum));
    log_sum = std::log(sum);
  }
  double log_probability(int64_t token) const {
    return static_cast<double>(logits[token]) - static_cast<double>(maximum) - log_sum;
  }
};

// Tokens of probability zero in the reference add nothing, whatever the candidate says.
double divergence(const Distribution& reference, const Distribution& candidate,
                  int64_t vocabulary) {
  double sum = 0;
  for (int64_t x = 0; x < vocabulary; ++x) {
    const double log_p = reference.log_probability(x);
    if (const double p = std::exp(log_p); p > 0) sum += p * (log_p - candidate.log_probability(x));
  }
  return std::max(sum, 0.0);  // roundings may leave it a hair below
}

void check_text(const Config& config, std::span<const int32_t> tokens,
                const ReadingOptions& options) {
  if (std::ssize(tokens) < 2)
    fail("the text has {} token{}: at least 2 are needed, as the first is only read", tokens.size(),
         tokens.size() == 1 ? "" : "s");
  for (const int32_t token : tokens)
    if (token < 0 || token >= config.vocabulary_size)
      fail("the text holds token {}, but the model's vocabulary has {}: is this its tokenizer?",
           token, config.vocabulary_size);
  if (options.context < 2)
    fail("windows of {} tokens predict nothing: ask for a context of 2 or more", options.context);
  if (options.context > config.context_length())
    fail("a context of {} tokens was asked for, but the model was made for {}: ask for fewer",
         options.context, config.context_length());
  if (options.stride < 1 || options.stride >= options.context)
    fail("a stride of {} in a context of {}: it must be from 1 to one less than the context",
         options.stride, options.context);
}

StepLimits step_limits(std::span<backend::Backend* const> backends, const ReadingOptions& options) {
  const Config& config = backends.front()->config();
  const size_t row_bytes =
      static_cast<size_t>(config.vocabulary_size) * sizeof(float) * backends.size();
  const auto fitting = static_cast<int64_t>(largest_logits / row_bytes);
  StepLimits limits;
  limits.rows = options.chunk;
  for (const backend::Backend* backend : backends) {
    const int64_t suits = backend->capabilities().prefill_chunk;
    if (options.chunk == 0) limits.rows = std::max(limits.rows, suits);
  }
  limits.scored_rows = std::min(limits.rows, std::max<int64_t>(1, fitting));
  constexpr int64_t cut = backend::prompt_cut;
  if (limits.scored_rows > cut) limits.scored_rows -= limits.scored_rows % cut;
  return limits;
}

// Reads the text with all backends in step and shows `score` every scored token: its index among
// the scored ones, its id, and the logits that each backend predicted it with. Several threads
// score at once, each token once. `after` follows each step with the number of tokens scored.
// Returns the rows that each backend has read.
template <typename Score, typename After>
int64_t read_text(std::span<backend::Backend* const> backends, std::span<const int32_t> tokens,
                  const ReadingOptions& options, ThreadPool& pool, const Score& score,
                  const After& after) {
  const int64_t vocabulary = backends.front()->config().vocabulary_size;
  const StepLimits limits = step_limits(backends, options);
  const int64_t context = std::min<int64_t>(options.context, std::ssize(tokens));
  std::vector<WindowReader> readers;
  for (backend::Backend* backend : backends) readers.emplace_back(*backend, context, limits, true);
  std::vector<const float*> logits(backends.size());
  int64_t rows = 0;
  for (const TextWindow& window :
       text_windows(std::ssize(tokens), options.context, options.stride)) {
    const auto window_tokens = tokens.subspan(static_cast<size_t>(window.first),
                                              static_cast<size_t>(window.end - window.first));
    for (const WindowStep& step : window_steps(window, limits)) {
      for (size_t i = 0; i < readers.size(); ++i) logits[i] = readers[i].read(window_tokens, step);
      rows += step.rows;
      if (!step.scores()) continue;
      const int64_t count = step.first + step.rows - step.first_scored;
      pool.parallel_for(count, 1, [&](int64_t begin, int64_t end) {
        std::vector<const float*> row(logits);
        for (int64_t i = begin; i < end; ++i) {
          const int64_t at = step.first_scored + i;
          for (size_t b = 0; b < row.size(); ++b)
            row[b] = logits[b] + (at - step.first) * vocabulary;
          score(window.first + at, window_tokens[static_cast<size_t>(at + 1)],
                std::span<const float* const>(row));
        }
      });
      after(window.first + step.first + step.rows);
    }
  }
  return rows;
}

void check_numbers(std::span<const double> values, size_t first, const char* whose) {
  for (size_t i = first; i < values.size(); ++i)
    if (!std::isfinite(values[i]))
      fail("the {}'s logits for token {} of the text are not numbers", whose, i + 2);
}

// Sums what is scored as it comes and tells options.progress; checks it on the way.
class RunningLoss {
 public:
  RunningLoss(const std::vector<double>& losses, const ReadingOptions& options, const char* whose)
      : losses_(losses), options_(options), whose_(whose) {}

  void add_up_to(int64_t scored) {
    const auto all = std::span(losses_).first(static_cast<size_t>(scored));
    check_numbers(all, done_, whose_);
    for (; done_ < all.size(); ++done_) sum_ += all[done_];
    if (options_.progress)
      options_.progress(scored, std::ssize(losses_), sum_ / static_cast<double>(scored));
  }

 private:
  const std::vector<double>& losses_;
  const ReadingOptions& options_;
  const char* whose_;
  size_t done_ = 0;
  double sum_ = 0;
};

// exp of a mean, by the delta method.
Mean exponential(const Mean& mean) {
  const double value = std::exp(mean.value);
  return {value, value * mean.standard_error};
}

}  // namespace

Mean mean_of(std::span<const double> values) {
  Mean mean;
  if (values.empty()) return mean;
  const auto count = static_cast<double>(values.size());
  mean.value = std::accumulate(values.begin(), values.end(), 0.0) / count;
  if (values.size() < 2) return mean;
  double squares = 0;
  for (const double value : values) squares += (value - mean.value) * (value - mean.value);
  mean.standard_error = std::sqrt(squares / (count - 1) / count);
  return mean;
}

Mean Perplexity::value() const {
  return exponential(mean_loss());
}

double Perplexity::bits() const {
  return std::accumulate(losses.begin(), losses.end(), 0.0) / std::numbers::ln2;
}

double Comparison::divergence_percentile(double percent) const {
  QNEXT_CHECK(!divergences.empty() && percent > 0 && percent <= 100);
  std::vector<double> sorted = divergences;
  const double rank = std::ceil(percent / 100 * static_cast<double>(sorted.size()));
  const auto nth = sorted.begin() + (static_cast<int64_t>(rank) - 1);
  std::nth_element(sorted.begin(), nth, sorted.end());
  return *nth;
}

Mean Comparison::same_top_share() const {
  const auto count = static_cast<double>(divergences.size());
  const double share = static_cast<double>(same_top) / count;
  return {share, count < 2 ? 0 : std::sqrt(share * (1 - share) / (count - 1))};
}

Mean Comparison::ratio() const {
  std::vector<double> differences(candidate.losses.size());
  std::ranges::transform(candidate.losses, reference.losses, differences.begin(), std::minus<>());
  return exponential(mean_of(differences));
}

Perplexity measure_perplexity(backend::Backend& backend, std::span<const int32_t> tokens,
                              const ReadingOptions& options, ThreadPool& pool) {
  check_text(backend.config(), tokens, options);
  const int64_t vocabulary = backend.config().vocabulary_size;
  Perplexity result;
  result.losses.resize(tokens.size() - 1);
  RunningLoss running(result.losses, options, "model");
  backend::Backend* const backends[] = {&backend};
  result.rows = read_text(
      backends, tokens, options, pool,
      [&](int64_t index, int32_t token, std::span<const float* const> logits) {
        result.losses[static_cast<size_t>(index)] =
            -Distribution(logits[0], vocabulary).log_probability(token);
      },
      [&](int64_t scored) { running.add_up_to(scored); });
  return result;
}

Comparison compare_models(backend::Backend& candidate, backend::Backend& reference,
                          std::span<const int32_t> tokens, const ReadingOptions& options,
                          ThreadPool& pool) {
  const int64_t vocabulary = candidate.config().vocabulary_size;
  if (reference.config().vocabulary_size != vocabulary)
    fail("the models' vocabularies differ: {} and {} of the reference", vocabulary,
         reference.config().vocabulary_size);
  check_text(candidate.config(), tokens, options);
  check_text(reference.config(), tokens, options);
  Comparison result;
  result.candidate.losses.resize(tokens.size() - 1);
  result.reference.losses.resize(tokens.size() - 1);
  result.divergences.resize(tokens.size() - 1);
  std::vector<char> same(tokens.size() - 1);
  RunningLoss running(result.candidate.losses, options, "candidate");
  size_t checked = 0;
  backend::Backend* const backends[] = {&candidate, &reference};
  result.candidate.rows = read_text(
      backends, tokens, options, pool,
      [&](int64_t index, int32_t token, std::span<const float* const> logits) {
        const auto i = static_cast<size_t>(index);
        const Distribution q(logits[0], vocabulary);
        const Distribution p(logits[1], vocabulary);
        result.candidate.losses[i] = -q.log_probability(token);
        result.reference.losses[i] = -p.log_probability(token);
        result.divergences[i] = divergence(p, q, vocabulary);
        same[i] = p.top == q.top ? 1 : 0;
      },
      [&](int64_t scored) {
        const auto done = static_cast<size_t>(scored);
        check_numbers(std::span(result.reference.losses).first(done), checked, "reference");
        checked = done;
        running.add_up_to(scored);
      });
  result.reference.rows = result.candidate.rows;
  result.same_top = std::ranges::count(same, char{1});
  return result;
}

}  // namespace qnext::engine
