#include "app/options.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <charconv>
#include <limits>
#include <random>
#include <utility>

#include "app/units.h"
#include "base/error.h"

namespace qnext::app {
namespace {

std::pair<int32_t, float> parse_logit_bias(const std::string& text) {
  const size_t equals = text.find('=');
  std::pair<int32_t, float> bias;
  if (equals != std::string::npos) {
    const char* middle = text.data() + equals;
    const char* end = text.data() + text.size();
    const auto id = std::from_chars(text.data(), middle, bias.first);
    const auto value = std::from_chars(middle + 1, end, bias.second);
    if (id.ec == std::errc{} && id.ptr == middle && value.ec == std::errc{} && value.ptr == end)
      return bias;
  }
  fail("--logit-bias {}: give a token id and a number, as in --logit-bias 42=-5", text);
}

// Without the description that CLI11 would put before every help text.
CLI::Validator one_of(const std::vector<std::string>& names) {
  return CLI::IsMember(names).description("");
}
CLI::Validator between(int64_t low, int64_t high) {
  return CLI::Range(low, high).description("");
}

// What --quantize takes. A GPU takes f8 and q4_0, the CPU all but f8.
constexpr std::pair<const char*, DType> quantize_types[] = {
    {"q8_0", DType::q8_0}, {"q6_k", DType::q6_k}, {"q5_k", DType::q5_k},
    {"q4_k", DType::q4_k}, {"q4_0", DType::q4_0}, {"f8", DType::f8_e4m3}};

std::vector<std::string> quantize_names() {
  std::vector<std::string> names;
  for (const auto& [name, dtype] : quantize_types) names.emplace_back(name);
  return names;
}

DType cache_dtype(const std::string& name) {
  if (name == "f8") return DType::f8_e4m3;
  if (name == "q8_0") return DType::q8_0;
  return name == "bf16" ? DType::bf16 : DType::f32;
}

// A 32-bit seed is enough to vary and short enough to type again.
uint64_t random_seed() {
  return std::random_device{}();
}

}  // namespace

std::optional<DType> MachineOptions::quantization() const {
  if (quantize.empty()) return std::nullopt;
  for (const auto& [name, dtype] : quantize_types)
    if (quantize == name) return dtype;
  fail("--quantize {}: there is no such type", quantize);
}

DType MachineOptions::kv_dtype() const {
  return cache_dtype(kv_type);
}
DType MachineOptions::state_dtype() const {
  return cache_dtype(state_type);
}

DType MachineOptions::activations_dtype() const {
  return cache_dtype(activations);
}

std::optional<std::string> MachineOptions::why_not_on_cpu() const {
  if (quantize == "f8")
    return "--quantize f8 is for GPUs, the CPU takes q8_0, q6_k, q5_k, q4_k or q4_0";
  if (kv_type == "f8") return "--kv f8 is for GPUs, the CPU takes f32, bf16 or q8_0";
  if (state_type != "f32") return "--state " + state_type + " is for GPUs, the CPU takes f32";
  if (activations != "bf16") return "--activations " + activations + " is for GPUs";
  if (!backend_path.empty()) return "--backend-path is for GPUs, the CPU has one path";
  return std::nullopt;
}

std::optional<std::string> MachineOptions::why_not_on_gpu() const {
  if (!quantize.empty() && quantize != "q4_0" && quantize != "f8")
    return "--quantize " + quantize + " is for CPUs, a GPU takes q4_0 or f8";
  if (kv_type == "q8_0") return "--kv q8_0 is for CPUs, a GPU takes bf16 or f8";
  return std::nullopt;
}

ops::SamplingParameters SamplingOptions::resolve(const GenerationConfig& defaults) const {
  ops::SamplingParameters parameters;
  const auto choose = [](const auto& given, const auto& from_model, auto& out) {
    using Out = std::remove_reference_t<decltype(out)>;
    if (given) {
      out = *given;
    } else if (from_model) {
      out = static_cast<Out>(*from_model);
    }
  };
  const bool samples = defaults.do_sample.value_or(defaults.temperature.has_value());
  parameters.temperature = samples ? 1.0f : 0.0f;
  choose(temperature, samples ? defaults.temperature : std::nullopt, parameters.temperature);
  choose(top_p, defaults.top_p, parameters.top_p);
  choose(top_k, defaults.top_k, parameters.top_k);
  choose(min_p, defaults.min_p, parameters.min_p);
  choose(presence_penalty, defaults.presence_penalty, parameters.presence_penalty);
  choose(frequency_penalty, defaults.frequency_penalty, parameters.frequency_penalty);
  choose(repetition_penalty, defaults.repetition_penalty, parameters.repetition_penalty);
  for (const std::string& text : logit_bias)
    parameters.logit_bias.push_back(parse_logit_bias(text));
  parameters.seed = seed ? *seed : random_seed();
  return parameters;
}

engine::EngineOptions AnswerOptions::engine_options(std::vector<int32_t> stop) const {
  engine::EngineOptions options;
  options.max_context = context;
  options.prefill_chunk = prefill_chunk;
  options.max_speculation = speculate;
  options.adapt_speculation = !speculate_fixed;
  options.cache_bytes = cache_bytes;
  options.cache_folder = cache_folder;
  options.stop_tokens = std::move(stop);
  return options;
}

engine::GenerationRequest AnswerOptions::request(std::vector<int32_t> prompt,
                                                 const ops::SamplingParameters& sampling) const {
  engine::GenerationRequest request;
  request.prompt = std::move(prompt);
  request.sampling = sampling;
  request.max_tokens = max_tokens;
  request.stop_tokens = stop_tokens;
  request.ignore_eos = ignore_eos;
  request.stop_strings = stop_strings;
  request.speculate = speculate;
  return request;
}

void add_model_option(CLI::App& command, std::string& model) {
  command.add_option("-m,--model", model, "Hugging Face folder or GGUF file [bundled model]")
      ->type_name("MODEL");
}

void add_storage_options(CLI::App& command, MachineOptions& options) {
  const auto add = [&](const char* name, std::string& value, const char* help) {
    return command.add_option(name, value, help)->group("Machine")->type_name("TYPE");
  };
  add("--quantize", options.quantize,
      "hold weights as q8_0, q6_k, q5_k, q4_k or q4_0, on a GPU q4_0 or f8 [as stored]")
      ->check(one_of(quantize_names()));
  add("--kv,--kv-type", options.kv_type,
      "cached keys and values as f32, bf16, (CPU) q8_0 or (GPU) f8 [f32]")
      ->check(one_of({"f32", "bf16", "q8_0", "f8"}));
}

void add_machine_options(CLI::App& command, MachineOptions& options) {
  add_storage_options(command, options);
#ifdef QNEXT_CUDA
  command
      .add_option("--device", options.device, "cuda, cpu, or auto: a GPU if there is one [auto]")
      ->group("Machine")
      ->type_name("NAME")
      ->check(one_of({"cuda", "cpu", "auto"}));
#endif
  const auto add = [&](const char* name, std::string& value, const char* help) {
    return command.add_option(name, value, help)->group("Machine")->type_name("NAME");
  };
  add("--state", options.state_type, "recurrent state as f32 or (GPU) bf16 [f32]")
      ->check(one_of({"f32", "bf16"}));
  add("--activations", options.activations,
      "prompts multiply f8 weights with activations as bf16 or (GPU) f8 [bf16]")
      ->check(one_of({"bf16", "f8"}));
  add("--backend-path", options.backend_path, "of a GPU: eager, or graph, the fast one [graph]")
      ->check(one_of({"eager", "graph"}));
  command.add_option("--threads", options.threads, "threads [one for each core]")
      ->group("Machine")
      ->type_name("N")
      ->check(between(1, 1024));
  add("--isa", options.isa, "at most scalar, avx2 or avx512 [the best there is]")
      ->check(one_of({"scalar", "avx2", "avx512"}));
}

void add_sampling_options(CLI::App& command, SamplingOptions& options) {
  const auto add = [&](const char* name, auto& value, const char* help) {
    return command.add_option(name, value, help)
        ->group("Sampling (defaults: the model's generation_config.json, else greedy)")
        ->type_name("X");
  };
  add("--temperature", options.temperature, "0: always the most probable token (greedy)");
  add("--top-p", options.top_p, "fewest tokens whose probability reaches X");
  add("--top-k", options.top_k, "the N most probable tokens; 0: all")->type_name("N");
  add("--min-p", options.min_p, "tokens at least X times as probable as the best");
  add("--presence-penalty", options.presence_penalty,
      "taken from the logits of tokens in the answer");
  add("--frequency-penalty", options.frequency_penalty, "the same, times how often they occur");
  add("--repetition-penalty", options.repetition_penalty,
      "divides the logits of all tokens so far; 1: off");
  add("--logit-bias", options.logit_bias, "add X to token ID's logit (repeatable)")
      ->type_name("ID=X")
      ->allow_extra_args(false);
  add("--seed", options.seed, "same seed, same text [random]")
      ->type_name("N")
      ->check(between(0, std::numeric_limits<int64_t>::max()));
}

void add_step_options(CLI::App& command, AnswerOptions& options) {
  const auto add = [&](const char* name, auto& value, const char* help) {
    return command.add_option(name, value, help)->group("Answer")->type_name("N");
  };
  add("--speculate", options.speculate,
      "at most N drafts of the MTP head a step; the same text [0]")
      ->check(between(0, 64));
  command
      .add_flag("--speculate-fixed", options.speculate_fixed, "always N drafts, not as they pay")
      ->group("Answer");
  add("--prefill-chunk", options.prefill_chunk, "prompt tokens in one step [what suits the device]")
      ->check(between(1, 1 << 20));
}

void add_context_options(CLI::App& command, AnswerOptions& options) {
  command
      .add_option("--context", options.context, "tokens of prompt and answer [the model's limit]")
      ->group("Answer")
      ->type_name("N")
      ->check(between(1, int64_t{1} << 40));
  add_step_options(command, options);
}

void add_cache_options(CLI::App& command, AnswerOptions& options) {
  command
      .add_option("--cache-memory", options.cache_bytes,
                  fmt::format("for what was computed of earlier prompts; 0: none [{}]",
                              bytes_text(static_cast<double>(options.cache_bytes))))
      ->group("Machine")
      ->type_name("SIZE")
      ->transform(CLI::AsSizeValue(false).description(""));
  command
      .add_option("--cache-dir", options.cache_folder,
                  "folder for what leaves that memory and outlives the program [none]")
      ->group("Machine")
      ->type_name("DIR");
}

void add_answer_options(CLI::App& command, AnswerOptions& options) {
  const auto add = [&](const char* name, auto& value, const char* help) {
    return command.add_option(name, value, help)->group("Answer")->type_name("N");
  };
  add("-n,--max-tokens", options.max_tokens, "longest answer [until the context is full]")
      ->check(between(1, int64_t{1} << 40));
  add("--stop", options.stop_strings, "end before this text (repeatable)")
      ->type_name("TEXT")
      ->allow_extra_args(false);
  add("--stop-token", options.stop_tokens, "end at this token (repeatable)")
      ->type_name("ID")
      ->allow_extra_args(false);
  command.add_flag("--ignore-eos", options.ignore_eos, "go on after the model's end token")
      ->group("Answer");
  add_context_options(command, options);
}

}  // namespace qnext::app
