// Options that hold one answer to a form.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/constraint.h"
#include "text/grammar/token_trie.h"
#include "text/tokenizer.h"

namespace CLI {
class App;
}

namespace qnext::app {

struct ConstraintOptions {
  std::string json_schema;  // a file's name, or the schema itself; empty: none
  std::string expression;   // of the whole answer; empty: none
};

// --json-schema and --regex.
void add_constraint_options(CLI::App& command, ConstraintOptions& options);

// Must outlive the engine that answers by it, as must the tokenizer.
class AnswerConstraint {
 public:
  // `stop_tokens` end answers. Throws Error where a form is asked for that cannot be enforced.
  AnswerConstraint(const ConstraintOptions& options, const Tokenizer& tokenizer, int64_t vocabulary,
                   const std::vector<int32_t>& stop_tokens);

  // Null: any answer will do.
  const std::shared_ptr<const engine::Constraint>& constraint() const { return constraint_; }

 private:
  std::optional<grammar::TokenTrie> trie_;
  std::shared_ptr<const engine::Constraint> constraint_;
};

}  // namespace qnext::app
