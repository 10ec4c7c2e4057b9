// Tags, entities and percent signs: what a few filters know about the web.
#pragma once

#include <string>
#include <string_view>

namespace qnext::jinja {

class Runtime;

// Without comments and tags, white space collapsed, the common entities decoded.
std::string strip_tags(Runtime& runtime, std::string_view text);
// Percent-encoded; in a query string '/' too, and a space becomes '+'.
std::string quote_url(Runtime& runtime, std::string_view text, bool query);

}  // namespace qnext::jinja
