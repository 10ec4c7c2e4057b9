#include "backend/cpu/forward.h"

#include <algorithm>
#include <cmath>

#include "backend/common/rope_table.h"
#include "backend/cpu/shown_inputs.h"
#include "base/error.h"
#include "ops/activation/activation.h"
#include "ops/moe/moe.h"
#include "ops/rms_norm/rms_norm.h"

namespace qnext::backend::cpu {

Forward::Forward(const Config& config, const ModelWeights& weights, ThreadPool& pool)
    : config_(config), weights_(weights), pool_(pool), rope_(rope_table(config)) {}

void Forward::attach(Workspace& workspace, KvPages& pages, StateSlots& slots) {
  w_ = &workspace;
  pages_ = &pages;
  slots_ = &slots;
}

// --- passes ----------------------------------------------------------------------------------

void Forward::run_model(std::span<const int32_t> tokens, std::span<const RowSequence> sequences) {
  clock_.stage("embedding and angles");
  begin(static_cast<int64_t>(tokens.size()), sequences);
  embed(tokens, w_->x, config_.hidden_size);
  int64_t kv_index = 0, delta_index = 0;
  for (size_t i = 0; i < weights_.layers.size(); ++i) {
    if (observer_)
      observer_->observe(Observed::residual, static_cast<int>(i), rows_, config_.hidden_size,
                         w_->x);
    layer(weights_.layers[i], static_cast<int>(i), kv_index, delta_index);
    ++(config_.layers[i].mixer == Mixer::full_attention ? kv_index : delta_index);
  }
  clock_.stage("norms");
  norm(w_->x, weights_.norm, w_->final_hidden);
  if (observer_)
    observer_->observe(Observed::residual, static_cast<int>(weights_.layers.size()), rows_,
                       config_.hidden_size, w_->final_hidden);
  if (input_observer_) {
    const std::string lm_head =
        config_.tie_word_embeddings ? "model.embed_tokens.weight" : "lm_head.weight";
    input_observer_->inputs({&lm_head, 1}, rows_, config_.hidden_size, w_->final_hidden);
  }
}

void Forward::run_mtp(std::span<const int32_t> next_tokens, Hidden source,
                      std::span<const int64_t> hidden_rows,
                      std::span<const RowSequence> sequences) {
  combine_mtp_input(next_tokens, source, hidden_rows, sequences);
  const MtpWeights& mtp = *weights_.mtp;
  layer(mtp.layer, -1, kv_layers(config_, false), 0);
  norm(w_->x, mtp.norm, w_->mtp_hidden);
}

void Forward::fill_mtp_cache(std::span<const int32_t> next_tokens,
                             std::span<const int64_t> hidden_rows,
                             std::span<const RowSequence> sequences) {
  if (input_observer_) return run_mtp(next_tokens, Hidden::model, hidden_rows, sequences);
  combine_mtp_input(next_tokens, Hidden::model, hidden_rows, sequences);
  const LayerWeights& layer = weights_.mtp->layer;
  const auto& attention = std::get<AttentionWeights>(layer.mixer);
  norm(w_->x, layer.input_norm, w_->normed);
  project(w_->normed, config_.hidden_size, {&attention.k, &attention.v}, {w_->keys, w_->values});
  write_cache(attention, pages_->layer(kv_layers(config_, false)));
}

void Forward::combine_mtp_input(std::span<const int32_t> next_tokens, Hidden source,
                                std::span<const int64_t> hidden_rows,
                                std::span<const RowSequence> sequences) {
  clock_.stage("mtp fc");
  const MtpWeights& mtp = *weights_.mtp;
  const int64_t width = config_.hidden_size;
  const auto eps = static_cast<float>(config_.rms_norm_eps);
  begin(static_cast<int64_t>(next_tokens.size()), sequences);
  embed(next_tokens, w_->mtp_input, 2 * width);
  pool_.parallel_for(rows_, 4, [&](int64_t first, int64_t last) {
    for (int64_t r = first; r < last; ++r) {
      float* both = w_->mtp_input + r * 2 * width;
      ops::rms_norm_row(both, mtp.embedding_norm.data(), eps, width, both);
      ops::rms_norm_row(hidden_row(source, hidden_rows[static_cast<size_t>(r)]),
                        mtp.hidden_norm.data(), eps, width, both + width);
    }
  });
  if (input_observer_) {
    const std::string fc = "mtp.fc.weight";
    input_observer_->inputs({&fc, 1}, rows_, 2 * width, w_->mtp_input);
  }
  project(w_->mtp_input, 2 * width, {&mtp.fc}, {w_->x});
}

void Forward::copy_hidden(int64_t first, int64_t rows, float* out) {
  std::copy_n(hidden_row(Hidden::model, first), rows * config_.hidden_size, out);
}

const float* Forward::lm_head(Hidden source, std::span<const int64_t> rows) {
  clock_.stage("lm_head");
  const int64_t width = config_.hidden_size;
  const auto count = static_cast<int64_t>(rows.size());
  for (int64_t i = 0; i < count; ++i)
    std::copy_n(hidden_row(source, rows[static_cast<size_t>(i)]), width, w_->normed + i * width);
  ops::Activations x{w_->normed, count, width, width, nullptr};
  if (is_block_quantized(weights_.lm_head.dtype))
    x = ops::quantize_activations(pool_, x, w_->quantized);
  ops::matmul(pool_, x, weights_.lm_head, w_->logits, config_.vocabulary_size);
  traffic_.weights += ops::weight_bytes(weights_.lm_head);
  clock_.stage("draws");
  return w_->logits;
}

// --- pieces ----------------------------------------------------------------------------------

void Forward::begin(int64_t rows, std::span<const RowSequence> sequences) {
  QNEXT_CHECK(w_ && rows <= w_->rows, "{} rows", rows);
  rows_ = rows;
  sequences_ = sequences;
  attention_sequences_.clear();
  for (const RowSequence& s : sequences)
    attention_sequences_.push_back({s.first_row, s.rows, s.first_position, s.pages.data()});
  const size_t needed =
      ops::attention_workspace(attention_shape(config_), attention_sequences_, pool_.size());
  if (needed > attention_workspace_.size())
    attention_workspace_ = AlignedBuffer(needed, "attention workspace");
  const int64_t half = rope_.rotary_dims / 2;
  for (const RowSequence& s : sequences)
    for (int64_t r = 0; r < s.rows; ++r)
      ops::rope_angles(rope_, s.first_position + r, w_->cosine + (s.first_row + r) * half,
                       w_->sine + (s.first_row + r) * half);
}

void Forward::embed(std::span<const int32_t> tokens, float* out, int64_t stride) {
  const ops::WeightMatrix& table = weights_.embedding;
  const auto width = static_cast<size_t>(table.columns);
  const size_t row_bytes = dtype_bytes(table.dtype, width);
  for (size_t r = 0; r < tokens.size(); ++r) {
    const auto* row =
        static_cast<const std::byte*>(table.data) + static_cast<size_t>(tokens[r]) * row_bytes;
    convert_to_float(table.dtype, row, out + static_cast<int64_t>(r) * stride, width);
  }
}

void Forward::norm(const float* x, Vector weight, float* y) {
  ops::rms_norm(pool_, x, config_.hidden_size, weight.data(),
                static_cast<float>(config_.rms_norm_eps), rows_, config_.hidden_size, y,
                config_.hidden_size);
}

// Several projections of the same rows; outputs are dense.
void Forward::project(const float* x, int64_t columns, std::initializer_list<const Linear*> linears,
                      std::initializer_list<float*> outputs, bool accumulate) {
  ops::Activations rows{x, rows_, columns, columns, nullptr};
  std::vector<ops::MatmulTask> tasks;
  bool quantized = false;
  auto output = outputs.begin();
  for (const Linear* linear : linears) {
    tasks.push_back({&linear->weight, *output++, linear->weight.rows, accumulate});
    quantized |= is_block_quantized(linear->weight.dtype);
    traffic_.weights += ops::weight_bytes(linear->weight);
  }
  if (quantized) rows = ops::quantize_activations(pool_, rows, w_->quantized);
  ops::matmul_many(pool_, rows, tasks.data(), static_cast<int>(tasks.size()));
  output = outputs.begin();
  for (const Linear* linear : linears) {
    float* y = *output++;
    if (linear->bias.empty()) continue;
    const auto width = static_cast<int64_t>(linear->bias.size());
    for (int64_t i = 0; i < rows_ * width; ++i)
      y[i] += linear->bias[static_cast<size_t>(i % width)];
  }
}

void Forward::show(int index, std::initializer_list<std::string_view> matrices, const float* x,
                   int64_t columns) {
  if (input_observer_) show_inputs(*input_observer_, index, matrices, x, rows_, columns);
}

// x += mixer(norm(x)); x += mlp(norm(x))
void Forward::layer(const LayerWeights& weights, int index, int64_t kv_index, int64_t delta_index) {
  clock_.stage("norms");
  norm(w_->x, weights.input_norm, w_->normed);
  if (const auto* attention = std::get_if<AttentionWeights>(&weights.mixer))
    gated_attention(*attention, index, kv_index);
  else
    gated_delta_net(std::get<GatedDeltaWeights>(weights.mixer), index, delta_index);
  clock_.stage("norms");
  norm(w_->x, weights.post_attention_norm, w_->normed);
  mlp(weights.mlp, index);
}

// --- gated attention -------------------------------------------------------------------------

void Forward::gated_attention(const AttentionWeights& weights, int index, int64_t kv_index) {
  const int64_t d = config_.head_dim, heads_width = config_.attention_heads * d;
  const int64_t kv_width = config_.kv_heads * d;
  const ops::AttentionShape shape = attention_shape(config_);
  const ops::KvCache cache = pages_->layer(kv_index);

  show(index, {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"}, w_->normed,
       config_.hidden_size);
  clock_.stage("attention q, k, v");
  project(w_->normed, config_.hidden_size, {&weights.q, &weights.k, &weights.v},
          {w_->projected, w_->keys, w_->values});
  clock_.stage("attention");
  prepare_heads(w_->projected, config_.attention_heads, 2 * d, weights.q_norm);
  write_cache(weights, cache);

  ops::AttentionInputs inputs;
  inputs.q = w_->projected;
  inputs.gate = w_->projected + d;
  inputs.q_stride = inputs.gate_stride = 2 * heads_width;
  inputs.q_head_stride = inputs.gate_head_stride = 2 * d;
  inputs.scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(d)));
  ops::attention(pool_, shape, cache, inputs, attention_sequences_, w_->mixed, heads_width,
                 attention_workspace_.data());
  show(index, {"self_attn.o_proj"}, w_->mixed, heads_width);
  clock_.stage("attention out");
  project(w_->mixed, heads_width, {&weights.o}, {w_->x}, true);

  const size_t position_bytes = dtype_bytes(cache.dtype, static_cast<size_t>(2 * kv_width));
  for (const RowSequence& s : sequences_)
    traffic_.kv += static_cast<size_t>(s.first_position + s.rows) * position_bytes;
}

// w_->keys, as projected, and w_->values.
void Forward::write_cache(const AttentionWeights& weights, const ops::KvCache& cache) {
  prepare_heads(w_->keys, config_.kv_heads, config_.head_dim, weights.k_norm);
  ops::kv_write(pool_, attention_shape(config_), cache, w_->keys, w_->values,
                config_.kv_heads * config_.head_dim, attention_sequences_);
}

// Norm and rotation of every row's heads, in place; `stride` from one head to the next.
void Forward::prepare_heads(float* heads, int64_t count, int64_t stride, Vector weight) {
  const int64_t d = config_.head_dim, half = rope_.rotary_dims / 2;
  const auto eps = static_cast<float>(config_.rms_norm_eps);
  pool_.parallel_for(rows_, 4, [&](int64_t first, int64_t last) {
    for (int64_t r = first; r < last; ++r) {
      for (int64_t h = 0; h < count; ++h) {
        float* head = heads + (r * count + h) * stride;
        ops::rms_norm_row(head, weight.data(), eps, d, head);
        ops::rope_row(head, w_->cosine + r * half, w_->sine + r * half, rope_.rotary_dims);
      }
    }
  });
}

// --- Gated DeltaNet --------------------------------------------------------------------------

void Forward::gated_delta_net(const GatedDeltaWeights& weights, int index, int64_t delta_index) {
  const int64_t value_heads = config_.linear_value_heads, dv = config_.linear_value_head_dim;
  const int64_t channels = config_.linear_conv_channels(), value_width = value_heads * dv;
  show(index, {"linear_attn.in_proj_qkvz", "linear_attn.in_proj_ba"}, w_->normed,
       config_.hidden_size);
  clock_.stage("delta q, k, v, z");
  project(w_->normed, config_.hidden_size, {&weights.qkvz, &weights.ba}, {w_->projected, w_->ba});
  clock_.stage("delta convolution");
  ungroup_projections();

  std::vector<ops::ConvSequence> conv_sequences;
  std::vector<ops::DeltaSequence> delta_sequences;
  std::vector<float*> conv_out(static_cast<size_t>(rows_)), delta_out(conv_out.size());
  for (const RowSequence& s : sequences_) {
    for (int64_t r = 0; r < s.rows; ++r) {
      const int32_t slot = s.state_out[static_cast<size_t>(r)];
      const auto row = static_cast<size_t>(s.first_row + r);
      conv_out[row] = slot == no_slot ? nullptr : slots_->conv(slot, delta_index);
      delta_out[row] = slot == no_slot ? nullptr : slots_->delta(slot, delta_index);
    }
    const bool fresh = s.state_in == no_slot;
    conv_sequences.push_back({s.first_row, s.rows,
                              fresh ? nullptr : slots_->conv(s.state_in, delta_index),
                              &conv_out[static_cast<size_t>(s.first_row)]});
    delta_sequences.push_back({s.first_row, s.rows,
                               fresh ? nullptr : slots_->delta(s.state_in, delta_index),
                               &delta_out[static_cast<size_t>(s.first_row)]});
  }
  ops::causal_conv(pool_, w_->conv_in, channels, weights.conv.data(), channels,
                   config_.linear_conv_width, conv_sequences, w_->conv_out, channels);

  clock_.stage("delta rule");
  const ops::GatedDeltaShape shape{config_.linear_key_heads, value_heads,
                                   config_.linear_key_head_dim, dv};
  ops::gated_delta(pool_, shape,
                   {w_->conv_out, channels, w_->a, w_->b, value_heads, weights.a_log.data(),
                    weights.dt_bias.data()},
                   delta_sequences, w_->mixed, value_width);
  pool_.parallel_for(rows_ * value_heads, 16, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i)
      ops::gated_rms_norm_row(w_->mixed + i * dv, w_->z + i * dv, weights.norm.data(),
                              static_cast<float>(config_.rms_norm_eps), dv, w_->mixed + i * dv);
  });
  show(index, {"linear_attn.out_proj"}, w_->mixed, value_width);
  clock_.stage("delta out");
  project(w_->mixed, value_width, {&weights.out}, {w_->x}, true);

  const size_t state_bytes = static_cast<size_t>(state_shape(config_).delta_floats) * sizeof(float);
  for (const RowSequence& s : sequences_) {
    const auto writes =
        static_cast<size_t>(std::ranges::count_if(s.state_out, [](int32_t v) { return v >= 0; }));
    traffic_.state += state_bytes * (writes + (s.state_in == no_slot ? 0 : 1));
  }
}

// The projections are grouped by key head; the convolution wants all q, all k, all v.
void Forward::ungroup_projections() {
  const int64_t groups = config_.linear_key_heads, r = config_.value_heads_per_key_head();
  const int64_t dk = config_.linear_key_head_dim, values = r * config_.linear_value_head_dim;
  const int64_t group_width = 2 * dk + 2 * values;
  const int64_t channels = config_.linear_conv_channels();
  pool_.parallel_for(rows_, 4, [&](int64_t first, int64_t last) {
    for (int64_t row = first; row < last; ++row) {
      float* conv = w_->conv_in + row * channels;
      for (int64_t g = 0; g < groups; ++g) {
        const float* from = w_->projected + (row * groups + g) * group_width;
        std::copy_n(from, dk, conv + g * dk);
        std::copy_n(from + dk, dk, conv + (groups + g) * dk);
        std::copy_n(from + 2 * dk, values, conv + 2 * groups * dk + g * values);
        std::copy_n(from + 2 * dk + values, values, w_->z + (row * groups + g) * values);
        const float* ba = w_->ba + (row * groups + g) * 2 * r;
        std::copy_n(ba, r, w_->b + (row * groups + g) * r);
        std::copy_n(ba + r, r, w_->a + (row * groups + g) * r);
      }
    }
  });
}

// --- mixture of experts ----------------------------------------------------------------------

// Fills the slots of every row: the router's choice, then the shared expert.
void Forward::choose_experts(const MlpWeights& weights, int index, int64_t slots) {
  const int64_t width = config_.hidden_size, experts = config_.experts;
  const int64_t routed = config_.experts_per_token;
  if (weights.shared_gate) {
    show(index, {"mlp.gate", "mlp.shared_expert_gate"}, w_->normed, width);
    project(w_->normed, width, {&*weights.router, &*weights.shared_gate},
            {w_->router_logits, w_->shared_gate});
  } else {
    show(index, {"mlp.gate"}, w_->normed, width);
    project(w_->normed, width, {&*weights.router}, {w_->router_logits});
  }
  if (observer_)
    observer_->observe(Observed::router_logits, index, rows_, experts, w_->router_logits);
  ops::route(pool_, w_->router_logits, rows_, experts, routed, config_.norm_topk_prob,
             w_->expert_ids, w_->expert_weights, slots);
  if (!weights.shared_gate) return;
  for (int64_t r = 0; r < rows_; ++r) {
    w_->expert_ids[r * slots + routed] = static_cast<int32_t>(experts);
    w_->expert_weights[r * slots + routed] = ops::sigmoid(w_->shared_gate[r]);
  }
}

void Forward::mlp(const MlpWeights& weights, int index) {
  const int64_t width = config_.hidden_size;
  const int64_t slots =
      weights.router ? config_.experts_per_token + (weights.shared_gate ? 1 : 0) : 1;
  clock_.stage("router");
  if (weights.router)
    choose_experts(weights, index, slots);
  else {
    std::fill_n(w_->expert_ids, rows_, 0);
    std::fill_n(w_->expert_weights, rows_, 1.0f);
  }

  ops::Activations x{w_->normed, rows_, width, width, nullptr};
  if (input_observer_)
    show_expert_inputs(*input_observer_, pool_, index, weights, x, w_->expert_ids, slots);
  clock_.stage("experts");
  const auto reads_blocks = [](const ops::GatedExpert& expert) {
    return is_block_quantized(expert.gate.dtype) || is_block_quantized(expert.up.dtype);
  };
  if (std::ranges::any_of(weights.experts, reads_blocks))
    x = ops::quantize_activations(pool_, x, w_->quantized);
  ops::gated_experts(pool_, x, weights.experts, w_->expert_ids, w_->expert_weights, slots, w_->x,
                     width, w_->experts);

  std::vector<bool> chosen(weights.experts.size());
  for (int64_t i = 0; i < rows_ * slots; ++i) chosen[static_cast<size_t>(w_->expert_ids[i])] = true;
  for (size_t e = 0; e < chosen.size(); ++e) {
    if (!chosen[e]) continue;
    const ops::GatedExpert& expert = weights.experts[e];
    traffic_.weights += ops::weight_bytes(expert.gate) + ops::weight_bytes(expert.up) +
                        ops::weight_bytes(expert.down);
  }
}

}  // namespace qnext::backend::cpu
