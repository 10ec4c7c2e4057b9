// qnext generate: one prompt, one answer.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <memory>

#include "app/answer_constraint.h"
#include "app/answer_stream.h"
#include "app/command.h"
#include "app/model_files.h"
#include "app/options.h"
#include "app/terminal.h"
#include "base/error.h"
#include "base/json.h"
#include "engine/engine.h"

namespace qnext::app {
namespace {

struct GenerateOptions {
  std::string prompt;
  std::string model;
  MachineOptions machine;
  SamplingOptions sampling;
  AnswerOptions answer;
  ConstraintOptions constraint;
  std::optional<int32_t> logprobs;
  bool echo = false;
  bool json = false;
};

constexpr const char* examples =
    "  qnext generate \"ROMEO:\" --echo --max-tokens 100\n"
    "  qnext generate \"ROMEO:\" --temperature 0 --speculate 2\n"
    "  qnext generate \"Name a play:\" --regex '(Hamlet|Othello|Macbeth)'\n"
    "  qnext generate \"A person: \" --json-schema schema.json\n"
    "  qnext generate - --stop $'\\n\\n' < prompt.txt > answer.txt\n"
    "The answer goes to standard output exactly as it is (a terminal gets a line end after it),\n"
    "statistics and the seed to standard error.";

json::Object token_json(const Tokenizer& tokenizer, int32_t token, float logprob) {
  return {{"token", int64_t{token}},
          {"text", tokenizer.decode(std::span(&token, 1))},
          {"logprob", static_cast<double>(logprob)}};
}

json::Array logprobs_json(const Tokenizer& tokenizer,
                          const std::vector<ops::SampledToken>& tokens) {
  json::Array array;
  for (const ops::SampledToken& token : tokens) {
    json::Object entry = token_json(tokenizer, token.token, token.logprob);
    json::Array top;
    for (const ops::TokenLogprob& other : token.top)
      top.emplace_back(token_json(tokenizer, other.token, other.logprob));
    entry.set("top", std::move(top));
    array.emplace_back(std::move(entry));
  }
  return array;
}

void print_json(const GenerateOptions& options, const Tokenizer& tokenizer,
                const AnswerStream& answer, uint64_t seed) {
  json::Array ids;
  for (const ops::SampledToken& token : answer.tokens) ids.emplace_back(int64_t{token.token});
  const engine::GenerationCounts& counts = answer.finish.counts;
  json::Object out = {
      {"text", options.echo ? options.prompt + answer.text : answer.text},
      {"tokens", std::move(ids)},
      {"finish_reason", engine::finish_reason_name(answer.finish.reason)},
      {"seed", static_cast<int64_t>(seed)},
      {"prompt_tokens", counts.prompt_tokens},
      {"generated_tokens", counts.generated_tokens},
      {"decode_steps", counts.decode_steps},
      {"drafted_tokens", counts.drafted_tokens},
      {"accepted_tokens", counts.accepted_tokens},
      {"prefill_seconds", answer.timing().prefill},
      {"decode_seconds", answer.timing().decode},
  };
  if (options.logprobs) out.set("logprobs", logprobs_json(tokenizer, answer.tokens));
  write_output(json::write(out) + "\n");
}

// A line a token on standard error: the token, its logprob, and those of the most probable ones.
void print_logprobs(const Tokenizer& tokenizer, const std::vector<ops::SampledToken>& tokens) {
  const auto quoted = [&](int32_t token) {
    std::string text;
    json::append_string(text, tokenizer.decode(std::span(&token, 1)));
    return text;
  };
  for (const ops::SampledToken& token : tokens) {
    std::string line = fmt::format("{} {:.4f}", quoted(token.token), token.logprob);
    const char* separator = "   of ";
    for (const ops::TokenLogprob& other : token.top) {
      line += fmt::format("{}{} {:.4f}", separator, quoted(other.token), other.logprob);
      separator = ", ";
    }
    fmt::print(stderr, "{}\n", line);
  }
}

int generate(GenerateOptions& options) {
  if (options.prompt == "-") options.prompt = read_input();
  require_utf8(options.prompt, "the prompt");
  for (const std::string& stop : options.answer.stop_strings) require_utf8(stop, "--stop");
  const ModelFiles files(options.model);
  const Tokenizer tokenizer = load_tokenizer(files);
  ops::SamplingParameters sampling = options.sampling.resolve(files.generation);
  sampling.logprobs = options.logprobs.value_or(-1);
  std::vector<int32_t> prompt = tokenizer.encode(options.prompt);
  if (prompt.empty()) fail("the prompt is empty; give some text to continue");

  const auto backend = load_backend(files, options.machine, options.answer.speculate > 0);
  engine::Engine engine(*backend, &tokenizer, options.answer.engine_options(files.stop_tokens()));
  const AnswerConstraint form(options.constraint, tokenizer, backend->config().vocabulary_size,
                              *engine.options().stop_tokens);
  AnswerStream answer([&](std::string_view piece) {
    if (!options.json) write_output(piece);
  });
  auto request = options.answer.request(std::move(prompt), sampling);
  request.constraint = form.constraint();
  if (request.constraint && request.ignore_eos)
    fail("--ignore-eos would go on behind the end of an answer that has a form");
  if (options.echo && !options.json) write_output(options.prompt);
  answer.run(engine, std::move(request));

  if (options.json) {
    print_json(options, tokenizer, answer, sampling.seed);
  } else if (is_terminal(STDOUT_FILENO)) {
    write_output("\n");
  }
  if (options.logprobs && !options.json) print_logprobs(tokenizer, answer.tokens);
  std::string line = statistics_line(answer.finish.counts, answer.timing());
  if (sampling.temperature > 0) line += fmt::format("; seed {}", sampling.seed);
  fmt::print(stderr, "{}\n", line);
  return answer.finish.reason == engine::FinishReason::cancelled ? exit_status::interrupted
                                                                 : exit_status::success;
}

}  // namespace

void register_generate(CLI::App& app) {
  auto options = std::make_shared<GenerateOptions>();
  CLI::App& command = add_command(app, "generate", "Continue a text", examples);
  command.add_option("prompt", options->prompt, "text to continue; - reads standard input")
      ->type_name("")
      ->required();
  add_model_option(command, options->model);
  command.add_flag("--echo", options->echo, "print the prompt before the answer");
  command.add_flag("--json", options->json, "one JSON object instead of streamed text");
  command
      .add_option("--logprobs", options->logprobs,
                  "log probabilities of each token and of the N likeliest")
      ->type_name("N")
      ->check(CLI::Range(0, 100).description(""));
  add_answer_options(command, options->answer);
  add_constraint_options(command, options->constraint);
  add_sampling_options(command, options->sampling);
  add_machine_options(command, options->machine);
  on_run(command, [options] { return generate(*options); });
}

}  // namespace qnext::app
