// Options that several commands share, and what they mean. An option is one line in options.cpp:
// name, default, help.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "engine/request.h"
#include "model/generation_config.h"
#include "ops/sampling/sampling.h"
#include "tensor/dtype.h"

namespace CLI {
class App;
}

namespace qnext::app {

// How the model runs on this machine.
struct MachineOptions {
  int threads = 0;       // 0: one for each core
  std::string quantize;  // empty: as stored
  std::string kv_type = "f32";
  std::string state_type = "f32";
  std::string activations = "bf16";  // of the GPU's products of f8 weights in prompts: bf16 or f8
  std::string backend_path;          // eager or graph, of the GPU; empty: graph
  std::string isa;                   // empty: the best there is
  // cuda, cpu, or auto: the GPU where there is one. Only a CUDA build has the option.
  std::string device = "auto";

  std::optional<DType> quantization() const;
  DType kv_dtype() const;
  DType state_dtype() const;
  DType activations_dtype() const;

  // The first option that the device cannot follow, and what it can; nothing if it can all.
  std::optional<std::string> why_not_on_cpu() const;
  std::optional<std::string> why_not_on_gpu() const;
};

// How tokens are chosen. What is absent comes from the model's generation_config.json.
struct SamplingOptions {
  std::optional<float> temperature;
  std::optional<float> top_p;
  std::optional<int32_t> top_k;
  std::optional<float> min_p;
  std::optional<float> presence_penalty;
  std::optional<float> frequency_penalty;
  std::optional<float> repetition_penalty;
  std::vector<std::string> logit_bias;  // "ID=X"
  std::optional<uint64_t> seed;         // absent: a random one

  // The parameters with every default filled in. A model that says nothing is run greedily, as
  // transformers does. Throws Error on a malformed --logit-bias.
  ops::SamplingParameters resolve(const GenerationConfig& defaults) const;
};

// Where an answer ends, and how fast it comes.
struct AnswerOptions {
  std::optional<int64_t> max_tokens;
  std::vector<std::string> stop_strings;
  std::vector<int32_t> stop_tokens;
  bool ignore_eos = false;
  int32_t speculate = 0;
  bool speculate_fixed = false;
  int64_t context = 0;        // 0: what the model was made for
  int32_t prefill_chunk = 0;  // 0: what suits the device
  size_t cache_bytes = 0;     // EngineOptions::cache_bytes
  std::string cache_folder;   // EngineOptions::cache_folder

  // For one sequence at a time.
  engine::EngineOptions engine_options(std::vector<int32_t> stop_tokens) const;
  engine::GenerationRequest request(std::vector<int32_t> prompt,
                                    const ops::SamplingParameters& sampling) const;
};

void add_model_option(CLI::App& command, std::string& model);
// --quantize and --kv; add_machine_options adds these too.
void add_storage_options(CLI::App& command, MachineOptions& options);
void add_machine_options(CLI::App& command, MachineOptions& options);
void add_sampling_options(CLI::App& command, SamplingOptions& options);
// --prefill-chunk and --speculate; add_context_options adds these too.
void add_step_options(CLI::App& command, AnswerOptions& options);
// --context; add_answer_options adds this too.
void add_context_options(CLI::App& command, AnswerOptions& options);
// --cache-memory and --cache-dir, for commands whose prompts begin alike; `cache_bytes` holds the
// default.
void add_cache_options(CLI::App& command, AnswerOptions& options);
void add_answer_options(CLI::App& command, AnswerOptions& options);

}  // namespace qnext::app
