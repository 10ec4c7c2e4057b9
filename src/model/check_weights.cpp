#include <algorithm>
#include <unordered_set>

#include "base/error.h"
#include "model/weight_schema.h"

namespace qnext {

namespace {

// The fields of config.json that fix the shape of a role, with their values.
std::string shape_reason(const Config& c, WeightRole role) {
  const auto attention = [&](std::string_view heads_name, int64_t heads) {
    return fmt::format("{} = {}, head_dim = {}", heads_name, heads, c.head_dim);
  };
  const auto delta = [&] {
    return fmt::format(
        "linear_num_key_heads = {}, linear_key_head_dim = {}, linear_num_value_heads = {}, "
        "linear_value_head_dim = {}",
        c.linear_key_heads, c.linear_key_head_dim, c.linear_value_heads, c.linear_value_head_dim);
  };
  const std::string hidden = fmt::format("hidden_size = {}", c.hidden_size);
  switch (role) {
    case WeightRole::embedding:
    case WeightRole::lm_head:
      return fmt::format("vocab_size = {}, {}", c.vocabulary_size, hidden);
    case WeightRole::q_proj:
    case WeightRole::q_bias:
    case WeightRole::o_proj:
      return attention("num_attention_heads", c.attention_heads) + ", " + hidden;
    case WeightRole::k_proj:
    case WeightRole::v_proj:
    case WeightRole::k_bias:
    case WeightRole::v_bias:
      return attention("num_key_value_heads", c.kv_heads) + ", " + hidden;
    case WeightRole::q_norm:
    case WeightRole::k_norm:
      return fmt::format("head_dim = {}", c.head_dim);
    case WeightRole::delta_in_proj_qkvz:
    case WeightRole::delta_out_proj:
      return delta() + ", " + hidden;
    case WeightRole::delta_conv1d:
      return fmt::format("{}, linear_conv_kernel_dim = {}", delta(), c.linear_conv_width);
    case WeightRole::delta_in_proj_ba:
    case WeightRole::delta_a_log:
    case WeightRole::delta_dt_bias:
      return fmt::format("linear_num_value_heads = {}, {}", c.linear_value_heads, hidden);
    case WeightRole::delta_norm:
      return fmt::format("linear_value_head_dim = {}", c.linear_value_head_dim);
    case WeightRole::router:
      return fmt::format("num_experts = {}, {}", c.experts, hidden);
    case WeightRole::expert_gate:
    case WeightRole::expert_up:
    case WeightRole::expert_down:
      return fmt::format("moe_intermediate_size = {}, {}", c.expert_width, hidden);
    case WeightRole::shared_gate:
    case WeightRole::shared_up:
    case WeightRole::shared_down:
      return fmt::format("shared_expert_intermediate_size = {}, {}", c.shared_expert_width, hidden);
    case WeightRole::dense_gate:
    case WeightRole::dense_up:
    case WeightRole::dense_down:
      return fmt::format("intermediate_size = {}, {}", c.dense_width, hidden);
    default:
      return hidden;
  }
}

bool is_floating(DType dtype) {
  return dtype == DType::f32 || dtype == DType::f16 || dtype == DType::bf16 ||
         dtype == DType::f8_e4m3 || is_block_quantized(dtype);
}

// The scales of an FP8 matrix.
const StoredTensor& check_scale(const Checkpoint& checkpoint, const StoredTensor& weight) {
  if (weight.shape.size() != 2)
    fail("{}: tensor {}: F8_E4M3 is supported for matrices only; its shape is {}",
         checkpoint.path(), weight.name, shape_text(weight.shape));
  const std::string name = fp8_scale_name(weight.name);
  const StoredTensor* scale = checkpoint.find(name);
  if (!scale)
    fail("{}: tensor {} is F8_E4M3, but its scales {} are missing", checkpoint.path(), weight.name,
         name);
  const std::vector<int64_t> expected = fp8_scale_shape(weight.shape);
  if (scale->shape != expected)
    fail("{}: tensor {} has shape {}, but {} of shape {} needs {}: one scale for 128 x 128 values",
         checkpoint.path(), name, shape_text(scale->shape), weight.name, shape_text(weight.shape),
         shape_text(expected));
  if (scale->dtype != DType::f32 && scale->dtype != DType::bf16)
    fail("{}: tensor {} is {}; scales must be F32 or BF16", checkpoint.path(), name,
         dtype_name(scale->dtype));
  return *scale;
}

void check_weight(const Config& config, const Checkpoint& checkpoint, const WeightSpec& spec,
                  const StoredTensor& stored) {
  if (stored.shape != spec.shape)
    fail("{}: tensor {} has shape {}, expected {}: the config says {}", checkpoint.path(),
         spec.name, shape_text(stored.shape), shape_text(spec.shape),
         shape_reason(config, spec.role));
  if (!is_floating(stored.dtype))
    fail("{}: tensor {} is {}; weights must be F32, F16, BF16, F8_E4M3 or quantised blocks",
         checkpoint.path(), spec.name, dtype_name(stored.dtype));
}

[[noreturn]] void fail_missing(const Checkpoint& checkpoint, const WeightSpec& spec, bool part) {
  fail("{}: tensor {} of shape {} is missing{}", checkpoint.path(), spec.name,
       shape_text(spec.shape), part ? "; the MTP head (mtp.*) must be complete or absent" : "");
}

}  // namespace

WeightReport check_weights(const Config& config, const Checkpoint& checkpoint) {
  const std::vector<WeightSpec> schema = weight_schema(config);
  WeightReport report;
  report.has_mtp = std::any_of(schema.begin(), schema.end(), [&](const WeightSpec& spec) {
    return spec.mtp && checkpoint.find(spec.name);
  });

  std::unordered_set<std::string_view> used;
  for (const WeightSpec& spec : schema) {
    const StoredTensor* stored = checkpoint.find(spec.name);
    const bool needed = spec.mtp ? report.has_mtp : !spec.optional;
    if (!stored && needed) fail_missing(checkpoint, spec, spec.mtp);
    if (!stored) continue;
    check_weight(config, checkpoint, spec, *stored);
    used.insert(stored->name);
    report.bytes += stored->bytes;
    if (spec.role == WeightRole::lm_head) report.has_lm_head = true;
    if (stored->dtype == DType::f8_e4m3) {
      const StoredTensor& scale = check_scale(checkpoint, *stored);
      used.insert(scale.name);
      report.bytes += scale.bytes;
    }
  }
  for (const StoredTensor& tensor : checkpoint.tensors())
    if (!used.contains(tensor.name)) report.unknown.push_back(tensor.name);
  return report;
}

}  // namespace qnext
