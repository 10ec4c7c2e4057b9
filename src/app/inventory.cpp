#include "app/inventory.h"

#include <fmt/format.h>

#include <algorithm>

#include "backend/common/weights.h"
#include "backend/cpu/caches.h"
#include "backend/cpu/workspace.h"
#include "engine/engine.h"
#include "model/cache_shape.h"
#include "ops/matmul/matmul.h"

namespace qnext::app {
namespace {

// The share of a tensor that one token uses.
double active_share(const WeightSpec& spec, const Config& config) {
  if (spec.mtp) return 0;
  if (spec.role == WeightRole::embedding)
    return 1.0 / static_cast<double>(config.vocabulary_size);  // one row
  if (spec.expert >= 0)
    return static_cast<double>(config.experts_per_token) / static_cast<double>(config.experts);
  return 1;
}

// What the CPU backend may round: see CpuOptions.
bool is_quantizable(const WeightSpec& spec) {
  return spec.role != WeightRole::router && spec.role != WeightRole::shared_expert_gate &&
         spec.role != WeightRole::delta_in_proj_ba;
}

// Bytes of a matrix as the backend makes it of the stored one.
size_t made_bytes(const StoredTensor& matrix, bool quantizable, std::optional<DType> quantize) {
  const DType held = backend::held_dtype(matrix, quantizable, quantize);
  return ops::weight_bytes({held, matrix.shape[0], matrix.shape[1], nullptr, nullptr});
}

size_t resident_bytes(const WeightSpec& spec, const StoredTensor& tensor,
                      std::optional<DType> quantize) {
  if (spec.shape.size() != 2) return static_cast<size_t>(tensor.elements()) * sizeof(float);
  if (spec.role == WeightRole::embedding) return tensor.bytes;
  return made_bytes(tensor, is_quantizable(spec), quantize);
}

void add(WeightGroup& group, const WeightGroup& more) {
  group.tensors += more.tensors;
  group.parameters += more.parameters;
  group.active += more.active;
  group.bytes += more.bytes;
  group.resident_bytes += more.resident_bytes;
  for (const auto& [dtype, count] : more.dtypes) group.dtypes[dtype] += count;
}

// Remembers types that become another without being asked to: of a matrix whose rows a GGUF file
// has in several. What must not be rounded is widened to f32 and never worth a word.
void note_held(Inventory& inventory, const WeightSpec& spec, const StoredTensor& tensor,
               std::optional<DType> quantize) {
  const bool is_lookup = spec.role == WeightRole::embedding;
  if (quantize || spec.shape.size() != 2 || is_lookup || !is_quantizable(spec)) return;
  const DType held = backend::held_dtype(tensor, true, quantize);
  if (!is_block_quantized(held)) return;
  const std::vector<DType> types = tensor.stored_types();
  if (std::ranges::all_of(types, [&](DType stored) { return stored == held; })) return;
  for (const DType stored : types)
    inventory.held_as[std::string(dtype_name(stored))] = dtype_name(held);
}

}  // namespace

std::string weight_group(const WeightSpec& spec) {
  if (spec.mtp) return "MTP head";
  switch (spec.role) {
    case WeightRole::embedding:
      return "embedding";
    case WeightRole::lm_head:
      return "lm_head";
    case WeightRole::final_norm:
    case WeightRole::input_norm:
    case WeightRole::middle_norm:
      return "norms";
    case WeightRole::q_proj:
    case WeightRole::k_proj:
    case WeightRole::v_proj:
    case WeightRole::o_proj:
    case WeightRole::q_bias:
    case WeightRole::k_bias:
    case WeightRole::v_bias:
    case WeightRole::o_bias:
    case WeightRole::q_norm:
    case WeightRole::k_norm:
      return "attention";
    case WeightRole::delta_in_proj_qkvz:
    case WeightRole::delta_in_proj_ba:
    case WeightRole::delta_conv1d:
    case WeightRole::delta_a_log:
    case WeightRole::delta_dt_bias:
    case WeightRole::delta_norm:
    case WeightRole::delta_out_proj:
      return "Gated DeltaNet";
    case WeightRole::router:
      return "routers";
    case WeightRole::expert_gate:
    case WeightRole::expert_up:
    case WeightRole::expert_down:
      return "experts";
    case WeightRole::shared_gate:
    case WeightRole::shared_up:
    case WeightRole::shared_down:
    case WeightRole::shared_expert_gate:
      return "shared experts";
    case WeightRole::dense_gate:
    case WeightRole::dense_up:
    case WeightRole::dense_down:
      return "dense MLPs";
    case WeightRole::mtp_fc:
    case WeightRole::mtp_norm:
    case WeightRole::mtp_embedding_norm:
    case WeightRole::mtp_hidden_norm:
      return "MTP head";
  }
  return "other";
}

std::string held_text(const Inventory& inventory) {
  std::string types;
  for (auto entry = inventory.held_as.begin(); entry != inventory.held_as.end(); ++entry) {
    const bool is_last = std::next(entry) == inventory.held_as.end();
    types += (types.empty() ? "" : is_last ? " and " : ", ") + entry->first;
  }
  if (types.empty()) return {};
  return fmt::format("matrices that mix {} are held as {}", types,
                     inventory.held_as.begin()->second);
}

Inventory take_inventory(const ModelFiles& files, std::optional<DType> quantize) {
  Inventory inventory;
  for (const WeightSpec& spec : weight_schema(files.config)) {
    const StoredTensor* tensor = files.checkpoint.find(spec.name);
    if (!tensor) continue;  // optional ones; check_weights() has seen the rest
    WeightGroup one;
    one.tensors = 1;
    one.parameters = tensor->elements();
    one.active = static_cast<double>(one.parameters) * active_share(spec, files.config);
    one.bytes = tensor->bytes;
    one.resident_bytes = resident_bytes(spec, *tensor, quantize);
    for (const DType stored : tensor->stored_types())
      one.dtypes[std::string(dtype_name(stored))] = 1;
    note_held(inventory, spec, *tensor, quantize);
    if (tensor->dtype == DType::f8_e4m3) {
      const StoredTensor& scales = files.checkpoint.get(fp8_scale_name(spec.name));
      one.bytes += scales.bytes;
      if (backend::held_dtype(*tensor, is_quantizable(spec), quantize) == DType::f8_e4m3)
        one.resident_bytes += static_cast<size_t>(scales.elements()) * sizeof(float);
    }
    const std::string name = weight_group(spec);
    auto group = std::ranges::find(inventory.groups, name, &WeightGroup::name);
    if (group == inventory.groups.end()) {
      inventory.groups.emplace_back().name = name;
      group = inventory.groups.end() - 1;
    }
    add(*group, one);
    add(inventory.total, one);
    // A tied embedding is also the output matrix: read whole, and held once more if quantised.
    if (spec.role == WeightRole::embedding && files.config.tie_word_embeddings) {
      WeightGroup tied;
      tied.active = static_cast<double>(one.parameters);
      if (quantize || is_block_quantized(tensor->dtype))
        tied.resident_bytes = made_bytes(*tensor, true, quantize);
      add(*group, tied);
      add(inventory.total, tied);
    }
  }
  return inventory;
}

MemoryNeeds memory_needs(const ModelFiles& files, const Inventory& inventory,
                         const MachineOptions& machine, const AnswerOptions& answer) {
  const bool with_mtp = answer.speculate > 0;
  check_kv_dtype(files.config, machine.kv_dtype());
  backend::Capabilities capabilities;
  capabilities.page_tokens = backend::cpu::page_tokens;
  capabilities.page_bytes = kv_bytes_per_token(files.config, with_mtp, machine.kv_dtype()) *
                            static_cast<size_t>(capabilities.page_tokens);
  capabilities.slot_bytes = state_shape(files.config).bytes();
  capabilities.has_mtp = files.weights.has_mtp;
  const engine::EnginePlan plan =
      engine::plan_engine(files.config, capabilities, answer.engine_options({}));
  MemoryNeeds needs;
  needs.context = plan.options.max_context;
  needs.prefill_chunk = plan.options.prefill_chunk;
  needs.weights = inventory.total.resident_bytes;
  for (const WeightGroup& group : inventory.groups) {
    if (group.name == "MTP head" && !with_mtp) needs.weights -= group.resident_bytes;
  }
  needs.slots = plan.reservation.slots;
  needs.state = static_cast<size_t>(needs.slots) * capabilities.slot_bytes;
  needs.kv = static_cast<size_t>(plan.reservation.pages) * capabilities.page_bytes;
  needs.workspace = backend::cpu::Workspace::bytes(files.config, plan.reservation.rows, with_mtp);
  return needs;
}

}  // namespace qnext::app
