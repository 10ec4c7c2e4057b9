// Judging a backend by reference vectors: the numbers another implementation gave for the same
// checkpoint and tokens.
//
// A vectors file holds either one batch
//   input_ids [B, T], hidden_states.N [B, T, H], router_logits.N [B * T, experts],
//   logits [B, T, V], greedy_tokens [1, G] and greedy_logits [G, V] (row 0 continued),
//   mtp_hidden [1, T - 1, H], mtp_logits [1, T - 1, V] (row 0)
// or several prompts i = 0, 1, ...
//   i.input_ids [1, T], i.logits [1, T, V], i.greedy [1, T + G] (prompt and continuation),
//   i.mtp_logits [1, T + G - 1, V]
// Every tensor but input_ids may be absent; what is there is checked.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "app/judgement.h"
#include "backend/step.h"
#include "checkpoint/safetensors.h"

namespace qnext::app {

struct VerifyCheck {
  std::string what;          // "hidden_states.3", "0.greedy"
  double largest_error = 0;  // absolute
  double scale = 0;          // largest magnitude of the reference
  // Of a backend that rounds its activations.
  std::optional<RowJudgement> rows = {};
  // Of drawn tokens: how many agree, of how many; and how many differ where two logits are so near
  // to one another that the tolerance explains the other choice.
  int64_t tokens_equal = 0;
  int64_t near_ties = 0;
  int64_t tokens = 0;
  bool passed = false;

  bool is_tokens() const { return tokens > 0; }
  double relative_error() const { return scale > 0 ? largest_error / scale : largest_error; }
};

struct VerifyOptions {
  // Largest error of a tensor over its largest reference magnitude. Absent: what the backend's
  // roundings explain (Capabilities::relative_error); where this is more than exact_error, rows are
  // judged one by one (judgement.h).
  std::optional<double> tolerance = {};
  // Rows a sequence is given at a time, so that splits are judged too.
  int64_t chunk = 512;
};

// Reserves what it needs of the backend. Throws Error where the vectors do not fit the model: a
// shape, a token beyond the vocabulary, no input_ids at all.
std::vector<VerifyCheck> verify(backend::Backend& backend, const SafetensorsFile& vectors,
                                const VerifyOptions& options);

}  // namespace qnext::app
