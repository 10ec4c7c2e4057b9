// A model measured by a text: what `perplexity` and `quantize --evaluate` share.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "app/model_files.h"
#include "backend/step.h"
#include "base/json.h"
#include "engine/perplexity.h"
#include "text/tokenizer.h"

namespace CLI {
class App;
}

namespace qnext::app {

// How a text is read; 0 stands for the default.
struct WindowOptions {
  int64_t context = 0;  // 2048, or the model's limit where that is less
  int64_t stride = 0;   // half the context
  int32_t chunk = 0;    // what suits the device
};

// --context, --stride and --prefill-chunk.
void add_window_options(CLI::App& command, WindowOptions& options);

// A text as a model sees it. No token is put before it: tokenizers of the family add none.
struct TokenizedText {
  std::string name;
  std::vector<int32_t> tokens;
  size_t bytes = 0;         // of all tokens
  size_t scored_bytes = 0;  // of all but the first, which nothing predicts
};

// `file`: a path, or - for standard input. Throws Error where it cannot be read, is empty, is not
// UTF-8 or has fewer than two tokens.
std::string read_text_file(const std::string& file);
TokenizedText tokenize_text(const std::string& file, std::string_view text,
                            const Tokenizer& tokenizer);

// One run over a text, and how long it took.
struct TextMeasurement {
  TokenizedText text;
  engine::ReadingOptions reading;  // as it was
  engine::Perplexity perplexity;
  double seconds = 0;
};
TextMeasurement measure_text(backend::Backend& backend, TokenizedText text,
                             const WindowOptions& options, int threads);

struct TextComparison {
  TokenizedText text;
  engine::ReadingOptions reading;
  engine::Comparison comparison;
  double seconds = 0;
};
TextComparison compare_on_text(backend::Backend& candidate, backend::Backend& reference,
                               TokenizedText text, const WindowOptions& options, int threads);

// Lines for a person.
std::string measurement_text(const TextMeasurement& measured);
std::string comparison_text(const TextComparison& compared);
// The same and all else that was measured.
json::Object measurement_json(const TextMeasurement& measured);
json::Object comparison_json(const TextComparison& compared);

}  // namespace qnext::app
