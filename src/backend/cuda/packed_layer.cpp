// One layer of the tensor-core path: products, mixers and experts.
#include <cmath>
#include <utility>

#include "backend/cuda/packed_forward.h"
#include "backend/cuda/packed_shapes.h"
#include "ops/attention/paged_attention_cuda.h"
#include "ops/causal_conv/causal_conv_cuda.h"
#include "ops/embedding/round_rows_cuda.h"
#include "ops/gated_delta/chunked_delta_cuda.h"
#include "ops/gated_delta/decode_delta_cuda.h"
#include "ops/gated_delta/gated_delta_cuda.h"
#include "ops/matmul/prompt_matmul_cuda.h"
#include "ops/moe/prompt_experts_cuda.h"
#include "ops/moe/stream_experts_cuda.h"
#include "ops/rms_norm/rms_norm_cuda.h"
#include "ops/rms_norm/row_norms_cuda.h"

namespace qnext::backend::cuda {

using ops::cuda::StreamStore;

namespace {

ops::cuda::DeltaLayer delta_layer(const Config& config, const PackedDelta& weights) {
  ops::cuda::DeltaLayer layer = delta_shape(config);
  layer.conv_weight = weights.conv.data();
  layer.a_log = weights.a_log.data();
  layer.dt_bias = weights.dt_bias.data();
  layer.norm_weight = weights.norm.data();
  return layer;
}

ops::cuda::PromptOutput prompt_output(const ops::cuda::StreamProduct& product) {
  using Kind = ops::cuda::PromptOutput::Kind;
  const Kind kind = product.store == StreamStore::bf16  ? Kind::bf16_store
                    : product.store == StreamStore::f32 ? Kind::fp32_store
                                                        : Kind::fp32_add;
  return {kind, product.y, product.stride};
}

}  // namespace

// x += mixer(norm(x)); x += mlp(norm(x)). next_norm: that of the layer behind it, if there is one.
void PackedForward::layer(const PackedLayer& weights, int index, int64_t kv_index,
                          int64_t delta_index, const Vector* next_norm) {
  if (const auto* attention = std::get_if<PackedAttention>(&weights.mixer))
    gated_attention(weights.input_norm, *attention, kv_index);
  else
    gated_delta_net(weights.input_norm, std::get<PackedDelta>(weights.mixer), delta_index);
  mlp(weights, index, next_norm);
}

// --- products --------------------------------------------------------------------------------

// Several products of norm(x); `keep`: the normed rows are wanted afterwards too. The norm of few
// rows is cheaper in each block of the product that wants it than in a kernel of its own
// (docs/performance.md). The bits are the same.
void PackedForward::project_normed(Vector weight, std::span<const Product> products, bool keep) {
  const int64_t width = config_.hidden_size;
  if (std::exchange(normed_by_, nullptr) == weight.data()) {
    project(w_->normed, w_->hidden_stride, products);
    return;
  }
  const int count = static_cast<int>(products.size());
  if (!answer_ || !ops::cuda::norms_quickly(products.data(), count, rows_)) {
    ops::cuda::rms_norm_rows(stream_.get(), w_->x, width, nullptr, weight.data(), eps(), rows_,
                             width, w_->normed, w_->hidden_stride);
    project(w_->normed, w_->hidden_stride, products);
    return;
  }
  ops::cuda::StreamInput input;
  input.residual = w_->x;
  input.residual_stride = width;
  input.norm_weight = weight.data();
  input.eps = eps();
  if (keep) {
    input.normed = w_->normed;
    input.normed_stride = w_->hidden_stride;
  }
  ops::cuda::stream_matmul(stream_.get(), input, rows_, products.data(), count);
}

void PackedForward::project(const Bf16* x, int64_t stride, std::span<const Product> products) {
  if (answer_) {
    ops::cuda::StreamInput input;
    input.values = x;
    input.stride = stride;
    ops::cuda::stream_matmul(stream_.get(), input, rows_, products.data(),
                             static_cast<int>(products.size()));
    return;
  }
  ops::cuda::F8Rows rounded = w_->rounded;
  for (const Product& product : products) {
    const PackedMatrix& weight = product.weight;
    if (activations(weight.format) == ops::cuda::Activations::bf16) {
      ops::cuda::prompt_matmul(stream_.get(), x, stride, rows_, weight, prompt_output(product));
      continue;
    }
    if (rounded.stride == 0) {  // once for all of them
      rounded.stride = ops::cuda::f8_columns(weight.columns);
      ops::cuda::round_rows_to_f8(stream_.get(), x, stride, rows_, weight.columns, rounded);
    }
    ops::cuda::prompt_matmul(stream_.get(), rounded, rows_, weight, prompt_output(product));
  }
}

// Of products of prompts.
ops::cuda::Activations PackedForward::activations(ops::cuda::PackedFormat weights) const {
  return weights == ops::cuda::PackedFormat::f8 ? activations_ : ops::cuda::Activations::bf16;
}

// x += mixed w^T
void PackedForward::add_to_residual(const PackedMatrix& weight) {
  const Product product{weight, StreamStore::add_f32, w_->x, config_.hidden_size};
  project(w_->mixed, w_->mixed_stride, {&product, 1});
}

// --- mixers ----------------------------------------------------------------------------------

ops::cuda::PagedProjections PackedForward::project_attention(Vector norm,
                                                             const PackedAttention& weights) {
  const int64_t stride = w_->projected_stride;
  Bf16* q = w_->projected;
  Bf16* k = q + weights.q.rows;
  Bf16* v = k + weights.k.rows;
  timer_.stage(stream_, "attention q, k, v");
  const Product products[] = {{weights.q, StreamStore::bf16, q, stride},
                              {weights.k, StreamStore::bf16, k, stride},
                              {weights.v, StreamStore::bf16, v, stride}};
  project_normed(norm, products, false);

  timer_.stage(stream_, "attention");
  ops::cuda::PagedProjections projections;
  projections.q_gate = q;
  projections.k = k;
  projections.v = v;
  projections.q_gate_stride = projections.k_stride = projections.v_stride = stride;
  projections.q_norm = weights.q_norm.data();
  projections.k_norm = weights.k_norm.data();
  projections.eps = eps();
  projections.cosine = w_->cosine;
  projections.sine = w_->sine;
  projections.half = rope_.rotary_dims / 2;
  return projections;
}

// Queries, and keys and values into the cache.
void PackedForward::prepare_attention(const ops::cuda::PagedProjections& projections,
                                      int64_t kv_index) {
  ops::cuda::paged_prepare(stream_.get(), pass_.batch, paged_shape_, pages_->paged_layer(kv_index),
                           projections, w_->queries, w_->queries_stride);
}

void PackedForward::gated_attention(Vector norm, const PackedAttention& weights, int64_t kv_index) {
  const int64_t d = config_.head_dim;
  const ops::cuda::PagedProjections projections = project_attention(norm, weights);
  const ops::cuda::PagedCache cache = pages_->paged_layer(kv_index);
  // Where each sequence has one row, attention makes it ready itself: a launch less.
  const bool row_form =
      answer_ && most_rows_ == 1 && ops::cuda::paged_row_takes(paged_shape_, projections.half);
  if (!row_form) prepare_attention(projections, kv_index);
  ops::cuda::PagedAttention inputs;
  inputs.q = w_->queries;
  inputs.q_stride = w_->queries_stride;
  inputs.gate = w_->projected + d;
  inputs.gate_stride = w_->projected_stride;
  inputs.scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(d)));
  inputs.out = w_->mixed;
  inputs.out_stride = w_->mixed_stride;
  if (row_form)
    ops::cuda::paged_attention_row(stream_.get(), pass_.batch, paged_shape_, cache, projections,
                                   inputs, longest_, attention_.data());
  else if (answer_)
    ops::cuda::paged_attention_answer(stream_.get(), pass_.batch, paged_shape_, cache, inputs,
                                      most_rows_, longest_, attention_.data());
  else
    ops::cuda::paged_attention_prompt(stream_.get(), pass_.batch, paged_shape_, cache, inputs,
                                      rows_);
  timer_.stage(stream_, "attention out");
  add_to_residual(weights.o);
}

void PackedForward::gated_delta_net(Vector norm, const PackedDelta& weights, int64_t delta_index) {
  if (!fast_delta_) {
    plain_delta_net(norm, weights, delta_index);
    return;
  }
  const int64_t ba_width = 2 * config_.linear_value_heads;
  timer_.stage(stream_, "delta q, k, v, z");
  const Product products[] = {
      {weights.qkvz, StreamStore::bf16, w_->projected, w_->projected_stride},
      {weights.ba, StreamStore::f32, w_->ba, ba_width}};
  project_normed(norm, products, false);
  timer_.stage(stream_, "delta rule");
  const ops::cuda::DeltaLayer layer = delta_layer(config_, weights);
  const ops::cuda::DeltaRows rows{w_->projected, w_->projected_stride, w_->ba, ba_width};
  const ops::cuda::DeltaStates states = slots_->delta_states(delta_index);
  if (answer_)
    ops::cuda::decode_delta(stream_.get(), pass_.batch, layer, rows, slots_->conv(delta_index),
                            states, true, w_->mixed, w_->mixed_stride);
  else
    ops::cuda::chunked_delta(stream_.get(), pass_.batch, layer, rows, slots_->conv(delta_index),
                             states, w_->mixed, w_->mixed_stride, w_->delta);
  timer_.stage(stream_, "delta out");
  add_to_residual(weights.out);
}

// Head sizes that the tensor-core kernels do not take: the plain kernels in fp32.
void PackedForward::plain_delta_net(Vector norm, const PackedDelta& weights, int64_t delta_index) {
  const ops::GatedDeltaShape shape = delta_shape(config_).shape;
  const int64_t channels = config_.linear_conv_channels();
  const int64_t value_width = config_.linear_value_width();
  const PlainDelta& plain = w_->plain_delta;
  timer_.stage(stream_, "delta q, k, v, z");
  const Product products[] = {
      {weights.qkvz, StreamStore::f32, plain.qkvz, weights.qkvz.rows},
      {weights.ba, StreamStore::f32, w_->ba, 2 * config_.linear_value_heads}};
  project_normed(norm, products, false);
  timer_.stage(stream_, "delta rule");
  ops::cuda::ungroup_projections(stream_.get(), shape, rows_, plain.qkvz, w_->ba, plain.conv_in,
                                 plain.z, plain.a, plain.b);
  ops::cuda::causal_conv(stream_.get(), pass_.batch, plain.conv_in, channels, weights.conv.data(),
                         channels, config_.linear_conv_width, slots_->conv(delta_index),
                         plain.conv_out, channels);
  ops::cuda::gated_delta(stream_.get(), pass_.batch, shape,
                         {plain.conv_out, channels, plain.a, plain.b, shape.value_heads,
                          weights.a_log.data(), weights.dt_bias.data()},
                         slots_->delta(delta_index), plain.mixed, value_width);
  ops::cuda::gated_rms_norm(stream_.get(), plain.mixed, plain.z, weights.norm.data(), eps(),
                            rows_ * shape.value_heads, shape.value_dim, plain.mixed);
  ops::cuda::round_rows(stream_.get(), plain.mixed, value_width, value_width, nullptr, rows_,
                        w_->mixed, w_->mixed_stride);
  timer_.stage(stream_, "delta out");
  add_to_residual(weights.out);
}

// --- experts ---------------------------------------------------------------------------------

// Where routing reads and writes; a dense layer is one shared expert without a gate.
ops::cuda::Routing PackedForward::routing(const PackedMlp& weights, int index) const {
  ops::cuda::Routing out;
  out.shared = !weights.router || weights.shared_gate.has_value();
  out.ids = w_->expert_ids;
  out.weights = w_->expert_weights;
  out.chosen = chosen(index);
  if (!weights.router) return out;
  out.experts = config_.experts;
  out.top_k = config_.experts_per_token;
  out.renormalize = config_.norm_topk_prob;
  out.logits = w_->router_logits;
  out.logit_stride = config_.experts;
  if (weights.shared_gate) out.shared_gate = w_->shared_gate;
  return out;
}

void PackedForward::mlp(const PackedLayer& layer, int index, const Vector* next_norm) {
  const PackedMlp& weights = layer.mlp;
  timer_.stage(stream_, "router");
  std::vector<Product> products;
  if (weights.router)
    products.push_back({*weights.router, StreamStore::f32, w_->router_logits, config_.experts});
  if (weights.shared_gate)
    products.push_back({*weights.shared_gate, StreamStore::f32, w_->shared_gate, 1});
  if (products.empty())
    ops::cuda::rms_norm_rows(stream_.get(), w_->x, config_.hidden_size, nullptr,
                             layer.post_attention_norm.data(), eps(), rows_, config_.hidden_size,
                             w_->normed, w_->hidden_stride);
  else
    project_normed(layer.post_attention_norm, products, true);
  if (weights.router) show(Observed::router_logits, index, config_.experts, w_->router_logits);

  const ops::cuda::Routing choice = routing(weights, index);
  timer_.stage(stream_, "experts");
  if (!answer_) {
    prompt_mlp(weights.experts, choice);
    return;
  }
  ops::cuda::NextNorm next;
  if (next_norm) next = {next_norm->data(), eps(), w_->normed, w_->hidden_stride};
  if (ops::cuda::stream_experts(stream_.get(), weights.experts, choice, rows_, w_->normed,
                                w_->hidden_stride, w_->x, config_.hidden_size, w_->experts, next,
                                w_->expert_turns))
    normed_by_ = next.weight;
}

void PackedForward::prompt_mlp(const ops::cuda::PackedExperts& experts,
                               const ops::cuda::Routing& choice) {
  ops::cuda::route_experts(stream_.get(), choice, rows_);
  ops::cuda::prompt_experts(stream_.get(), w_->normed, w_->hidden_stride, rows_, experts,
                            choice.ids, choice.weights, choice.slots(), activations(experts.format),
                            w_->x, config_.hidden_size, w_->experts);
}

}  // namespace qnext::backend::cuda
