#include "backend/cpu/shown_inputs.h"

#include <algorithm>
#include <string>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/error.h"
#include "ops/activation/activation.h"

namespace qnext::backend::cpu {
namespace {

std::string weight_name(int layer, std::string_view matrix) {
  const std::string prefix =
      layer < 0 ? std::string("mtp.layers.0") : fmt::format("model.layers.{}", layer);
  return fmt::format("{}.{}.weight", prefix, matrix);
}

std::string expert_prefix(const MlpWeights& weights, size_t expert) {
  if (!weights.router) return "mlp";
  const bool shared = weights.shared_gate && expert + 1 == weights.experts.size();
  return shared ? "mlp.shared_expert" : fmt::format("mlp.experts.{}", expert);
}

// The rows of x that chose the expert, in order.
std::vector<float> rows_of_expert(const ops::Activations& x, const int32_t* ids, int64_t slots,
                                  size_t expert) {
  std::vector<float> rows;
  for (int64_t r = 0; r < x.rows; ++r) {
    const int32_t* chosen = ids + r * slots;
    if (std::find(chosen, chosen + slots, static_cast<int32_t>(expert)) == chosen + slots) continue;
    const float* row = x.values + r * x.stride;
    rows.insert(rows.end(), row, row + x.columns);
  }
  return rows;
}

// silu(gate x) * up x of dense rows.
std::vector<float> activated(ThreadPool& pool, const ops::GatedExpert& expert,
                             const std::vector<float>& rows) {
  ops::Activations x;
  x.values = rows.data();
  x.columns = x.stride = expert.gate.columns;
  x.rows = std::ssize(rows) / x.columns;
  AlignedBuffer quantized;
  if (is_block_quantized(expert.gate.dtype) || is_block_quantized(expert.up.dtype)) {
    quantized = AlignedBuffer(ops::quantized_activation_bytes(x.rows, x.columns),
                              "activations of one expert");
    x = ops::quantize_activations(pool, x, quantized.data());
  }
  const int64_t width = expert.gate.rows;
  std::vector<float> gate(static_cast<size_t>(x.rows * width));
  std::vector<float> up(gate.size());
  ops::matmul(pool, x, expert.gate, gate.data(), width);
  ops::matmul(pool, x, expert.up, up.data(), width);
  for (size_t i = 0; i < gate.size(); ++i) gate[i] *= ops::sigmoid(gate[i]) * up[i];
  return gate;
}

}  // namespace

void show_inputs(InputObserver& observer, int layer,
                 std::initializer_list<std::string_view> matrices, const float* x, int64_t rows,
                 int64_t columns) {
  std::vector<std::string> names;
  for (const std::string_view matrix : matrices) names.push_back(weight_name(layer, matrix));
  observer.inputs(names, rows, columns, x);
}

void show_expert_inputs(InputObserver& observer, ThreadPool& pool, int layer,
                        const MlpWeights& weights, const ops::Activations& x, const int32_t* ids,
                        int64_t slots) {
  for (size_t e = 0; e < weights.experts.size(); ++e) {
    const std::vector<float> rows = rows_of_expert(x, ids, slots, e);
    if (rows.empty()) continue;
    const int64_t count = std::ssize(rows) / x.columns;
    const std::string prefix = expert_prefix(weights, e);
    show_inputs(observer, layer, {prefix + ".gate_proj", prefix + ".up_proj"}, rows.data(), count,
                x.columns);
    const std::vector<float> inner = activated(pool, weights.experts[e], rows);
    show_inputs(observer, layer, {prefix + ".down_proj"}, inner.data(), count,
                weights.experts[e].down.columns);
  }
}

}  // namespace qnext::backend::cpu
