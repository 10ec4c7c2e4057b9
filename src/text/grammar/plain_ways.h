// What the states of an automaton do with plain characters (token_trie.h), in short.
#pragma once

#include <vector>

#include "text/grammar/grammar.h"
#include "text/grammar/text_automaton.h"

namespace qnext::grammar {

// Of each state; Grammar::Plain::most is 0 where it reads none or where it cannot be said in short.
std::vector<Grammar::Plain> plain_ways(const TextAutomaton& automaton);

}  // namespace qnext::grammar
