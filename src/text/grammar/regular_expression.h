// Regular expressions in the syntax of ECMA-262, as JSON Schema uses them: the texts in which one
// is found somewhere, unless ^ and $ say where.
//
// Read: literals, ., classes, \d \w \s and their opposites (ASCII digits and letters; white space
// as ECMA-262 lists it), escapes, groups of all kinds that capture or do not, |, * + ? {m,n} (lazy
// ones too, which hold for the same texts), ^ and $. Refused, as no automaton of this kind has
// them: look-around, backreferences, \b and \B; and \p{...}, for which there are no tables here.
#pragma once

#include <string_view>

#include "text/grammar/text_automaton.h"

namespace qnext::grammar {

// Throws Error saying what in it cannot be read, or that it needs too many states.
// `whole`: it must match the text from end to end, as vLLM's guided_regex does.
TextAutomaton regular_expression(std::string_view pattern, bool whole = false);

}  // namespace qnext::grammar
