// Encoding with the Qwen3 vocabulary. Texts are made here or read from the source tree; pass a file
// of your own through the environment variable QNEXT_BENCHMARK_TEXT to measure that.
#include <benchmark/benchmark.h>

#include <cstdlib>
#include <random>

#include "base/file.h"
#include "text/tokenizer.h"
#include "text/utf8.h"

namespace qnext {
namespace {

const Tokenizer& tokenizer() {
  static const Tokenizer instance = Tokenizer::load(QNEXT_QWEN3_TOKENIZER);
  return instance;
}

void measure(benchmark::State& state, const std::string& text) {
  const Tokenizer& instance = tokenizer();
  size_t tokens = 0;
  for (auto _ : state) {
    const std::vector<int32_t> ids = instance.encode(text);
    tokens += ids.size();
    benchmark::DoNotOptimize(ids.data());
  }
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * text.size()));
  state.counters["tokens/s"] =
      benchmark::Counter(static_cast<double>(tokens), benchmark::Counter::kIsRate);
}

std::string source_code() {
  std::string text;
  for (const char* file : {"tokenizer.cpp", "tokenizer_definition.cpp", "byte_pair_encoder.cpp",
                           "normalize.cpp", "utf8.cpp", "word_scanner.cpp", "added_tokens.cpp"})
    text += read_file(std::string(QNEXT_SOURCE_DIR "/src/text/") + file);
  return text;
}

std::string random_characters(char32_t first, char32_t count, size_t bytes) {
  std::mt19937_64 random(1);
  std::string text;
  while (text.size() < bytes) utf8::append(text, first + static_cast<char32_t>(random() % count));
  return text;
}

void load(benchmark::State& state) {
  for (auto _ : state)
    benchmark::DoNotOptimize(Tokenizer::load(QNEXT_QWEN3_TOKENIZER).vocabulary_size());
}
void source(benchmark::State& state) {
  measure(state, source_code());
}
void file(benchmark::State& state) {
  const char* path = std::getenv("QNEXT_BENCHMARK_TEXT");
  if (!path) return state.SkipWithError("set QNEXT_BENCHMARK_TEXT to a text file");
  measure(state, read_file(path));
}
void run_of_one_letter(benchmark::State& state) {
  measure(state, std::string(static_cast<size_t>(state.range(0)), 'a'));
}
void word_of_random_letters(benchmark::State& state) {
  measure(state, random_characters('a', 26, static_cast<size_t>(state.range(0))));
}
void chinese_without_spaces(benchmark::State& state) {
  measure(state, random_characters(0x4E00, 3000, static_cast<size_t>(state.range(0))));
}

BENCHMARK(load)->Unit(benchmark::kMillisecond);
BENCHMARK(source);
BENCHMARK(file);
BENCHMARK(run_of_one_letter)->RangeMultiplier(32)->Range(1 << 10, 1 << 20);
BENCHMARK(word_of_random_letters)->RangeMultiplier(32)->Range(1 << 10, 1 << 20);
BENCHMARK(chinese_without_spaces)->RangeMultiplier(32)->Range(1 << 10, 1 << 20);

}  // namespace
}  // namespace qnext
