#include "app/judgement.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "base/error.h"

namespace qnext::app {

namespace {

constexpr double share_a_layer = 1.0 / 16;
constexpr double largest_share = 1.0 / 4;
// No two rows of one size differ by more.
constexpr double worst_error = 2;
// Up to here a tensor must have rows that rule 2 judges.
constexpr double first_layers = 1.5;

// The experts of one row, best first; equal logits go to the lower index.
std::vector<int64_t> ranked(std::span<const float> logits) {
  std::vector<int64_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  std::ranges::stable_sort(order, [&](int64_t a, int64_t b) {
    return logits[static_cast<size_t>(a)] > logits[static_cast<size_t>(b)];
  });
  return order;
}

bool same_set(std::span<const int64_t> a, std::span<const int64_t> b) {
  return std::ranges::is_permutation(a, b);
}

// Rule 2 over the errors of rows that are not diverted.
bool tail_is_thin(std::span<const double> errors, double share, double tolerance) {
  for (double c = 1; c * tolerance < worst_error; c *= 2) {
    const auto beyond =
        std::ranges::count_if(errors, [&](double error) { return error > c * tolerance; });
    if (static_cast<double>(beyond) > share / c * static_cast<double>(errors.size())) return false;
  }
  return true;
}

}  // namespace

void DivertedRows::pass(std::span<const float> found, std::span<const float> expected,
                        int64_t top_k, double tolerance) {
  const size_t experts = expected.size() / diverted_.size();
  const auto chosen = static_cast<size_t>(top_k);
  QNEXT_CHECK(found.size() == expected.size() && experts * diverted_.size() == expected.size());
  if (chosen >= experts) return;  // no choice
  double scale = 0;
  for (const float logit : expected) scale = std::max(scale, std::abs(static_cast<double>(logit)));
  for (size_t row = 0; row < diverted_.size(); ++row) {
    const auto reference = expected.subspan(row * experts, experts);
    const auto backend = found.subspan(row * experts, experts);
    // No order, and no excuse either.
    if (std::ranges::any_of(backend, [](float logit) { return std::isnan(logit); })) continue;
    const std::vector<int64_t> wanted = ranked(reference);
    const std::vector<int64_t> taken = ranked(backend);
    const double gap = static_cast<double>(reference[static_cast<size_t>(wanted[chosen - 1])]) -
                       reference[static_cast<size_t>(wanted[chosen])];
    if (gap <= 2 * tolerance * scale &&
        !same_set(std::span(wanted).first(chosen), std::span(taken).first(chosen)))
      diverted_[row] = 1;
  }
}

RowJudgement judge_rows(std::span<const double> row_errors, const DivertedRows& experts,
                        double layers, double tolerance) {
  RowJudgement out{.tolerance = tolerance, .rows = std::ssize(row_errors)};
  if (row_errors.empty()) return out;
  out.experts_known = experts.known();
  std::vector<double> all(row_errors.begin(), row_errors.end());
  for (double& error : all)
    if (std::isnan(error)) error = std::numeric_limits<double>::infinity();
  const auto beyond = [&](double error) { return error > tolerance; };
  std::vector<double> judged;
  for (size_t row = 0; row < all.size() && experts.known(); ++row)
    if (!experts.diverted(static_cast<int64_t>(row))) judged.push_back(all[row]);
  out.judged = std::ssize(judged);
  out.judged_beyond = std::ranges::count_if(judged, beyond);
  out.beyond = std::ranges::count_if(all, beyond);

  std::ranges::sort(all);
  out.median = all[all.size() / 2];
  const double share = std::min(largest_share, layers * share_a_layer);
  const bool judged_nothing = experts.known() && judged.empty() && layers <= first_layers;
  out.passed = out.median <= tolerance && all.back() < worst_error && !judged_nothing &&
               tail_is_thin(judged, share, tolerance);
  return out;
}

double tolerance_after(double layers, int64_t of_layers, double tolerance) {
  return tolerance * std::sqrt(layers / static_cast<double>(of_layers));
}

}  // namespace qnext::app
