// A grammar as the constraint of answers.
#pragma once

#include <memory>

#include "engine/constraint.h"
#include "text/grammar/token_grammar.h"

namespace qnext::engine {

// What the grammar's end tokens are, the engine's stop tokens should be: nothing else ends an
// answer that is complete.
std::shared_ptr<const Constraint> grammar_constraint(
    std::shared_ptr<grammar::TokenGrammar> grammar);

}  // namespace qnext::engine
