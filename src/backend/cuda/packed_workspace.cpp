#include "backend/cuda/packed_workspace.h"

#include <algorithm>

#include "backend/common/carver.h"
#include "backend/common/passes.h"
#include "backend/cuda/packed_shapes.h"
#include "ops/sampling/mask_cuda.h"

namespace qnext::backend::cuda {

namespace {

void carve_plain_delta(Carver& carver, PlainDelta& w, const Config& c, int64_t rows) {
  carver.take(w.qkvz, rows * 2 * (c.linear_key_width() + c.linear_value_width()));
  carver.take(w.conv_in, rows * c.linear_conv_channels());
  carver.take(w.conv_out, rows * c.linear_conv_channels());
  carver.take(w.z, rows * c.linear_value_width());
  carver.take(w.a, rows * c.linear_value_heads);
  carver.take(w.b, rows * c.linear_value_heads);
  carver.take(w.mixed, rows * c.linear_value_width());
}

void carve(Carver& carver, PackedWorkspace& w, const Config& c, const Reservation& reserved,
           bool has_mtp, ops::cuda::Activations activations) {
  const int64_t rows = reserved.rows;
  const int64_t heads_width = c.attention_heads * c.head_dim;
  const int64_t kv_width = c.kv_heads * c.head_dim;
  const int64_t slots = c.experts_per_token + 1;
  const int64_t answer_rows = std::min(rows, most_answer_pass_rows);
  w.rows = rows;
  w.hidden_stride = padded_columns(c.hidden_size);
  w.projected_stride = padded_columns(std::max(
      2 * heads_width + 2 * kv_width, 2 * c.linear_key_width() + 2 * c.linear_value_width()));
  w.queries_stride = padded_columns(heads_width);
  w.mixed_stride = padded_columns(std::max(heads_width, c.linear_value_width()));
  w.mtp_stride = padded_columns(2 * c.hidden_size);
  carver.take(w.x, rows * c.hidden_size);
  carver.take(w.normed, rows * w.hidden_stride);
  carver.take(w.final_hidden[0], rows * c.hidden_size);
  carver.take(w.final_hidden[1], c.hidden_size);
  carver.take(w.projected, rows * w.projected_stride);
  carver.take(w.ba, rows * 2 * c.linear_value_heads);
  carver.take(w.queries, rows * w.queries_stride);
  carver.take(w.mixed, rows * w.mixed_stride);
  if (activations == ops::cuda::Activations::f8) {
    const int64_t widest =
        std::max({w.hidden_stride, w.mixed_stride, has_mtp ? w.mtp_stride : int64_t{0}});
    carver.take(w.rounded.values, rows * widest);
    carver.take(w.rounded.unit, rows + 3);
  }
  carver.take(w.cosine, rows * c.rope.rotary_dims / 2);
  carver.take(w.sine, rows * c.rope.rotary_dims / 2);
  carver.take(w.router_logits, rows * c.experts);
  carver.take(w.shared_gate, rows);
  carver.take(w.expert_ids, rows * slots);
  carver.take(w.expert_weights, rows * slots);
  carver.take_bytes(w.experts, std::max(answer_experts_bytes(c, answer_rows),
                                        prompt_experts_bytes(c, rows, activations)));
  carver.take(w.expert_turns, 1);
  if (has_fast_delta(c))
    carver.take_bytes(w.delta, delta_bytes(c, reserved));
  else
    carve_plain_delta(carver, w.plain_delta, c, rows);
  carver.take(w.chosen, (static_cast<int64_t>(c.layers.size()) + 1) * (c.experts + 1));
  carver.take(w.mtp_input, has_mtp ? rows * w.mtp_stride : 0);
  for (float*& hidden : w.mtp_hidden) carver.take(hidden, has_mtp ? rows * c.hidden_size : 0);
  carver.take(w.logits_input, packed_logits_rows * w.hidden_stride);
  carver.take(w.logits, packed_logits_rows * c.vocabulary_size);
  carver.take(w.logits_from, packed_logits_rows);
  carver.take(w.samplers, packed_logits_rows);
  carver.take(w.drawn, std::max(rows, packed_logits_rows));
  carver.take(w.masks, packed_logits_rows * ops::cuda::mask_words(c.vocabulary_size));
  carver.take(w.masked_rows, packed_logits_rows);
}

}  // namespace

PackedWorkspace::PackedWorkspace(const Config& config, const Reservation& reserved, bool has_mtp,
                                 ops::cuda::Activations activations)
    : memory_(bytes(config, reserved, has_mtp, activations),
              "the workspace; use a smaller --prefill-chunk") {
  zero_now(memory_.data(), memory_.size());
  Carver carver(memory_.data());
  carve(carver, *this, config, reserved, has_mtp, activations);
}

size_t PackedWorkspace::bytes(const Config& config, const Reservation& reserved, bool has_mtp,
                              ops::cuda::Activations activations) {
  PackedWorkspace scratch;
  Carver carver(nullptr);
  carve(carver, scratch, config, reserved, has_mtp, activations);
  return carver.used();
}

}  // namespace qnext::backend::cuda
