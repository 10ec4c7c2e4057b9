// "Did you mean ...?"
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace qnext::app {

// The candidate with the fewest single-letter edits (insert, remove, replace, swap neighbours) from
// `word`; empty where none is nearer than a third of the word's length, at least 2.
std::string nearest(std::string_view word, const std::vector<std::string>& candidates);

}  // namespace qnext::app
