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
      : backend_(backend),
        config_(backend.config()),
        vectors_(vectors),
        options_(options),
        tolerance_(options.tolerance.value_or(backend.capabilities().relative_error)),
        by_rows_(!options.tolerance && tolerance_ > exact_error) {}

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

  // Where in the model a tensor comes from: layers passed, a mixer alone counting half, and the
  // experts that its rows met there.
  struct Place {
    double layers = 0;
    const DivertedRows& experts;
  };

  // The first `rows` rows of what was observed against a stored tensor, if it is there.
  void compare(const std::string& name, const Collector::Tensor& found, int64_t rows,
               const Place& place) {
    if (vectors_.find(name)) compare(name, found.values.data(), rows, found.width, place);
  }

  void compare(const std::string& name, const float* found, int64_t rows, int64_t width,
               const Place& place) {
    const std::vector<float> expected = read_values(name, rows, width);
    VerifyCheck check{.what = name};
    for (const float value : expected)
      check.scale = std::max(check.scale, std::abs(static_cast<double>(value)));
    std::vector<double> row_errors(static_cast<size_t>(rows), 0.0);
    for (size_t i = 0; i < expected.size(); ++i) {
      const double error = std::abs(static_cast<double>(found[i]) - expected[i]);
      double& of_row = row_errors[i / static_cast<size_t>(width)];
      // Written so that a NaN stays.
      if (!(error <= check.largest_error)) check.largest_error = error;
      if (!(error <= of_row)) of_row = error;
    }
    check.passed = check.relative_error() <= tolerance_;
    if (by_rows_) {
      for (double& error : row_errors) error /= check.scale > 0 ? check.scale : 1;
      const double layers = std::max(place.layers, 0.5);
      check.rows = judge_rows(row_errors, place.experts, layers,
                              tolerance_after(layers, std::ssize(config_.layers), tolerance_));
      check.passed = check.rows->passed;
    }
    checks_.push_back(check);
  }

  // A stored tensor of so many rows in all.
  std::vector<float> read_values(const std::string& name, int64_t rows, int64_t width) const {
    const StoredTensor& stored = vectors_.get(name);
    if (stored.shape.empty() || stored.shape.back() != width || stored.elements() != rows * width)
      fail("{}: {} has shape {}, but this model gives {} rows of {}", vectors_.path(), name,
           shape_text(stored.shape), rows, width);
    std::vector<float> values(static_cast<size_t>(stored.elements()));
    convert_to_float(stored.dtype, stored.data, values.data(), values.size());
    return values;
  }

  // Tokens drawn from logits [tokens, V] that may each err by the tolerance.
  void compare_tokens(const std::string& name, std::span<const int32_t> found,
                      std::span<const int32_t> expected, std::span<const float> logits) {
    VerifyCheck check{.what = name};
    check.tokens = static_cast<int64_t>(expected.size());
    for (const float logit : logits)
      check.scale = std::max(check.scale, std::abs(static_cast<double>(logit)));
    const float* row = logits.data();
    for (size_t i = 0; i < expected.size(); ++i, row += config_.vocabulary_size) {
      const double margin = row[found[i]] - row[expected[i]];
      check.tokens_equal += found[i] == expected[i];
      check.near_ties += found[i] != expected[i] && margin <= 2 * tolerance_ * check.scale;
    }
    const int64_t excused = by_rows_ ? tokens_excused(check.tokens) : 0;
    check.passed = check.tokens_equal + check.near_ties + excused >= check.tokens;
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

  // Continues sequence 0, whose first `length` positions are in place, with the tokens that the
  // reference chose: a near tie then spoils no later row. tokens: those drawn, the first of them
  // given; logits: [expected, V], the first row given.
  void decode(std::span<const int32_t> expected, int64_t length, std::vector<int32_t>& tokens,
              std::vector<float>& logits) {
    std::vector<float> row(static_cast<size_t>(config_.vocabulary_size));
    for (size_t i = 0; i + 1 < expected.size(); ++i) {
      backend::Batch batch;
      const int32_t slot = 0;
      backend::SequenceStep sequence;
      sequence.tokens = expected.subspan(i, 1);
      sequence.first_position = length + static_cast<int64_t>(i);
      sequence.pages = std::span(pages_).first(static_cast<size_t>(pages_each_));
      sequence.state_in = slot;
      sequence.state_out = std::span(&slot, 1);
      sequence.draw = true;
      sequence.answer = true;
      sequence.sampling = &greedy_;
      sequence.counts = &no_counts_;
      sequence.logits = row.data();
      batch.sequences.push_back(sequence);
      const auto result = backend_.step(batch);
      if (result[0].error) fail("{}", *result[0].error);
      logits.insert(logits.end(), row.begin(), row.end());
      tokens.push_back(result[0].tokens[0].token);
    }
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
    const int64_t rows = sequences * length;
    const std::vector<std::string> routers = router_names();
    const std::vector<DivertedRows> experts = experts_before(seen, routers, rows);
    const Place end{static_cast<double>(layers), experts.back()};
    for (int n = 0; n <= layers; ++n)
      compare(fmt::format("hidden_states.{}", n), seen.get(Observed::residual, n), rows,
              {static_cast<double>(n), experts[static_cast<size_t>(n)]});
    compare("final_hidden", seen.get(Observed::residual, layers), rows, end);
    for (int i = 0; i < layers; ++i)
      if (const std::string& name = routers[static_cast<size_t>(i)]; !name.empty())
        compare(name, seen.get(Observed::router_logits, i), rows,
                {i + 0.5, experts[static_cast<size_t>(i)]});
    compare("logits", seen.get(Observed::logits), rows, end);
    const DivertedRows unknown = unknown_experts(rows);
    if (backend_.capabilities().has_mtp) {
      const Place mtp{layers + 1.0, unknown};
      compare("mtp_hidden", seen.get(Observed::mtp_hidden), length - 1, mtp);
      compare("mtp_logits", seen.get(Observed::mtp_logits), length - 1, mtp);
    }
    if (!greedy) return;
    const std::vector<int32_t> expected =
        read_tokens(vectors_, "greedy_tokens", config_.vocabulary_size);
    const std::vector<float> logits =
        verify_greedy("greedy_tokens", expected, results[0].tokens[0].token, seen, length);
    if (vectors_.find("greedy_logits"))
      compare("greedy_logits", logits.data(), std::ssize(expected), config_.vocabulary_size,
              {end.layers, unknown});
  }

  // By layer, the name of its router's logits in the file; empty where there are none.
  // router_logits.N counts either layers or only those that have a router.
  std::vector<std::string> router_names() const {
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
    std::vector<std::string> names(config_.layers.size());
    for (size_t k = 0; k < sparse.size(); ++k) {
      const std::string name =
          fmt::format("router_logits.{}", by_layer ? sparse[k] : static_cast<int>(k));
      if (vectors_.find(name)) names[static_cast<size_t>(sparse[k])] = name;
    }
    return names;
  }

  // For each layer, and after the last, which rows met other experts before it.
  std::vector<DivertedRows> experts_before(const Collector& seen,
                                           std::span<const std::string> routers,
                                           int64_t rows) const {
    DivertedRows now(rows);
    std::vector<DivertedRows> out{now};
    for (size_t i = 0; i < routers.size(); ++i) {
      if (!routers[i].empty()) {
        const Collector::Tensor& found = seen.get(Observed::router_logits, static_cast<int>(i));
        const double layers = static_cast<double>(i) + 0.5;
        now.pass(found.values, read_values(routers[i], rows, found.width),
                 config_.experts_per_token,
                 tolerance_after(layers, std::ssize(config_.layers), tolerance_));
      } else if (config_.layers[i].mlp == Mlp::sparse) {
        now.pass_unknown();
      }
      out.push_back(now);
    }
    return out;
  }

  // Rows past a router that no file shows: the MTP head's, continuations, whole prompts.
  static DivertedRows unknown_experts(int64_t rows) {
    DivertedRows experts(rows);
    experts.pass_unknown();
    return experts;
  }

  // The reference's continuation of sequence 0, whose prompt has run. Returns the logits it was
  // drawn from.
  std::vector<float> verify_greedy(const std::string& name, std::span<const int32_t> expected,
                                   int32_t first_token, const Collector& seen, int64_t length) {
    const Collector::Tensor& prompt_logits = seen.get(Observed::logits);
    const auto last_row = prompt_logits.values.begin() + (length - 1) * prompt_logits.width;
    std::vector<float> logits(last_row, last_row + prompt_logits.width);
    std::vector<int32_t> tokens{first_token};
    decode(expected, length, tokens, logits);
    compare_tokens(name, tokens, expected, logits);
    return logits;
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
    const DivertedRows unknown = unknown_experts(std::max(length, std::ssize(greedy)));
    const auto layers = static_cast<double>(config_.layers.size());
    compare(prefix + "logits", seen.get(Observed::logits), length, {layers, unknown});
    if (static_cast<int64_t>(greedy.size()) <= length) return;

    verify_greedy(prefix + "greedy", std::span(greedy).subspan(static_cast<size_t>(length)),
                  results[0].tokens[0].token, seen, length);
    if (backend_.capabilities().has_mtp && vectors_.find(prefix + "mtp_logits")) {
      const Collector whole = prefill(greedy, 1, results);
      compare(prefix + "mtp_logits", whole.get(Observed::mtp_logits), std::ssize(greedy) - 1,
              {layers + 1, unknown});
    }
  }

  backend::Backend& backend_;
  const Config& config_;
  const SafetensorsFile& vectors_;
  const VerifyOptions& options_;
  const double tolerance_;
  const bool by_rows_;  // else by the largest error
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
