#include "app/verify.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <numeric>

#include "base/error.h"

namespace qnext::app {

namespace {

using backend::Observed;

std::vector<int32_t> read_tokens(const SafetensorsFile& vectors, const std::string& name,
                                 int64_t vocabulary) {
  const StoredTensor& tensor = vectors.get(name);
  std::vector<int32_t> tokens(static_cast<size_t>(tensor.elements()));
  if (tensor.shape.size() != 2)
    fail("{}: {} has shape {}; expected [rows, tokens]", vectors.path(), name,
         shape_text(tensor.shape));
  for (size_t i = 0; i < tokens.size(); ++i) {
    int64_t wide = 0;
    if (tensor.dtype == DType::i32) {
      std::memcpy(&tokens[i], tensor.data + i * 4, 4);
      wide = tokens[i];
    } else if (tensor.dtype == DType::i64) {
      std::memcpy(&wide, tensor.data + i * 8, 8);
    } else {
      fail("{}: {} is {}; expected I32 or I64", vectors.path(), name, dtype_name(tensor.dtype));
    }
    if (wide < 0 || wide >= vocabulary)
      fail("{}: {} holds token {}, but the model's vocabulary_size is {}", vectors.path(), name,
           wide, vocabulary);
    tokens[i] = static_cast<int32_t>(wide);
  }
  return tokens;
}

// Everything that a backend shows of some sequences of equal length, put back into [B, T, width].
class Collector : public backend::Observer {
 public:
  struct Tensor {
    int64_t width = 0;
    std::vector<float> values;  // [sequences, tokens, width]
  };

  Collector(int64_t sequences, int64_t tokens) : sequences_(sequences), tokens_(tokens) {}
  // The next step's rows: `rows` of each sequence from position `first` on.
  void expect(int64_t first, int64_t rows) {
    first_ = first;
    rows_ = rows;
  }

  void observe(Observed what, int layer, int64_t rows, int64_t width, const float* data) override {
    if (rows != sequences_ * rows_ || layer < 0) return;  // a draft of the MTP head
    Tensor& tensor = tensors_[{what, layer}];
    tensor.width = width;
    tensor.values.resize(static_cast<size_t>(sequences_ * tokens_ * width));
    for (int64_t s = 0; s < sequences_; ++s)
      std::copy_n(data + s * rows_ * width, rows_ * width,
                  tensor.values.begin() + (s * tokens_ + first_) * width);
  }

  const Tensor& get(Observed what, int layer = 0) const {
    const auto found = tensors_.find({what, layer});
    QNEXT_CHECK(found != tensors_.end(), "nothing observed, layer {}", layer);
    return found->second;
  }

 private:
  int64_t sequences_, tokens_, first_ = 0, rows_ = 0;
  std::map<std::pair<Observed, int>, Tensor> tensors_;
};

class Verifier {
 public:
  Verifier(backend::Backend& backend, const SafetensorsFile& vectors, const VerifyOptions& options)
      : backend_(backend), config_(backend.config()), vectors_(vectors), options_(options) {}

  std::vector<VerifyCheck> run() {
    if (vectors_.find("input_ids")) {
      verify_batch();
    } else {
      for (int i = 0; vectors_.find(fmt::format("{}.input_ids", i)); ++i)
        verify_prompt(fmt::format("{}.", i));
    }
    if (checks_.empty())
      fail("{}: no vectors here; expected input_ids or 0.input_ids and what belongs to them",
           vectors_.path());
    return std::move(checks_);
  }

 private:
  // --- comparing -----------------------------------------------------------------------------

  // The first `rows` rows of what was observed against a stored tensor, if it is there. `leading`
  // is the shape that the stored one must have before its last dimension.
  void compare(const std::string& name, const Collector::Tensor& found, int64_t rows) {
    const StoredTensor* stored = vectors_.find(name);
    if (!stored) return;
    compare(name, *stored, found.values.data(), rows, found.width);
  }

  void compare(const std::string& name, const StoredTensor& stored, const float* found,
               int64_t rows, int64_t width) {
    if (stored.shape.empty() || stored.shape.back() != width || stored.elements() != rows * width)
      fail("{}: {} has shape {}, but this model gives {} rows of {}", vectors_.path(), name,
           shape_text(stored.shape), rows, width);
    std::vector<float> expected(static_cast<size_t>(stored.elements()));
    convert_to_float(stored.dtype, stored.data, expected.data(), expected.size());
    VerifyCheck check{.what = name};
    for (size_t i = 0; i < expected.size(); ++i) {
      const double error = std::abs(static_cast<double>(found[i]) - expected[i]);
      // Written so that a NaN stays.
      if (!(error <= check.largest_error)) check.largest_error = error;
      check.scale = std::max(check.scale, std::abs(static_cast<double>(expected[i])));
    }
    check.passed = check.relative_error() <= options_.tolerance;
    checks_.push_back(check);
  }

  void compare_tokens(const std::string& name, std::span<const int32_t> found,
                      std::span<const int32_t> expected) {
    VerifyCheck check{.what = name};
    check.tokens = static_cast<int64_t>(expected.size());
    for (size_t i = 0; i < expected.size(); ++i) check.tokens_equal += found[i] == expected[i];
    check.passed = check.tokens_equal == check.tokens;
    checks_.push_back(check);
  }

  // --- running -------------------------------------------------------------------------------

  void reserve(int64_t sequences, int64_t positions) {
    const int64_t page_tokens = backend_.capabilities().page_tokens;
    pages_each_ = (positions + page_tokens - 1) / page_tokens;
    backend_.reserve({static_cast<int32_t>(sequences * pages_each_),
                      static_cast<int32_t>(sequences),
                      static_cast<int32_t>(sequences * std::min(options_.chunk, positions))});
    pages_.resize(static_cast<size_t>(sequences * pages_each_));
    std::iota(pages_.begin(), pages_.end(), 0);
  }

  // One step of `sequences` sequences, `rows` rows each from position `first`; tokens [B, T].
  std::vector<backend::SequenceResult> step(std::span<const int32_t> tokens, int64_t sequences,
                                            int64_t first, int64_t rows, bool draw, float* logits) {
    const int64_t length = static_cast<int64_t>(tokens.size()) / sequences;
    backend::Batch batch;
    std::vector<std::vector<int32_t>> outputs(static_cast<size_t>(sequences));
    for (int64_t s = 0; s < sequences; ++s) {
      std::vector<int32_t>& state_out = outputs[static_cast<size_t>(s)];
      state_out.assign(static_cast<size_t>(rows), backend::no_slot);
      state_out.back() = static_cast<int32_t>(s);
      backend::SequenceStep sequence;
      sequence.tokens =
          tokens.subspan(static_cast<size_t>(s * length + first), static_cast<size_t>(rows));
      sequence.first_position = first;
      sequence.pages = std::span(pages_).subspan(static_cast<size_t>(s * pages_each_),
                                                 static_cast<size_t>(pages_each_));
      sequence.state_in = first == 0 ? backend::no_slot : static_cast<int32_t>(s);
      sequence.state_out = state_out;
      sequence.draw = draw;
      sequence.sampling = &greedy_;
      sequence.counts = &no_counts_;
      sequence.mtp = backend_.capabilities().has_mtp;
      // What follows the last row of all is unknown; the head's output there is not compared.
      sequence.next_token =
          first + rows < length ? tokens[static_cast<size_t>(s * length + first + rows)] : 0;
      sequence.logits = logits;
      batch.sequences.push_back(sequence);
    }
    auto results = backend_.step(batch);
    for (const backend::SequenceResult& result : results)
      if (result.error) fail("{}", *result.error);
    return results;
  }

  // All of tokens [B, T] through the model, in chunks; everything inner into the collector.
  Collector prefill(std::span<const int32_t> tokens, int64_t sequences,
                    std::vector<backend::SequenceResult>& last) {
    const int64_t length = static_cast<int64_t>(tokens.size()) / sequences;
    Collector collector(sequences, length);
    backend_.observe(&collector);
    for (int64_t first = 0; first < length; first += options_.chunk) {
      const int64_t rows = std::min(options_.chunk, length - first);
      collector.expect(first, rows);
      last = step(tokens, sequences, first, rows, first + rows == length, nullptr);
    }
    backend_.observe(nullptr);
    return collector;
  }

  // Continues sequence 0, whose first `length` positions are in place, one token at a time.
  // `token` is the one at position `length`. logits: [count, V] of every drawn token but `token`.
  std::vector<int32_t> decode(int32_t token, int64_t length, int64_t count,
                              std::vector<float>& logits) {
    std::vector<int32_t> tokens{token};
    std::vector<float> row(static_cast<size_t>(config_.vocabulary_size));
    while (static_cast<int64_t>(tokens.size()) < count) {
      const int64_t position = length + static_cast<int64_t>(tokens.size()) - 1;
      backend::Batch batch;
      const int32_t slot = 0;
      backend::SequenceStep sequence;
      sequence.tokens = std::span(tokens).last(1);
      sequence.first_position = position;
      sequence.pages = std::span(pages_).first(static_cast<size_t>(pages_each_));
      sequence.state_in = slot;
      sequence.state_out = std::span(&slot, 1);
      sequence.draw = true;
      sequence.sampling = &greedy_;
      sequence.counts = &no_counts_;
      sequence.logits = row.data();
      batch.sequences.push_back(sequence);
      const auto result = backend_.step(batch);
      if (result[0].error) fail("{}", *result[0].error);
      logits.insert(logits.end(), row.begin(), row.end());
      tokens.push_back(result[0].tokens[0].token);
    }
    return tokens;
  }

  // --- the two kinds of file -----------------------------------------------------------------

  void verify_batch() {
    const std::vector<int32_t> tokens = read_tokens(vectors_, "input_ids", config_.vocabulary_size);
    const int64_t sequences = vectors_.get("input_ids").shape[0];
    const int64_t length = vectors_.get("input_ids").shape[1];
    const StoredTensor* greedy = vectors_.find("greedy_tokens");
    reserve(sequences, length + (greedy ? greedy->elements() : 0));
    std::vector<backend::SequenceResult> results;
    const Collector seen = prefill(tokens, sequences, results);

    const auto layers = static_cast<int>(config_.layers.size());
    for (int n = 0; n <= layers; ++n)
      compare(fmt::format("hidden_states.{}", n), seen.get(Observed::residual, n),
              sequences * length);
    compare("final_hidden", seen.get(Observed::residual, layers), sequences * length);
    compare_router_logits(seen, sequences * length);
    compare("logits", seen.get(Observed::logits), sequences * length);
    if (backend_.capabilities().has_mtp) {
      compare("mtp_hidden", seen.get(Observed::mtp_hidden), length - 1);
      compare("mtp_logits", seen.get(Observed::mtp_logits), length - 1);
    }
    if (greedy) verify_greedy(results[0].tokens[0].token, seen, length);
  }

  // router_logits.N counts either layers or only those that have a router.
  void compare_router_logits(const Collector& seen, int64_t rows) {
    std::vector<int> sparse;
    bool by_layer = true;
    int stored = 0;
    for (int i = 0; i < static_cast<int>(config_.layers.size()); ++i) {
      const bool found = vectors_.find(fmt::format("router_logits.{}", i)) != nullptr;
      stored += found;
      if (config_.layers[static_cast<size_t>(i)].mlp == Mlp::sparse)
        sparse.push_back(i);
      else
        by_layer &= !found;
    }
    by_layer &= stored == 0 ||
                vectors_.find(fmt::format("router_logits.{}", sparse.empty() ? 0 : sparse.back()));
    for (size_t k = 0; k < sparse.size(); ++k)
      compare(fmt::format("router_logits.{}", by_layer ? sparse[k] : static_cast<int>(k)),
              seen.get(Observed::router_logits, sparse[k]), rows);
  }

  void verify_greedy(int32_t first_token, const Collector& seen, int64_t length) {
    const std::vector<int32_t> expected =
        read_tokens(vectors_, "greedy_tokens", config_.vocabulary_size);
    const auto count = static_cast<int64_t>(expected.size());
    const Collector::Tensor& prompt_logits = seen.get(Observed::logits);
    const auto last_row = prompt_logits.values.begin() + (length - 1) * prompt_logits.width;
    std::vector<float> logits(last_row, last_row + prompt_logits.width);
    compare_tokens("greedy_tokens", decode(first_token, length, count, logits), expected);
    if (const StoredTensor* stored = vectors_.find("greedy_logits"))
      compare("greedy_logits", *stored, logits.data(), count, config_.vocabulary_size);
  }

  void verify_prompt(const std::string& prefix) {
    const std::vector<int32_t> prompt =
        read_tokens(vectors_, prefix + "input_ids", config_.vocabulary_size);
    const auto length = static_cast<int64_t>(prompt.size());
    std::vector<int32_t> greedy;
    if (vectors_.find(prefix + "greedy"))
      greedy = read_tokens(vectors_, prefix + "greedy", config_.vocabulary_size);
    reserve(1, std::max<int64_t>(length, static_cast<int64_t>(greedy.size())));
    std::vector<backend::SequenceResult> results;
    const Collector seen = prefill(prompt, 1, results);
    compare(prefix + "logits", seen.get(Observed::logits), length);
    if (static_cast<int64_t>(greedy.size()) <= length) return;

    std::vector<float> logits;
    std::vector<int32_t> found = prompt;
    const auto more = decode(results[0].tokens[0].token, length,
                             static_cast<int64_t>(greedy.size()) - length, logits);
    found.insert(found.end(), more.begin(), more.end());
    compare_tokens(prefix + "greedy", found, greedy);
    if (backend_.capabilities().has_mtp && vectors_.find(prefix + "mtp_logits")) {
      const Collector whole = prefill(greedy, 1, results);
      compare(prefix + "mtp_logits", whole.get(Observed::mtp_logits),
              static_cast<int64_t>(greedy.size()) - 1);
    }
  }

  backend::Backend& backend_;
  const Config& config_;
  const SafetensorsFile& vectors_;
  const VerifyOptions& options_;
  const ops::SamplingParameters greedy_;
  const ops::TokenCounts no_counts_;
  std::vector<int32_t> pages_;
  int64_t pages_each_ = 0;
  std::vector<VerifyCheck> checks_;
};

}  // namespace

std::vector<VerifyCheck> verify(backend::Backend& backend, const SafetensorsFile& vectors,
                                const VerifyOptions& options) {
  return Verifier(backend, vectors, options).run();
}

}  // namespace qnext::app
