// A tokenizer whose first ids are the ones that make streaming hard: parts of a character, tokens
// that overlap stop strings, a special token.
#pragma once

#include "text/tokenizer.h"

namespace qnext::engine::testing {

inline constexpr int32_t tiny_special = 10;     // "<end>", special
inline constexpr int32_t tiny_vocabulary = 12;  // the ids meant for models; more follow

// 0 "a", 1 "b", 2 "c", 3 " ", 4 to 6 the three bytes of the euro sign, 7 "ab", 8 "bc", 9 the first
// two bytes of the euro sign, 10 "<end>", 11 "<call>"; then all other bytes.
Tokenizer tiny_tokenizer();

}  // namespace qnext::engine::testing
