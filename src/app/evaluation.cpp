#include "app/evaluation.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cmath>
#include <utility>

#include "app/progress.h"
#include "app/terminal.h"
#include "app/units.h"
#include "base/error.h"
#include "base/file.h"

namespace qnext::app {
namespace {

constexpr int64_t default_context = 2048;
constexpr double percentiles[] = {50, 90, 99, 100};

engine::ReadingOptions reading_options(const WindowOptions& options, const Config& config) {
  engine::ReadingOptions reading;
  reading.context =
      options.context > 0 ? options.context : std::min(default_context, config.context_length());
  reading.stride = options.stride > 0 ? options.stride : std::max<int64_t>(1, reading.context / 2);
  reading.chunk = options.chunk;
  return reading;
}

// The options with a progress bar that also shows the perplexity so far.
engine::ReadingOptions with_progress(engine::ReadingOptions options, ProgressBar& bar) {
  options.progress = [&bar](int64_t scored, int64_t total, double mean_loss) {
    bar.set_label(fmt::format("perplexity {:.3f}", std::exp(mean_loss)));
    bar.update(static_cast<size_t>(scored), static_cast<size_t>(total));
  };
  return options;
}

template <typename Run>
double seconds_of(const Run& run) {
  const auto start = std::chrono::steady_clock::now();
  run();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

std::string named_line(const char* name, const std::string& value) {
  return fmt::format("{:<16}{}\n", name, value);
}

std::string mean_text(const engine::Mean& mean, int digits) {
  return fmt::format("{:.{}f} +- {:.{}f}", mean.value, digits, mean.standard_error, digits);
}

double bits_per_byte(const engine::Perplexity& perplexity, const TokenizedText& text) {
  return perplexity.bits() / static_cast<double>(text.scored_bytes);
}

std::string tokens_line(const TokenizedText& text, const engine::ReadingOptions& reading) {
  return named_line(
      "tokens scored",
      fmt::format("{} of {} ({}), in windows of {} every {}",
                  grouped_text(std::ssize(text.tokens) - 1), grouped_text(std::ssize(text.tokens)),
                  bytes_text(static_cast<double>(text.bytes)),
                  grouped_text(std::min(reading.context, std::ssize(text.tokens))),
                  grouped_text(reading.stride)));
}

std::string speed_line(int64_t rows, double seconds) {
  return named_line(
      "time", fmt::format("{}, {} tokens read, {} tokens/s", seconds_text(seconds),
                          grouped_text(rows), rate_text(static_cast<double>(rows) / seconds)));
}

json::Object mean_json(const engine::Mean& mean) {
  return {{"value", mean.value}, {"standard_error", mean.standard_error}};
}

json::Object reading_json(const TokenizedText& text, const engine::ReadingOptions& reading,
                          double seconds) {
  return {{"text", text.name},
          {"bytes", static_cast<int64_t>(text.bytes)},
          {"tokens", static_cast<int64_t>(std::ssize(text.tokens))},
          {"scored_tokens", static_cast<int64_t>(std::ssize(text.tokens) - 1)},
          {"context", reading.context},
          {"stride", reading.stride},
          {"seconds", seconds}};
}

json::Object perplexity_json(const engine::Perplexity& perplexity, const TokenizedText& text) {
  return {{"perplexity", mean_json(perplexity.value())},
          {"loss", mean_json(perplexity.mean_loss())},
          {"bits_per_byte", bits_per_byte(perplexity, text)},
          {"tokens_read", perplexity.rows}};
}

}  // namespace

void add_window_options(CLI::App& command, WindowOptions& options) {
  const auto add = [&](const char* name, auto& value, int64_t least, const char* help) {
    command.add_option(name, value, help)
        ->type_name("N")
        ->check(CLI::Range(least, int64_t{1} << 30).description(""));
  };
  add("--context", options.context, 2, "tokens of a window [2048, or the model's limit]");
  add("--stride", options.stride, 1, "a window begins N tokens after the last [half the context]");
  add("--prefill-chunk", options.chunk, 1, "tokens in one step [what suits the device]");
}

std::string read_text_file(const std::string& file) {
  std::string text = file == "-" ? read_input() : read_file(file);
  const std::string name = file == "-" ? "standard input" : file;
  if (text.empty()) fail("{} is empty; give a text to predict", name);
  require_utf8(text, name);
  return text;
}

TokenizedText tokenize_text(const std::string& file, std::string_view text,
                            const Tokenizer& tokenizer) {
  TokenizedText out;
  out.name = file;
  out.tokens = tokenizer.encode(text);
  if (out.tokens.size() < 2)
    fail("{} has {} token{}; at least 2 are needed, as the first is only read", file,
         out.tokens.size(), out.tokens.size() == 1 ? "" : "s");
  for (const int32_t token : out.tokens) out.bytes += tokenizer.token_bytes(token).size();
  out.scored_bytes = out.bytes - tokenizer.token_bytes(out.tokens[0]).size();
  return out;
}

TextMeasurement measure_text(backend::Backend& backend, TokenizedText text,
                             const WindowOptions& options, int threads) {
  TextMeasurement out;
  out.text = std::move(text);
  out.reading = reading_options(options, backend.config());
  ThreadPool pool(threads);
  ProgressBar bar("perplexity", count_text);
  out.seconds = seconds_of([&] {
    out.perplexity =
        engine::measure_perplexity(backend, out.text.tokens, with_progress(out.reading, bar), pool);
  });
  return out;
}

TextComparison compare_on_text(backend::Backend& candidate, backend::Backend& reference,
                               TokenizedText text, const WindowOptions& options, int threads) {
  TextComparison out;
  out.text = std::move(text);
  out.reading = reading_options(options, candidate.config());
  ThreadPool pool(threads);
  ProgressBar bar("perplexity", count_text);
  out.seconds = seconds_of([&] {
    out.comparison = engine::compare_models(candidate, reference, out.text.tokens,
                                            with_progress(out.reading, bar), pool);
  });
  return out;
}

std::string measurement_text(const TextMeasurement& measured) {
  const engine::Perplexity& perplexity = measured.perplexity;
  std::string out = named_line("perplexity", mean_text(perplexity.value(), 4));
  out += named_line("loss", mean_text(perplexity.mean_loss(), 5) + " nats a token");
  out += named_line("bits a byte", fmt::format("{:.4f}", bits_per_byte(perplexity, measured.text)));
  out += tokens_line(measured.text, measured.reading);
  return out + speed_line(perplexity.rows, measured.seconds);
}

std::string comparison_text(const TextComparison& compared) {
  const engine::Comparison& comparison = compared.comparison;
  std::string out = named_line("perplexity", mean_text(comparison.candidate.value(), 4));
  out += named_line("reference", mean_text(comparison.reference.value(), 4));
  out += named_line("ratio", mean_text(comparison.ratio(), 5));
  out += named_line("KL divergence", mean_text(comparison.mean_divergence(), 6) +
                                         " nats a token, reference || model");
  out += named_line("  percentiles",
                    fmt::format("50 %: {:.6f}, 90 %: {:.6f}, 99 %: {:.6f}, largest: {:.6f}",
                                comparison.divergence_percentile(percentiles[0]),
                                comparison.divergence_percentile(percentiles[1]),
                                comparison.divergence_percentile(percentiles[2]),
                                comparison.divergence_percentile(percentiles[3])));
  const engine::Mean same = comparison.same_top_share();
  out += named_line("same top token",
                    fmt::format("{:.2f} % +- {:.2f}", 100 * same.value, 100 * same.standard_error));
  out += named_line("bits a byte", fmt::format("{:.4f}, reference {:.4f}",
                                               bits_per_byte(comparison.candidate, compared.text),
                                               bits_per_byte(comparison.reference, compared.text)));
  out += tokens_line(compared.text, compared.reading);
  return out + speed_line(comparison.candidate.rows, compared.seconds);
}

json::Object measurement_json(const TextMeasurement& measured) {
  json::Object out = reading_json(measured.text, measured.reading, measured.seconds);
  const json::Object perplexity = perplexity_json(measured.perplexity, measured.text);
  for (const auto& [name, value] : perplexity) out.set(name, value);
  return out;
}

json::Object comparison_json(const TextComparison& compared) {
  const engine::Comparison& comparison = compared.comparison;
  json::Object out = reading_json(compared.text, compared.reading, compared.seconds);
  const json::Object candidate = perplexity_json(comparison.candidate, compared.text);
  for (const auto& [name, value] : candidate) out.set(name, value);
  out.set("reference", perplexity_json(comparison.reference, compared.text));
  out.set("perplexity_ratio", mean_json(comparison.ratio()));
  json::Object divergence = mean_json(comparison.mean_divergence());
  for (const double percent : percentiles)
    divergence.set(percent == 100 ? "largest" : fmt::format("percentile_{:g}", percent),
                   comparison.divergence_percentile(percent));
  out.set("kl_divergence", std::move(divergence));
  out.set("same_top_token", mean_json(comparison.same_top_share()));
  return out;
}

}  // namespace qnext::app
