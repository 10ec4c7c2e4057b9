#include "app/load_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "app/units.h"
#include "base/json.h"

namespace qnext::app {
namespace {

double ratio(double part, double whole) {
  return whole > 0 ? part / whole : 0;
}

// Three digits of what is mostly a few milliseconds.
std::string milliseconds(double seconds) {
  return rate_text(1e3 * seconds);
}

std::string distribution_row(const char* name, const Distribution& values) {
  if (values.count == 0) return fmt::format("{:<26}{:>10}\n", name, "-");
  return fmt::format("{:<26}{:>10}{:>10}{:>10}{:>10}{:>10}\n", name, milliseconds(values.mean),
                     milliseconds(values.p50), milliseconds(values.p90), milliseconds(values.p99),
                     milliseconds(values.most));
}

json::Object distribution_json(const Distribution& values) {
  return {{"count", static_cast<int64_t>(values.count)},
          {"mean", values.mean},
          {"p50", values.p50},
          {"p90", values.p90},
          {"p99", values.p99},
          {"max", values.most}};
}

}  // namespace

Distribution distribution(std::vector<double> values) {
  Distribution result;
  result.count = values.size();
  if (values.empty()) return result;
  std::ranges::sort(values);
  const auto count = static_cast<double>(values.size());
  const auto percentile = [&](double percent) {
    const double rank = std::ceil(percent * count / 100);
    return values[static_cast<size_t>(std::max(rank, 1.0)) - 1];
  };
  result.mean = std::accumulate(values.begin(), values.end(), 0.0) / count;
  result.p50 = percentile(50);
  result.p90 = percentile(90);
  result.p99 = percentile(99);
  result.most = values.back();
  return result;
}

double LoadSummary::requests_per_second() const {
  return ratio(static_cast<double>(finished), seconds);
}
double LoadSummary::tokens_per_second() const {
  return ratio(static_cast<double>(completion_tokens), seconds);
}
double LoadSummary::cached_share() const {
  return ratio(static_cast<double>(cached_tokens), static_cast<double>(prompt_tokens));
}

LoadSummary summarize(const LoadRun& run) {
  LoadSummary summary;
  summary.seconds = run.seconds;
  std::vector<double> first_token;
  std::vector<double> token;
  std::vector<double> gap;
  std::vector<double> whole;
  for (const LoadRecord& record : run.records) {
    summary.completion_tokens += record.completion_tokens;
    if (record.end == RequestEnd::failed) {
      ++summary.failed;
      ++summary.errors[record.error];
      continue;
    }
    if (record.end == RequestEnd::cut) {
      ++summary.cut;
      continue;
    }
    ++summary.finished;
    summary.prompt_tokens += record.prompt_tokens;
    summary.cached_tokens += record.cached_tokens;
    whole.push_back(record.finish - record.begin);
    if (record.first_piece == 0) continue;  // an answer without text
    first_token.push_back(record.first_piece - record.begin);
    if (record.completion_tokens > 1)
      token.push_back((record.last_piece - record.first_piece) /
                      static_cast<double>(record.completion_tokens - 1));
    gap.insert(gap.end(), record.gaps.begin(), record.gaps.end());
  }
  summary.first_token = distribution(std::move(first_token));
  summary.token = distribution(std::move(token));
  summary.gap = distribution(std::move(gap));
  summary.whole = distribution(std::move(whole));
  return summary;
}

std::string load_text(const LoadSummary& summary) {
  const auto total = summary.finished + summary.cut + summary.failed;
  std::string out = fmt::format("requests        {} in {}: {} finished, {} cut off, {} failed\n",
                                grouped_text(total), seconds_text(summary.seconds),
                                grouped_text(summary.finished), grouped_text(summary.cut),
                                grouped_text(summary.failed));
  for (const auto& [kind, count] : summary.errors)
    out += fmt::format("  {:>8}  {}\n", grouped_text(count), kind);
  out +=
      fmt::format("throughput      {} requests/s, {} tokens/s of answers\n",
                  rate_text(summary.requests_per_second()), rate_text(summary.tokens_per_second()));
  out += fmt::format("prompts         {} tokens, of which {:.1f} % were cached\n",
                     grouped_text(summary.prompt_tokens), 100 * summary.cached_share());
  out += fmt::format("answers         {} tokens\n\n", grouped_text(summary.completion_tokens));
  out += fmt::format("{:<26}{:>10}{:>10}{:>10}{:>10}{:>10}\n", "milliseconds", "mean", "p50", "p90",
                     "p99", "most");
  out += distribution_row("time to first token", summary.first_token);
  out += distribution_row("time per output token", summary.token);
  out += distribution_row("between pieces of text", summary.gap);
  out += distribution_row("end to end", summary.whole);
  return out;
}

std::string load_json(const LoadSummary& summary) {
  json::Object errors;
  for (const auto& [kind, count] : summary.errors) errors.set(kind, count);
  const json::Object out{{"seconds", summary.seconds},
                         {"finished", summary.finished},
                         {"cut", summary.cut},
                         {"failed", summary.failed},
                         {"errors", std::move(errors)},
                         {"requests_per_second", summary.requests_per_second()},
                         {"output_tokens_per_second", summary.tokens_per_second()},
                         {"prompt_tokens", summary.prompt_tokens},
                         {"cached_tokens", summary.cached_tokens},
                         {"cached_share", summary.cached_share()},
                         {"completion_tokens", summary.completion_tokens},
                         {"first_token_seconds", distribution_json(summary.first_token)},
                         {"token_seconds", distribution_json(summary.token)},
                         {"gap_seconds", distribution_json(summary.gap)},
                         {"request_seconds", distribution_json(summary.whole)}};
  return json::write(out, 2) + "\n";
}

}  // namespace qnext::app
