// Searching and cutting text in linear time: what str methods and string filters share.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "text/template_value.h"

namespace qnext::jinja {

inline constexpr size_t not_found = std::string_view::npos;

// Byte offsets, or not_found.
size_t find_first(Runtime& runtime, std::string_view text, std::string_view part, size_t from = 0);
size_t find_last(Runtime& runtime, std::string_view text, std::string_view part);

// At most `limit` cuts; a negative limit is none. By white space where `separator` is null.
std::vector<std::string_view> split(Runtime& runtime, std::string_view text,
                                    const std::string_view* separator, int64_t limit);
std::vector<std::string_view> split_right(Runtime& runtime, std::string_view text,
                                          const std::string_view* separator, int64_t limit);
std::vector<std::string_view> split_lines(Runtime& runtime, std::string_view text, bool keep_ends);

// At most `limit` replacements; a negative limit is none.
std::string replace(Runtime& runtime, std::string_view text, std::string_view from,
                    std::string_view to, int64_t limit);
int64_t count_parts(Runtime& runtime, std::string_view text, std::string_view part);
// Joins str() of the items where `coerce`, else throws Error on an item that is no string.
std::string join(Runtime& runtime, std::string_view separator, const std::vector<Value>& items,
                 bool coerce);
std::string center(Runtime& runtime, const std::string& text, int64_t width, std::string_view fill);

}  // namespace qnext::jinja
