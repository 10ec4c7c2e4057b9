#include "text/chat_template.h"

#include <filesystem>

#include "base/error.h"
#include "base/file.h"
#include "text/template_evaluator.h"
#include "text/template_parser.h"

namespace qnext {

struct ChatTemplate::Program {
  std::string source;
  jinja::Body body;
};

namespace {

std::shared_ptr<jinja::Scope> make_scope(std::shared_ptr<jinja::Scope> parent = nullptr) {
  auto scope = std::make_shared<jinja::Scope>();
  scope->parent = std::move(parent);
  return scope;
}

}  // namespace

ChatTemplate::ChatTemplate(std::string source) {
  auto body = jinja::parse_template(source);
  program_ = std::make_unique<const Program>(Program{std::move(source), std::move(body)});
}

ChatTemplate::~ChatTemplate() = default;
ChatTemplate::ChatTemplate(ChatTemplate&&) noexcept = default;
ChatTemplate& ChatTemplate::operator=(ChatTemplate&&) noexcept = default;

const std::string& ChatTemplate::source() const {
  return program_->source;
}

std::string ChatTemplate::render(const json::Object& variables) const {
  return render(variables, std::nullopt);
}

std::string ChatTemplate::render(const json::Object& variables,
                                 std::optional<std::time_t> now) const {
  jinja::Runtime runtime(jinja::Limits{}, now);
  try {
    const auto globals = make_scope();
    jinja::add_globals(runtime, *globals);
    for (const auto& [name, value] : variables)
      globals->set(runtime, name, jinja::from_json(runtime, value));
    std::string out;
    jinja::Evaluator evaluator(runtime);
    evaluator.execute(program_->body, make_scope(globals), out);
    return out;
  } catch (const Error& error) {
    jinja::fail_at(runtime.line, error.what());
  }
}

namespace {

std::optional<std::string> template_named(const json::Value& templates, std::string_view name) {
  for (const json::Value& entry : templates.as_array()) {
    const json::Value* entry_name = entry.find("name");
    const json::Value* text = entry.find("template");
    if (entry_name && text && *entry_name == json::Value(name)) return text->as_string();
  }
  return std::nullopt;
}

// Special tokens are strings, or objects that hold the text beside flags.
json::Object special_tokens(const json::Value& config) {
  static constexpr const char* names[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                          "pad_token", "cls_token", "mask_token"};
  json::Object tokens;
  for (const char* name : names) {
    const json::Value* token = config.find(name);
    if (!token) continue;
    const json::Value* content = token->find("content");
    if (!content) content = token;
    if (content->is_string()) tokens.set(name, *content);
  }
  return tokens;
}

}  // namespace

ModelChatTemplate::ModelChatTemplate(ChatTemplate standard, std::optional<ChatTemplate> with_tools,
                                     json::Object tokens)
    : standard_(std::move(standard)),
      with_tools_(std::move(with_tools)),
      tokens_(std::move(tokens)) {}

std::optional<ModelChatTemplate> ModelChatTemplate::load(const std::string& folder) {
  const std::string config_path = folder + "/tokenizer_config.json";
  const std::string template_path = folder + "/chat_template.jinja";
  json::Value config = json::Object{};
  if (std::filesystem::exists(config_path)) config = json::parse_file(config_path);
  json::Object tokens = special_tokens(config);
  if (std::filesystem::exists(template_path))
    return ModelChatTemplate(ChatTemplate(read_file(template_path)), std::nullopt,
                             std::move(tokens));
  const json::Value* templates = config.find("chat_template");
  if (!templates || templates->is_null()) return std::nullopt;
  if (templates->is_string())
    return ModelChatTemplate(ChatTemplate(templates->as_string()), std::nullopt, std::move(tokens));
  if (!templates->is_array())
    fail("{}: chat_template must be a string or a list of named templates", config_path);
  const auto standard = template_named(*templates, "default");
  const auto with_tools = template_named(*templates, "tool_use");
  if (!standard) fail("{}: chat_template has no template named 'default'", config_path);
  return ModelChatTemplate(
      ChatTemplate(*standard),
      with_tools ? std::optional<ChatTemplate>(ChatTemplate(*with_tools)) : std::nullopt,
      std::move(tokens));
}

std::string ModelChatTemplate::render(const json::Object& variables) const {
  json::Object all = tokens_;
  for (const auto& [name, value] : variables) all.set(name, value);
  const json::Value* tools = all.find("tools");
  const bool has_tools = tools && !tools->is_null();
  return (has_tools && with_tools_ ? *with_tools_ : standard_).render(all);
}

ModelChatTemplate transcript_template() {
  constexpr const char* source =
      "{%- set text = namespace(end='\\n') -%}"
      "{%- for message in messages -%}"
      "{%- set asked = message.role not in ['system', 'assistant'] -%}"
      "{%- if asked and text.end != '\\n' %}{{ '\\n' }}{% endif -%}"
      "{{- message.content -}}"
      "{%- if message.content %}{% set text.end = message.content[-1:] %}{% endif -%}"
      "{%- if asked %}{{ '\\n' }}{% set text.end = '\\n' %}{% endif -%}"
      "{%- endfor -%}";
  return {ChatTemplate(source), std::nullopt, {}};
}

}  // namespace qnext
