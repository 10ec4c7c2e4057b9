#include "server/completions.h"

#include <utility>
#include <vector>

#include "server/answer_fields.h"
#include "server/answer_form.h"
#include "server/logprobs.h"
#include "server/prompts.h"
#include "server/response_head.h"

namespace qnext::server {
namespace {

// As OpenAI's: completions of no stated length are short.
constexpr int64_t default_max_tokens = 16;

class CompletionWriter : public ResponseWriter {
 public:
  struct Options {
    ResponseHead head;
    bool stream = false;
    bool include_usage = false;
    bool logprobs = false;
    bool token_ids = false;
    std::vector<std::string> echoes;  // of each choice; empty without echo
  };
  CompletionWriter(Options options, size_t choices, const Tokenizer& tokenizer)
      : options_(std::move(options)), tokenizer_(tokenizer), choices_(choices) {}

  std::string begin() override {
    std::string out;
    for (size_t i = 0; i < options_.echoes.size(); ++i) {
      const AnswerNews echo{.text = options_.echoes[i], .tokens = {}, .finish = std::nullopt};
      out += news(i, echo);
    }
    return out;
  }

  std::string news(size_t number, const AnswerNews& news) override {
    Choice& choice = choices_[number];
    if (news.finish) choice.finish_reason = finish_reason_text(news.finish->reason);
    if (!options_.stream) {
      choice.text += news.text;
      choice.tokens.insert(choice.tokens.end(), news.tokens.begin(), news.tokens.end());
      return {};
    }
    return options_.head.chunk("text_completion", {choice_object(number, news.text, news.tokens)},
                               options_.include_usage);
  }

  std::string end(const Usage& usage) override {
    if (options_.stream) {
      std::string out;
      if (options_.include_usage) out = options_.head.usage_chunk("text_completion", usage);
      return out.append(done_event);
    }
    json::Array all;
    for (size_t i = 0; i < choices_.size(); ++i)
      all.emplace_back(choice_object(i, choices_[i].text, choices_[i].tokens));
    json::Object whole = options_.head.object("text_completion", std::move(all));
    whole.set("usage", usage.object());
    return json::write(whole);
  }

 private:
  struct Choice {
    json::Value finish_reason;
    int64_t offset = 0;  // of the next token, in characters
    std::string text;
    std::vector<ops::SampledToken> tokens;
  };

  json::Object choice_object(size_t number, const std::string& text,
                             const std::vector<ops::SampledToken>& tokens) {
    Choice& choice = choices_[number];
    json::Value logprobs;
    if (options_.logprobs) logprobs = completion_logprobs(tokenizer_, tokens, choice.offset);
    json::Object object = {{"index", static_cast<int64_t>(number)},
                           {"text", text},
                           {"logprobs", std::move(logprobs)},
                           {"finish_reason", choice.finish_reason}};
    if (options_.token_ids) {
      json::Array ids;
      for (const ops::SampledToken& token : tokens) ids.emplace_back(int64_t{token.token});
      object.set("token_ids", std::move(ids));
    }
    return object;
  }

  Options options_;
  const Tokenizer& tokenizer_;
  std::vector<Choice> choices_;
};

}  // namespace

std::unique_ptr<Generation> start_completion(const json::Value& body, const std::string& id,
                                             const ServedModel& model, EngineThread& engine) {
  const Fields fields(body);
  AnswerSettings settings = read_answer_settings(fields, model);
  for (const char* name : {"suffix", "best_of", "prompt_logprobs"}) fields.refuse_unsupported(name);
  if (!settings.request.max_tokens) settings.request.max_tokens = default_max_tokens;
  const auto logprobs = fields.integer("logprobs", 0, 20);
  settings.request.sampling.logprobs = static_cast<int32_t>(logprobs.value_or(-1));
  // As vLLM's: an answer that is to be part of a prompt of tokens.
  const bool token_ids = fields.boolean("return_token_ids").value_or(false);
  const bool echo = fields.boolean("echo").value_or(false);
  if (echo && logprobs) fields.refuse("echo", "cannot be told the logprobs of prompts yet");

  settings.request.constraint = read_text_form(fields, model).constraint;
  if (echo && settings.request.constraint)
    fields.refuse("echo", "cannot stand before an answer that has a form");

  const std::vector<TextPrompt> prompts =
      read_text_prompts(fields, "prompt", most_choices, *model.tokenizer);
  if (std::ssize(prompts) * settings.choices > most_choices)
    fields.refuse("n", fmt::format("asks for more than {} answers in all", most_choices));
  std::vector<engine::GenerationRequest> requests;
  CompletionWriter::Options options{.head = make_head("cmpl-", id, model.id),
                                    .stream = settings.stream,
                                    .include_usage = settings.include_usage,
                                    .logprobs = logprobs.has_value(),
                                    .token_ids = token_ids,
                                    .echoes = {}};
  for (const TextPrompt& prompt : prompts) {
    add_choices(requests, settings, prompt.tokens, engine.options().max_context, "prompt");
    if (echo) options.echoes.insert(options.echoes.end(), settings.choices, prompt.text);
  }
  auto writer =
      std::make_unique<CompletionWriter>(std::move(options), requests.size(), *model.tokenizer);
  return std::make_unique<Generation>(
      engine.submit(std::move(requests),
                    feed_options(settings.stream, token_ids || logprobs.has_value())),
      std::move(writer), settings.stream, settings.choices);
}

}  // namespace qnext::server
