#include "backend/cuda/eager_workspace.h"

#include <algorithm>

#include "backend/common/carver.h"
#include "backend/common/passes.h"
#include "ops/moe/moe_cuda.h"

namespace qnext::backend::cuda {

namespace {

void carve(Carver& carver, EagerWorkspace& w, const Config& c, int64_t rows, bool has_mtp) {
  const int64_t heads_width = c.attention_heads * c.head_dim;
  const int64_t kv_width = c.kv_heads * c.head_dim;
  const int64_t value_width = c.linear_value_width();
  const int64_t slots = c.experts_per_token + 1;
  const int64_t widest_expert = std::max({c.expert_width, c.shared_expert_width, c.dense_width});
  w.rows = rows;
  carver.take(w.x, rows * c.hidden_size);
  carver.take(w.normed, rows * c.hidden_size);
  carver.take(w.final_hidden, rows * c.hidden_size);
  carver.take(w.projected,
              rows * std::max(2 * heads_width, 2 * c.linear_key_width() + 2 * value_width));
  carver.take(w.keys, rows * kv_width);
  carver.take(w.values, rows * kv_width);
  carver.take(w.ba, rows * 2 * c.linear_value_heads);
  carver.take(w.a, rows * c.linear_value_heads);
  carver.take(w.b, rows * c.linear_value_heads);
  carver.take(w.conv_in, rows * c.linear_conv_channels());
  carver.take(w.conv_out, rows * c.linear_conv_channels());
  carver.take(w.z, rows * value_width);
  carver.take(w.mixed, rows * std::max(heads_width, value_width));
  carver.take(w.cosine, rows * c.rope.rotary_dims / 2);
  carver.take(w.sine, rows * c.rope.rotary_dims / 2);
  carver.take(w.router_logits, rows * c.experts);
  carver.take(w.shared_gate, rows);
  carver.take(w.expert_ids, rows * slots);
  carver.take(w.expert_weights, rows * slots);
  carver.take_bytes(w.experts, ops::cuda::gated_experts_workspace(rows, slots, widest_expert));
  carver.take(w.chosen, (static_cast<int64_t>(c.layers.size()) + 1) * (c.experts + 1));
  carver.take(w.mtp_input, has_mtp ? rows * 2 * c.hidden_size : 0);
  carver.take(w.mtp_hidden, has_mtp ? rows * c.hidden_size : 0);
  carver.take(w.logits, logits_rows * c.vocabulary_size);
  carver.take(w.logits_from, logits_rows);
}

}  // namespace

EagerWorkspace::EagerWorkspace(const Config& config, int64_t rows_, bool has_mtp)
    : memory_(bytes(config, rows_, has_mtp), "the workspace; use a smaller --prefill-chunk") {
  Carver carver(memory_.data());
  carve(carver, *this, config, rows_, has_mtp);
}

size_t EagerWorkspace::bytes(const Config& config, int64_t rows, bool has_mtp) {
  EagerWorkspace scratch;
  Carver carver(nullptr);
  carve(carver, scratch, config, rows, has_mtp);
  return carver.used();
}

}  // namespace qnext::backend::cuda
