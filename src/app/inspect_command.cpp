// qnext inspect: what a checkpoint is, and what it needs. Reads no weights.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>

#include "app/command.h"
#include "app/inventory.h"
#include "app/layer_pattern.h"
#include "app/model_files.h"
#include "app/options.h"
#include "app/terminal.h"
#include "app/units.h"
#include "base/error.h"
#include "base/json.h"

namespace qnext::app {
namespace {

struct InspectOptions {
  std::string model;
  MachineOptions machine;
  AnswerOptions answer;
  bool tensors = false;
  bool json = false;
};

constexpr const char* examples =
    "  qnext inspect\n"
    "  qnext inspect --model ~/models/Qwen3-Next-80B-A3B-Instruct --context 32768 --quantize q4_0\n"
    "  qnext inspect --tensors";

std::string dtypes_text(const WeightGroup& group) {
  std::string text;
  for (const auto& [dtype, count] : group.dtypes) text += (text.empty() ? "" : " ") + dtype;
  return text;
}

std::string config_text(const ModelFiles& files) {
  const Config& c = files.config;
  std::string out = fmt::format("{}\n", files.path());
  const auto line = [&](const char* name, const std::string& value) {
    out += fmt::format("  {:<16}{}\n", name, value);
  };
  line("layers", fmt::format("{}: {}", c.layers.size(), layer_pattern(c.layers)));
  line("sizes", fmt::format("hidden {}, vocabulary {}", grouped_text(c.hidden_size),
                            grouped_text(c.vocabulary_size)));
  line("context", grouped_text(c.context_length()) + " tokens" +
                      (c.rope.yarn ? fmt::format(" (YaRN, factor {})", c.rope.yarn->factor) : ""));
  line("attention",
       fmt::format("{} query heads and {} key/value heads of {}, RoPE on {} dimensions, "
                   "theta {}",
                   c.attention_heads, c.kv_heads, c.head_dim, c.rope.rotary_dims, c.rope.theta));
  line("Gated DeltaNet",
       fmt::format("{} key heads of {}, {} value heads of {}, convolution of {}",
                   c.linear_key_heads, c.linear_key_head_dim, c.linear_value_heads,
                   c.linear_value_head_dim, c.linear_conv_width));
  if (c.experts > 0) {
    line("experts",
         fmt::format("{} of width {}, {} a token{}", c.experts, c.expert_width, c.experts_per_token,
                     c.shared_expert_width > 0
                         ? fmt::format("; a shared one of width {}", c.shared_expert_width)
                         : ""));
  }
  line("MTP head", files.weights.has_mtp ? "yes: --speculate works" : "none");
  return out;
}

std::string weights_text(const ModelFiles& files, const Inventory& inventory) {
  std::string out = fmt::format("\n  {:<16}{:>8}{:>12}{:>12}{:>12}  {}\n", "weights", "tensors",
                                "parameters", "per token", "bytes", "type");
  const auto row = [&](const std::string& name, const WeightGroup& group) {
    const std::string active = group.active > 0 ? count_text(group.active) : "-";
    out += fmt::format("  {:<16}{:>8}{:>12}{:>12}{:>12}  {}\n", name, group.tensors,
                       count_text(static_cast<double>(group.parameters)), active,
                       bytes_text(static_cast<double>(group.bytes)), dtypes_text(group));
  };
  for (const WeightGroup& group : inventory.groups) row(group.name, group);
  row("total", inventory.total);
  if (!files.weights.unknown.empty()) {
    out += fmt::format("  {} tensors of the checkpoint are not used, {} first\n",
                       files.weights.unknown.size(), files.weights.unknown.front());
  }
  return out;
}

// How the weights are held.
std::string weights_note(const Inventory& inventory, const InspectOptions& options) {
  if (!options.machine.quantize.empty()) return options.machine.quantize + ", quantised at load";
  const std::string held = held_text(inventory);
  return held.empty() ? "mapped from the files, as stored" : held;
}

std::string memory_text(const MemoryNeeds& needs, const Inventory& inventory,
                        const InspectOptions& options) {
  std::string out =
      fmt::format("\n  memory for one sequence of {} tokens\n", grouped_text(needs.context));
  const auto row = [&](const char* name, size_t bytes, const std::string& note) {
    out += fmt::format("  {:<16}{:>12}{}\n", name, bytes_text(static_cast<double>(bytes)),
                       note.empty() ? "" : "  " + note);
  };
  row("weights", needs.weights, weights_note(inventory, options));
  row("state", needs.state,
      fmt::format("{} slot{}, whatever the context", needs.slots, needs.slots == 1 ? "" : "s"));
  row("keys and values", needs.kv,
      fmt::format("{}, filled as the context grows", options.machine.kv_type));
  row("workspace", needs.workspace, fmt::format("for {} tokens in one step", needs.prefill_chunk));
  row("total", needs.total(), "");
  return out;
}

// "Q5_K Q4_K" where rows of two tensors of a file make one.
std::string types_text(const StoredTensor& tensor) {
  std::string text;
  for (const DType stored : tensor.stored_types())
    text += (text.empty() ? "" : " ") + std::string(dtype_name(stored));
  return text;
}

std::string tensors_text(const Checkpoint& checkpoint) {
  std::string out = "\n";
  for (const StoredTensor& tensor : checkpoint.tensors()) {
    out += fmt::format("  {:<8} {:<22} {:>10}  {}\n", types_text(tensor), shape_text(tensor.shape),
                       bytes_text(static_cast<double>(tensor.bytes)), tensor.name);
  }
  return out;
}

json::Object group_json(const WeightGroup& group) {
  json::Object dtypes;
  for (const auto& [dtype, count] : group.dtypes) dtypes.set(dtype, count);
  return {{"tensors", group.tensors},
          {"parameters", group.parameters},
          {"active_parameters", static_cast<int64_t>(group.active)},
          {"bytes", static_cast<int64_t>(group.bytes)},
          {"resident_bytes", static_cast<int64_t>(group.resident_bytes)},
          {"dtypes", std::move(dtypes)}};
}

json::Object memory_json(const MemoryNeeds& needs) {
  return {{"context", needs.context},
          {"weights_bytes", static_cast<int64_t>(needs.weights)},
          {"state_bytes", static_cast<int64_t>(needs.state)},
          {"kv_bytes", static_cast<int64_t>(needs.kv)},
          {"workspace_bytes", static_cast<int64_t>(needs.workspace)},
          {"total_bytes", static_cast<int64_t>(needs.total())}};
}

json::Object config_json(const Config& c) {
  json::Array layers;
  for (const LayerKind& kind : c.layers) {
    layers.emplace_back(json::Object{
        {"mixer", kind.mixer == Mixer::full_attention ? "full_attention" : "gated_delta_net"},
        {"mlp", kind.mlp == Mlp::sparse ? "sparse" : "dense"}});
  }
  return {{"layers", std::move(layers)},
          {"hidden_size", c.hidden_size},
          {"vocabulary_size", c.vocabulary_size},
          {"context_length", c.context_length()},
          {"attention_heads", c.attention_heads},
          {"kv_heads", c.kv_heads},
          {"head_dim", c.head_dim},
          {"rotary_dims", c.rope.rotary_dims},
          {"rope_theta", c.rope.theta},
          {"yarn_factor", c.rope.yarn ? json::Value(c.rope.yarn->factor) : json::Value()},
          {"linear_key_heads", c.linear_key_heads},
          {"linear_key_head_dim", c.linear_key_head_dim},
          {"linear_value_heads", c.linear_value_heads},
          {"linear_value_head_dim", c.linear_value_head_dim},
          {"linear_conv_width", c.linear_conv_width},
          {"experts", c.experts},
          {"experts_per_token", c.experts_per_token},
          {"expert_width", c.expert_width},
          {"shared_expert_width", c.shared_expert_width},
          {"dense_width", c.dense_width},
          {"tie_word_embeddings", c.tie_word_embeddings}};
}

std::string inspect_json(const ModelFiles& files, const Inventory& inventory,
                         const MemoryNeeds& needs, bool tensors) {
  json::Object held;
  for (const auto& [stored, type] : inventory.held_as) held.set(stored, type);
  json::Object groups;
  for (const WeightGroup& group : inventory.groups) groups.set(group.name, group_json(group));
  json::Object out = {{"folder", files.path()},
                      {"config", config_json(files.config)},
                      {"has_mtp", files.weights.has_mtp},
                      {"weights", std::move(groups)},
                      {"total", group_json(inventory.total)},
                      {"held_as", std::move(held)},
                      {"memory", memory_json(needs)}};
  if (tensors) {
    json::Array list;
    for (const StoredTensor& tensor : files.checkpoint.tensors()) {
      json::Array shape;
      for (const int64_t size : tensor.shape) shape.emplace_back(size);
      list.emplace_back(json::Object{{"name", tensor.name},
                                     {"dtype", types_text(tensor)},
                                     {"shape", std::move(shape)},
                                     {"bytes", static_cast<int64_t>(tensor.bytes)}});
    }
    out.set("tensors", std::move(list));
  }
  return json::write(out, 2) + "\n";
}

int inspect(const InspectOptions& options) {
  // Memory is counted as the CPU backend takes it.
  if (const auto problem = options.machine.why_not_on_cpu()) fail("inspect: {}", *problem);
  const ModelFiles files(options.model);
  const Inventory inventory = take_inventory(files, options.machine.quantization());
  const MemoryNeeds needs = memory_needs(files, inventory, options.machine, options.answer);
  if (options.json) {
    write_output(inspect_json(files, inventory, needs, options.tensors));
    return exit_status::success;
  }
  write_output(config_text(files) + weights_text(files, inventory) +
               memory_text(needs, inventory, options) +
               (options.tensors ? tensors_text(files.checkpoint) : ""));
  return exit_status::success;
}

}  // namespace

void register_inspect(CLI::App& app) {
  auto options = std::make_shared<InspectOptions>();
  CLI::App& command =
      add_command(app, "inspect", "Show a model's sizes, weights and need of memory", examples);
  add_model_option(command, options->model);
  command.add_flag("--tensors", options->tensors, "list every tensor");
  command.add_flag("--json", options->json, "the same as JSON");
  add_context_options(command, options->answer);
  add_storage_options(command, options->machine);
  on_run(command, [options] { return inspect(*options); });
}

}  // namespace qnext::app
