// What the values of JSON Schema's "format" look like, as regular expressions. Each writes the
// texts of one form that every reader takes: some formats allow more (comments in mail addresses,
// IPv6 with an IPv4 tail, leap seconds), which is never generated.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace qnext::grammar {

// Of the whole text; nothing where there is none.
std::optional<std::string> format_expression(std::string_view format);
// Whether JSON Schema defines a format of that name. Others are notes for the reader.
bool is_format(std::string_view format);

}  // namespace qnext::grammar
