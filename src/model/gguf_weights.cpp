#include "model/gguf_weights.h"

#include <cmath>
#include <unordered_set>

#include "base/error.h"
#include "model/gguf_layout.h"

namespace qnext {

namespace {

class Mapper {
 public:
  Mapper(const GgufFiles& files, const Config& config) : files_(files), c_(config) {}

  Checkpoint map() {
    const bool has_mtp =
        files_.find(fmt::format("blk.{}.nextn.eh_proj.weight", c_.layers.size())) != nullptr;
    for (const WeightSpec& spec : weight_schema(c_)) {
      if (spec.mtp && !has_mtp) continue;
      if (spec.role == WeightRole::lm_head && c_.tie_word_embeddings) continue;
      add(spec);
    }
    for (const StoredTensor& stored : files_.tensors())
      if (!used_.contains(stored.name)) tensors_.push_back(stored);
    return Checkpoint(files_.path(), files_.maps(), std::move(tensors_), std::move(values_));
  }

 private:
  const StoredTensor& get(const std::string& name, const std::vector<int64_t>& shape) {
    const StoredTensor* stored = files_.find(name);
    if (!stored)
      fail("{}: tensor {} of shape {} is missing", files_.path(), name, shape_text(shape));
    if (stored->shape != shape)
      fail("{}: tensor {} has shape {}, expected {}: the metadata say so", files_.path(), name,
           shape_text(stored->shape), shape_text(shape));
    used_.insert(stored->name);
    return *stored;
  }

  void add(const WeightSpec& spec) {
    const std::string name = gguf_name(c_, spec);
    switch (gguf_change(spec.role)) {
      case GgufChange::plus_one:
        return add_values(spec, get(name, spec.shape), [](float w) { return w - 1.0f; });
      case GgufChange::minus_exp:
        return add_a_log(spec, get(name, spec.shape));
      case GgufChange::none:
        break;
    }
    switch (spec.role) {
      case WeightRole::delta_conv1d:
        return add_view(spec, get(name, {spec.shape[0], spec.shape[2]}));
      case WeightRole::shared_expert_gate:
        return add_view(spec, get(name, {spec.shape[1]}));
      case WeightRole::delta_in_proj_qkvz:
        return files_.find(name) ? add_view(spec, get(name, spec.shape)) : add_qkvz(spec);
      case WeightRole::q_proj:
      case WeightRole::k_proj:
      case WeightRole::v_proj:
        return files_.find(name) ? add_view(spec, get(name, spec.shape)) : add_of_qkv(spec, name);
      case WeightRole::expert_gate:
      case WeightRole::expert_up:
      case WeightRole::expert_down:
        return add_expert(spec, name);
      default:
        return add_view(spec, get(name, spec.shape));
    }
  }

  // The same bytes under the name and shape of the spec.
  StoredTensor& view(const WeightSpec& spec, const StoredTensor& stored) {
    StoredTensor& tensor = tensors_.emplace_back(stored);
    tensor.name = spec.name;
    tensor.shape = spec.shape;
    return tensor;
  }
  void add_view(const WeightSpec& spec, const StoredTensor& stored) { view(spec, stored); }

  // Rows [first, first + spec.shape[0]) of a tensor whose last dimensions are those of the spec.
  void add_slice(const WeightSpec& spec, const StoredTensor& stored, int64_t first) {
    const size_t row_bytes = dtype_bytes(stored.dtype, static_cast<size_t>(spec.shape[1]));
    StoredTensor& tensor = view(spec, stored);
    tensor.offset += static_cast<size_t>(first) * row_bytes;
    tensor.data += static_cast<size_t>(first) * row_bytes;
    tensor.bytes = static_cast<size_t>(spec.shape[0]) * row_bytes;
  }

  template <typename Change>
  void add_values(const WeightSpec& spec, const StoredTensor& stored, Change&& change) {
    std::vector<float>& values = values_.emplace_back(widened(stored));
    for (float& value : values) value = change(value);
    StoredTensor& tensor = view(spec, stored);
    tensor.dtype = DType::f32;
    tensor.data = reinterpret_cast<const std::byte*>(values.data());
    tensor.bytes = values.size() * sizeof(float);
    tensor.file = StoredTensor::no_file;
    tensor.offset = 0;
  }

  void add_a_log(const WeightSpec& spec, const StoredTensor& stored) {
    // exp(lowest) is 0, which A_log far below zero has become.
    constexpr float lowest = -1000;
    add_values(spec, stored, [&](float a) {
      if (!(a <= 0))
        fail("{}: tensor {} holds {}; it must be -exp(A_log)", files_.path(), stored.name, a);
      return a == 0 ? lowest : static_cast<float>(std::log(-static_cast<double>(a)));
    });
  }

  // [experts, width, hidden] or [experts, hidden, width]; gate and up may be one tensor, gate
  // first.
  void add_expert(const WeightSpec& spec, const std::string& name) {
    const int64_t rows = spec.shape[0];
    if (files_.find(name) || spec.role == WeightRole::expert_down)
      return add_slice(spec, get(name, {c_.experts, rows, spec.shape[1]}), spec.expert * rows);
    const std::string fused = gguf_layer_name(c_, spec, "ffn_gate_up_exps.weight");
    if (!files_.find(fused))
      fail("{}: tensor {} is missing, and so is {}", files_.path(), name, fused);
    const int64_t first = 2 * spec.expert * rows + (spec.role == WeightRole::expert_up ? rows : 0);
    add_slice(spec, get(fused, {c_.experts, 2 * rows, spec.shape[1]}), first);
  }

  // Full attention whose projections are one tensor: q with its gates, k, v.
  void add_of_qkv(const WeightSpec& spec, const std::string& name) {
    const std::string fused = gguf_layer_name(c_, spec, "attn_qkv.weight");
    if (!files_.find(fused))
      fail("{}: tensor {} of shape {} is missing", files_.path(), name, shape_text(spec.shape));
    const int64_t query = 2 * c_.attention_heads * c_.head_dim;
    const int64_t kv = c_.kv_heads * c_.head_dim;
    const int64_t first = spec.role == WeightRole::q_proj   ? 0
                          : spec.role == WeightRole::k_proj ? query
                                                            : query + kv;
    add_slice(spec, get(fused, {query + 2 * kv, c_.hidden_size}), first);
  }

  // Grouped by key head: q[dk] k[dk] v[r * dv] z[r * dv].
  void add_qkvz(const WeightSpec& spec) {
    const int64_t key = c_.linear_key_width(), value = c_.linear_value_width();
    const StoredTensor& qkv =
        get(gguf_layer_name(c_, spec, "attn_qkv.weight"), {2 * key + value, c_.hidden_size});
    const StoredTensor& gate =
        get(gguf_layer_name(c_, spec, "attn_gate.weight"), {value, c_.hidden_size});
    StoredTensor& tensor = tensors_.emplace_back();
    tensor.name = spec.name;
    tensor.shape = spec.shape;
    tensor.dtype = common_dtype(qkv.dtype, gate.dtype);
    tensor.bytes = qkv.bytes + gate.bytes;
    tensor.file = qkv.file;
    tensor.offset = qkv.offset;
    const int64_t key_rows = c_.linear_key_head_dim;
    const int64_t value_rows = c_.value_heads_per_key_head() * c_.linear_value_head_dim;
    for (int64_t head = 0; head < c_.linear_key_heads; ++head) {
      add_run(tensor, qkv, head * key_rows, key_rows);
      add_run(tensor, qkv, key + head * key_rows, key_rows);
      add_run(tensor, qkv, 2 * key + head * value_rows, value_rows);
      add_run(tensor, gate, head * value_rows, value_rows);
    }
  }

  void add_run(StoredTensor& tensor, const StoredTensor& from, int64_t first, int64_t rows) const {
    const size_t skipped = dtype_bytes(from.dtype, static_cast<size_t>(first * c_.hidden_size));
    tensor.runs.push_back(
        {from.dtype, rows, from.data + skipped, from.file, from.offset + skipped});
  }

  const GgufFiles& files_;
  const Config& c_;
  std::vector<StoredTensor> tensors_;
  std::deque<std::vector<float>> values_;
  std::unordered_set<std::string_view> used_;
};

}  // namespace

Checkpoint gguf_checkpoint(const GgufFiles& files, const Config& config) {
  return Mapper(files, config).map();
}

}  // namespace qnext
