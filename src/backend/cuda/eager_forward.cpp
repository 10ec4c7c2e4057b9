#include "backend/cuda/eager_forward.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <type_traits>

#include "backend/common/rope_table.h"
#include "base/cuda_error.h"
#include "base/error.h"
#include "ops/attention/attention_cuda.h"
#include "ops/causal_conv/causal_conv_cuda.h"
#include "ops/embedding/embedding_cuda.h"
#include "ops/gated_delta/gated_delta_cuda.h"
#include "ops/matmul/matmul_cuda.h"
#include "ops/moe/moe_cuda.h"
#include "ops/rms_norm/rms_norm_cuda.h"
#include "ops/rope/rope_cuda.h"

namespace qnext::backend::cuda {

EagerForward::EagerForward(const Config& config, const ModelWeights& weights, DeviceStore& store,
                           const Stream& stream)
    : config_(config),
      weights_(weights),
      stream_(stream),
      rope_(rope_table(config)),
      inverse_frequency_(store.keep(rope_.inverse_frequency)),
      logits_(static_cast<size_t>(logits_rows * config.vocabulary_size) * sizeof(float)) {
  for (const LayerWeights& layer : weights.layers) list_experts(layer.mlp, store);
  if (weights.mtp) list_experts(weights.mtp->layer.mlp, store);
}

void EagerForward::list_experts(const MlpWeights& weights, DeviceStore& store) {
  DeviceExperts& experts = experts_.emplace_back();
  const size_t bytes = weights.experts.size() * sizeof(ops::GatedExpert);
  experts.list =
      reinterpret_cast<const ops::GatedExpert*>(store.keep_bytes(weights.experts.data(), bytes));
  for (const ops::GatedExpert& expert : weights.experts)
    experts.largest_width = std::max(experts.largest_width, expert.gate.rows);
}

void EagerForward::attach(EagerWorkspace& workspace, KvPages& pages, StateSlots& slots) {
  w_ = &workspace;
  pages_ = &pages;
  slots_ = &slots;
}

// --- passes ----------------------------------------------------------------------------------

void EagerForward::run_model(std::span<const int32_t> tokens,
                             std::span<const RowSequence> sequences) {
  begin(tokens, {}, sequences);
  embed(w_->x, config_.hidden_size);
  int64_t kv_index = 0, delta_index = 0;
  for (size_t i = 0; i < weights_.layers.size(); ++i) {
    show(Observed::residual, static_cast<int>(i), config_.hidden_size, w_->x);
    layer(weights_.layers[i], static_cast<int>(i), kv_index, delta_index);
    ++(config_.layers[i].mixer == Mixer::full_attention ? kv_index : delta_index);
  }
  norm(w_->x, weights_.norm, w_->final_hidden);
  show(Observed::residual, static_cast<int>(weights_.layers.size()), config_.hidden_size,
       w_->final_hidden);
  end();
}

void EagerForward::run_mtp(std::span<const int32_t> next_tokens, Hidden source,
                           std::span<const int64_t> hidden_rows,
                           std::span<const RowSequence> sequences) {
  combine_mtp_input(next_tokens, source, hidden_rows, sequences);
  layer(weights_.mtp->layer, -1, kv_layers(config_, false), 0);
  norm(w_->x, weights_.mtp->norm, w_->mtp_hidden);
  end();
}

void EagerForward::fill_mtp_cache(std::span<const int32_t> next_tokens,
                                  std::span<const int64_t> hidden_rows,
                                  std::span<const RowSequence> sequences) {
  combine_mtp_input(next_tokens, Hidden::model, hidden_rows, sequences);
  const LayerWeights& layer = weights_.mtp->layer;
  norm(w_->x, layer.input_norm, w_->normed);
  prepare_attention(std::get<AttentionWeights>(layer.mixer),
                    pages_->layer(kv_layers(config_, false)));
  end();
}

void EagerForward::combine_mtp_input(std::span<const int32_t> next_tokens, Hidden source,
                                     std::span<const int64_t> hidden_rows,
                                     std::span<const RowSequence> sequences) {
  const MtpWeights& mtp = *weights_.mtp;
  const int64_t width = config_.hidden_size;
  const auto eps = static_cast<float>(config_.rms_norm_eps);
  float* both = w_->mtp_input;
  begin(next_tokens, hidden_rows, sequences);
  embed(both, 2 * width);
  ops::cuda::gather_rows(stream_.get(), source == Hidden::model ? w_->final_hidden : w_->mtp_hidden,
                         width, width, hidden_rows_, rows_, both + width, 2 * width);
  ops::cuda::rms_norm(stream_.get(), both, 2 * width, mtp.embedding_norm.data(), eps, rows_, width,
                      both, 2 * width);
  ops::cuda::rms_norm(stream_.get(), both + width, 2 * width, mtp.hidden_norm.data(), eps, rows_,
                      width, both + width, 2 * width);
  project(both, mtp.fc, w_->x);
}

void EagerForward::copy_hidden(int64_t first, int64_t rows, float* out) {
  const int64_t width = config_.hidden_size;
  stream_.copy_to_host(out, w_->final_hidden + first * width,
                       static_cast<size_t>(rows * width) * sizeof(float));
  stream_.wait();
}

const float* EagerForward::lm_head(Hidden source, std::span<const int64_t> rows) {
  const auto count = static_cast<int64_t>(rows.size());
  QNEXT_CHECK(count <= logits_rows && count <= w_->rows);
  const int64_t width = config_.hidden_size;
  const std::vector<int32_t> from(rows.begin(), rows.end());
  stream_.copy_to_device(w_->logits_from, from.data(), from.size() * sizeof(int32_t));
  ops::cuda::gather_rows(stream_.get(), source == Hidden::model ? w_->final_hidden : w_->mtp_hidden,
                         width, width, w_->logits_from, count, w_->normed, width);
  ops::cuda::matmul(stream_.get(), w_->normed, width, count, weights_.lm_head, nullptr, w_->logits,
                    config_.vocabulary_size);
  stream_.copy_to_host(logits_.data(), w_->logits,
                       static_cast<size_t>(count * config_.vocabulary_size) * sizeof(float));
  stream_.wait();
  traffic_.weights += ops::weight_bytes(weights_.lm_head);
  return logits_.as<float>();
}

const float* EagerForward::mtp_hidden(int64_t rows) {
  mtp_hidden_.resize(static_cast<size_t>(rows * config_.hidden_size));
  stream_.copy_to_host(mtp_hidden_.data(), w_->mtp_hidden, mtp_hidden_.size() * sizeof(float));
  stream_.wait();
  return mtp_hidden_.data();
}

// --- pieces ----------------------------------------------------------------------------------

// One array of all that the kernels ask about the batch, one copy.
void EagerForward::begin(std::span<const int32_t> tokens, std::span<const int64_t> hidden_rows,
                         std::span<const RowSequence> sequences) {
  rows_ = static_cast<int64_t>(tokens.size());
  sequences_ = sequences;
  QNEXT_CHECK(w_ && rows_ <= w_->rows, "{} rows", rows_);
  std::vector<ops::cuda::SequenceRows> sequence;
  std::vector<int32_t> sequence_of, state_out, pages;
  for (const RowSequence& s : sequences) {
    // 32 bits are enough: the positions of a sequence lie on pages of numbers that fit.
    sequence.push_back({static_cast<int32_t>(s.first_row), static_cast<int32_t>(s.rows),
                        static_cast<int32_t>(s.first_position), static_cast<int32_t>(pages.size()),
                        s.state_in});
    pages.insert(pages.end(), s.pages.begin(), s.pages.end());
    sequence_of.resize(sequence_of.size() + static_cast<size_t>(s.rows),
                       static_cast<int32_t>(sequence.size()) - 1);
    state_out.insert(state_out.end(), s.state_out.begin(), s.state_out.end());
    state_out.resize(sequence_of.size(), no_slot);
  }

  std::vector<int32_t>& all = batch_arrays_;
  all.clear();
  const auto append = [&](const auto* values, size_t count) {
    using Value = std::remove_cvref_t<decltype(*values)>;
    static_assert(sizeof(Value) % sizeof(int32_t) == 0);
    const size_t at = all.size();
    all.resize(at + count * sizeof(Value) / sizeof(int32_t));
    if (count > 0) std::memcpy(all.data() + at, values, count * sizeof(Value));
    return at;
  };
  const size_t sequence_at = append(sequence.data(), sequence.size());
  const size_t sequence_of_at = append(sequence_of.data(), sequence_of.size());
  const size_t state_out_at = append(state_out.data(), state_out.size());
  const size_t pages_at = append(pages.data(), pages.size());
  const size_t tokens_at = append(tokens.data(), tokens.size());
  const std::vector<int32_t> hidden(hidden_rows.begin(), hidden_rows.end());
  const size_t hidden_at = append(hidden.data(), hidden.size());
  const size_t bytes = all.size() * sizeof(int32_t);
  if (bytes > batch_memory_.size())
    batch_memory_ = DeviceBuffer(bytes + bytes / 2, "the page tables; use a shorter --context");
  const auto* base = batch_memory_.as<const int32_t>();
  stream_.copy_to_device(batch_memory_.data(), all.data(), bytes);

  batch_.rows = rows_;
  batch_.sequences = static_cast<int64_t>(sequences.size());
  batch_.sequence = reinterpret_cast<const ops::cuda::SequenceRows*>(base + sequence_at);
  batch_.sequence_of = base + sequence_of_at;
  batch_.state_out = base + state_out_at;
  batch_.pages = base + pages_at;
  tokens_ = base + tokens_at;
  hidden_rows_ = base + hidden_at;

  ops::cuda::rope_angles(stream_.get(), batch_, inverse_frequency_.data(), rope_.rotary_dims / 2,
                         rope_.attention_factor, w_->cosine, w_->sine);
  chosen_.resize((weights_.layers.size() + 1) * static_cast<size_t>(config_.experts + 1));
  check_cuda(cudaMemsetAsync(w_->chosen, 0, chosen_.size(), stream_.get()), "cudaMemsetAsync");
}

// Waits for the pass, then counts the experts that it read.
void EagerForward::end() {
  stream_.copy_to_host(chosen_.data(), w_->chosen, chosen_.size());
  stream_.wait();
  const auto stride = static_cast<size_t>(config_.experts + 1);
  for (size_t place = 0; place < experts_.size(); ++place) {
    const MlpWeights& mlp =
        place < weights_.layers.size() ? weights_.layers[place].mlp : weights_.mtp->layer.mlp;
    for (size_t e = 0; e < mlp.experts.size(); ++e) {
      if (!chosen_[place * stride + e]) continue;
      const ops::GatedExpert& expert = mlp.experts[e];
      traffic_.weights += ops::weight_bytes(expert.gate) + ops::weight_bytes(expert.up) +
                          ops::weight_bytes(expert.down);
    }
  }
}

void EagerForward::show(Observed what, int index, int64_t width, const float* data) {
  if (!observer_) return;
  std::vector<float> values(static_cast<size_t>(rows_ * width));
  stream_.copy_to_host(values.data(), data, values.size() * sizeof(float));
  stream_.wait();
  observer_->observe(what, index, rows_, width, values.data());
}

void EagerForward::embed(float* out, int64_t stride) {
  const ops::WeightMatrix& table = weights_.embedding;
  ops::cuda::embed(stream_.get(), table.dtype, table.data, table.columns, tokens_, rows_, out,
                   stride);
}

void EagerForward::norm(const float* x, Vector weight, float* y) {
  const int64_t width = config_.hidden_size;
  ops::cuda::rms_norm(stream_.get(), x, width, weight.data(),
                      static_cast<float>(config_.rms_norm_eps), rows_, width, y, width);
}

// x and y are dense.
void EagerForward::project(const float* x, const Linear& linear, float* y, bool accumulate) {
  ops::cuda::matmul(stream_.get(), x, linear.weight.columns, rows_, linear.weight,
                    linear.bias.empty() ? nullptr : linear.bias.data(), y, linear.weight.rows,
                    accumulate);
  traffic_.weights += ops::weight_bytes(linear.weight);
}

// x += mixer(norm(x)); x += mlp(norm(x))
void EagerForward::layer(const LayerWeights& weights, int index, int64_t kv_index,
                         int64_t delta_index) {
  norm(w_->x, weights.input_norm, w_->normed);
  if (const auto* attention = std::get_if<AttentionWeights>(&weights.mixer))
    gated_attention(*attention, kv_index);
  else
    gated_delta_net(std::get<GatedDeltaWeights>(weights.mixer), delta_index);
  norm(w_->x, weights.post_attention_norm, w_->normed);
  mlp(weights.mlp, index);
}

void EagerForward::gated_attention(const AttentionWeights& weights, int64_t kv_index) {
  const int64_t d = config_.head_dim, heads_width = config_.attention_heads * d;
  const int64_t kv_width = config_.kv_heads * d;
  const ops::AttentionShape shape = attention_shape(config_);
  const ops::KvCache cache = pages_->layer(kv_index);
  prepare_attention(weights, cache);

  ops::AttentionInputs inputs;
  inputs.q = w_->projected;
  inputs.gate = w_->projected + d;
  inputs.q_stride = inputs.gate_stride = 2 * heads_width;
  inputs.q_head_stride = inputs.gate_head_stride = 2 * d;
  inputs.scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(d)));
  ops::cuda::attention(stream_.get(), batch_, shape, cache, inputs, w_->mixed, heads_width);
  project(w_->mixed, weights.o, w_->x, true);

  const size_t position_bytes = dtype_bytes(cache.dtype, static_cast<size_t>(2 * kv_width));
  for (const RowSequence& s : sequences_)
    traffic_.kv += static_cast<size_t>(s.first_position + s.rows) * position_bytes;
}

// Queries, keys and values of w_->normed, the latter two to the cache.
void EagerForward::prepare_attention(const AttentionWeights& weights, const ops::KvCache& cache) {
  const int64_t d = config_.head_dim, heads_width = config_.attention_heads * d;
  const int64_t kv_width = config_.kv_heads * d;
  project(w_->normed, weights.q, w_->projected);
  project(w_->normed, weights.k, w_->keys);
  project(w_->normed, weights.v, w_->values);
  ops::cuda::prepare_heads(
      stream_.get(),
      {w_->projected, 2 * heads_width, 2 * d, config_.attention_heads, weights.q_norm.data()},
      {w_->keys, kv_width, d, config_.kv_heads, weights.k_norm.data()}, rows_, d,
      static_cast<float>(config_.rms_norm_eps), w_->cosine, w_->sine, rope_.rotary_dims / 2);
  ops::cuda::kv_write(stream_.get(), batch_, attention_shape(config_), cache, w_->keys, w_->values,
                      kv_width);
}

void EagerForward::gated_delta_net(const GatedDeltaWeights& weights, int64_t delta_index) {
  const int64_t value_heads = config_.linear_value_heads, dv = config_.linear_value_head_dim;
  const int64_t channels = config_.linear_conv_channels(), value_width = value_heads * dv;
  const ops::GatedDeltaShape shape{config_.linear_key_heads, value_heads,
                                   config_.linear_key_head_dim, dv};
  project(w_->normed, weights.qkvz, w_->projected);
  project(w_->normed, weights.ba, w_->ba);
  ops::cuda::ungroup_projections(stream_.get(), shape, rows_, w_->projected, w_->ba, w_->conv_in,
                                 w_->z, w_->a, w_->b);
  ops::cuda::causal_conv(stream_.get(), batch_, w_->conv_in, channels, weights.conv.data(),
                         channels, config_.linear_conv_width, slots_->conv(delta_index),
                         w_->conv_out, channels);
  ops::cuda::gated_delta(stream_.get(), batch_, shape,
                         {w_->conv_out, channels, w_->a, w_->b, value_heads, weights.a_log.data(),
                          weights.dt_bias.data()},
                         slots_->delta(delta_index), w_->mixed, value_width);
  ops::cuda::gated_rms_norm(stream_.get(), w_->mixed, w_->z, weights.norm.data(),
                            static_cast<float>(config_.rms_norm_eps), rows_ * value_heads, dv,
                            w_->mixed);
  project(w_->mixed, weights.out, w_->x, true);

  const size_t state_bytes = static_cast<size_t>(state_shape(config_).delta_floats) * sizeof(float);
  for (const RowSequence& s : sequences_) {
    const auto writes =
        static_cast<size_t>(std::ranges::count_if(s.state_out, [](int32_t v) { return v >= 0; }));
    traffic_.state += state_bytes * (writes + (s.state_in == no_slot ? 0 : 1));
  }
}

// Fills the slots of every row: the router's choice, then the shared expert.
void EagerForward::choose_experts(const MlpWeights& weights, int index, int64_t slots) {
  project(w_->normed, *weights.router, w_->router_logits);
  if (weights.shared_gate) project(w_->normed, *weights.shared_gate, w_->shared_gate);
  show(Observed::router_logits, index, config_.experts, w_->router_logits);
  ops::cuda::route(stream_.get(), w_->router_logits, rows_, config_.experts,
                   config_.experts_per_token, config_.norm_topk_prob,
                   weights.shared_gate ? w_->shared_gate : nullptr, w_->expert_ids,
                   w_->expert_weights, slots, chosen(index));
}

void EagerForward::mlp(const MlpWeights& weights, int index) {
  const int64_t width = config_.hidden_size;
  int64_t slots = 1;
  if (weights.router) {
    slots = config_.experts_per_token + (weights.shared_gate ? 1 : 0);
    choose_experts(weights, index, slots);
  } else {
    ops::cuda::route_to_one(stream_.get(), rows_, w_->expert_ids, w_->expert_weights,
                            chosen(index));
  }
  const DeviceExperts& experts = experts_[place_of(index)];
  ops::cuda::gated_experts(stream_.get(), w_->normed, width, rows_, width, experts.list,
                           experts.largest_width, w_->expert_ids, w_->expert_weights, slots, w_->x,
                           width, w_->experts);
}

}  // namespace qnext::backend::cuda
