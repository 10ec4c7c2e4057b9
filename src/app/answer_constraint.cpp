#include "app/answer_constraint.h"

#include <CLI/CLI.hpp>
#include <filesystem>
#include <utility>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "engine/grammar_constraint.h"
#include "text/grammar/answer_grammar.h"
#include "text/grammar/token_grammar.h"

namespace qnext::app {
namespace {

// Schemas begin with a brace, or are true or false: names of files that do not exist.
json::Value read_schema(const std::string& given) {
  std::error_code ignored;
  const bool is_text =
      given.find_first_not_of(" \n\r\t") == given.find('{') || given == "true" || given == "false";
  if (is_text && !std::filesystem::is_regular_file(given, ignored))
    return json::parse(given, "--json-schema");
  return json::parse(read_file(given), given);
}

grammar::ContentForm content_form(const ConstraintOptions& options) {
  grammar::ContentForm form;
  if (!options.json_schema.empty()) {
    form.kind = grammar::ContentForm::Kind::schema;
    form.schema = read_schema(options.json_schema);
    form.path = "--json-schema";
  } else {
    form.kind = grammar::ContentForm::Kind::expression;
    form.expression = options.expression;
  }
  return form;
}

}  // namespace

void add_constraint_options(CLI::App& command, ConstraintOptions& options) {
  CLI::Option* schema =
      command
          .add_option("--json-schema", options.json_schema,
                      "the answer is JSON by this schema: a file, or the schema itself")
          ->type_name("FILE|TEXT");
  command
      .add_option("--regex", options.expression,
                  "the whole answer is what this regular expression matches")
      ->type_name("EXPRESSION")
      ->excludes(schema);
}

AnswerConstraint::AnswerConstraint(const ConstraintOptions& options, const Tokenizer& tokenizer,
                                   int64_t vocabulary, const std::vector<int32_t>& stop_tokens) {
  if (options.json_schema.empty() && options.expression.empty()) return;
  if (stop_tokens.empty())
    fail("this model has no token that ends an answer: no answer can be held to a form");
  grammar::AnswerForm form;
  form.content = content_form(options);
  std::shared_ptr<const grammar::Grammar> made;
  try {
    made = grammar::answer_grammar(form, ToolSchemas({}));
  } catch (const Error& error) {
    // Of a schema the error names the option already.
    if (options.expression.empty()) throw;
    fail("--regex: {}", error.what());
  }
  trie_.emplace(tokenizer, static_cast<int32_t>(vocabulary));
  constraint_ = engine::grammar_constraint(
      std::make_shared<grammar::TokenGrammar>(std::move(made), *trie_, stop_tokens));
}

}  // namespace qnext::app
