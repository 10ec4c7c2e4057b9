#include "backend/cuda/packed_shapes.h"

#include <algorithm>
#include <cmath>

#include "backend/cuda/caches.h"
#include "ops/attention/paged_attention_cuda.h"
#include "ops/gated_delta/chunked_delta_cuda.h"
#include "ops/gated_delta/decode_delta_cuda.h"
#include "ops/moe/prompt_experts_cuda.h"
#include "ops/moe/stream_experts_cuda.h"

namespace qnext::backend::cuda {

namespace {

// The largest of a model's layers as the experts' kernels see it; only its sizes count.
ops::cuda::PackedExperts expert_shape(const Config& config) {
  ops::cuda::PackedExperts out;
  out.experts = std::max<int64_t>(1, config.experts + (config.shared_expert_width > 0 ? 1 : 0));
  out.hidden = config.hidden_size;
  out.width = widest_expert(config);
  return out;
}

int64_t slots(const Config& config) {
  return std::max<int64_t>(1, config.experts_per_token + (config.shared_expert_width > 0 ? 1 : 0));
}

}  // namespace

// A value rounded to bf16 is off by at most 2^-9 of itself, evenly spread: 2^-9 / sqrt(3) in the
// root mean square. A sub-layer rounds in about six places, one after another: the normed row, the
// projections, q, k and v made of them, the operands inside (probabilities; W, U and V' of the
// delta rule; silu(gate) * up), the mixed row, and weights wider than bf16 where a checkpoint has
// them. Each moves the residual stream by so much of itself, independently of the others, so over
// two sub-layers a layer their squares add:
//
//   2^-9 / sqrt(3) * sqrt(6 * 2 * layers)      4 layers: 0.0078, 48 layers: 0.027
//
// Put into the fp64 oracle, such roundings give 0.0030, 0.0045, 0.0057, 0.0064 after layers 1 to 4
// of tests/data/g2-heads (heads of 256 and 128), where this says 0.0039, 0.0055, 0.0068, 0.0078.
// The largest of a tensor's thousands of values errs by four times the root mean square.
//
// That is of the values' root mean square, but `verify` divides by the largest, three to six times
// as much in every folder. This factor is left as safety: narrow heads spend it. Where the output
// of one head nearly cancels, the norm over it magnifies what was rounded before, and with heads of
// 16 (g1-small, g3-yarn) the errors are three times those above, with a tail that no tolerance ends
// (app/judgement.h counts its rows). With wide heads the factor remains, so this does not find a
// formula wrong by one percent; the plain kernels, judged at 1e-4, do.
double rounding_error(const Config& config) {
  constexpr double half_step = 0x1p-9;
  constexpr double places = 6;
  constexpr double sub_layers = 2;
  constexpr double deviations = 4;
  const auto layers = static_cast<double>(config.layers.size());
  return deviations * half_step / std::sqrt(3.0) * std::sqrt(places * sub_layers * layers);
}

std::optional<std::string> why_not_packed(const Config& config) {
  if (config.attention_bias) return "it has biases in attention";
  if (config.head_dim > 256 || config.head_dim % 16 != 0)
    return "its head_dim is not a multiple of 16 up to 256";
  if (config.hidden_size % 8 != 0) return "its hidden_size is not a multiple of 8";
  return std::nullopt;
}

ops::cuda::DeltaLayer delta_shape(const Config& config) {
  ops::cuda::DeltaLayer layer;
  layer.shape = {config.linear_key_heads, config.linear_value_heads, config.linear_key_head_dim,
                 config.linear_value_head_dim};
  layer.conv_width = config.linear_conv_width;
  layer.eps = static_cast<float>(config.rms_norm_eps);
  return layer;
}

bool has_fast_delta(const Config& config) {
  const ops::cuda::DeltaLayer layer = delta_shape(config);
  return decode_delta_takes(layer) && chunked_delta_takes(layer);
}

int64_t widest_expert(const Config& config) {
  return std::max({config.expert_width, config.shared_expert_width, config.dense_width});
}

size_t answer_experts_bytes(const Config& config, int64_t rows) {
  return ops::cuda::stream_experts_workspace(expert_shape(config), rows, slots(config));
}

size_t prompt_experts_bytes(const Config& config, int64_t rows,
                            ops::cuda::Activations activations) {
  return ops::cuda::prompt_experts_bytes(expert_shape(config), rows, slots(config), activations);
}

size_t delta_bytes(const Config& config, const Reservation& reserved) {
  return static_cast<size_t>(ops::cuda::chunked_delta_workspace(
      delta_shape(config), reserved.rows, std::min(reserved.rows, reserved.slots)));
}

size_t attention_bytes(const Config& config, int64_t rows, int64_t longest) {
  // Partial results are fp32 whatever the cache holds.
  const ops::cuda::PagedShape shape{config.attention_heads, config.kv_heads, config.head_dim,
                                    ops::cuda::KvFormat::bf16};
  return ops::cuda::paged_answer_workspace(shape, rows, longest);
}

}  // namespace qnext::backend::cuda
