// Code points in UTF-8 text, with the classes and case mappings that Python's str uses.
// Every text here is valid UTF-8; offsets are bytes, counts are code points.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace qnext::jinja {

bool is_valid_utf8(std::string_view text);
// Each byte that belongs to no valid sequence becomes U+FFFD.
std::string repair_utf8(std::string_view text);

size_t count_code_points(std::string_view text);
// The byte offset of code point `index` (or the size of the text beyond the end).
size_t offset_of_code_point(std::string_view text, size_t index);
// The bytes of the sequence that starts at `offset`.
size_t sequence_length(std::string_view text, size_t offset);
uint32_t decode_at(std::string_view text, size_t offset);
void append_code_point(std::string& out, uint32_t code_point);

bool is_space(uint32_t code_point);       // str.isspace
bool is_alphabetic(uint32_t code_point);  // str.isalpha
bool is_digit(uint32_t code_point);       // str.isdigit
bool is_decimal(uint32_t code_point);     // str.isdecimal
bool is_numeric(uint32_t code_point);     // str.isnumeric
bool is_lower(uint32_t code_point);
bool is_upper(uint32_t code_point);
bool is_title(uint32_t code_point);
bool is_printable(uint32_t code_point);
bool is_line_break(uint32_t code_point);  // where str.splitlines cuts

std::string to_upper(std::string_view text);
std::string to_lower(std::string_view text);
// The first letter of each run of letters in title case, the others in lower case.
std::string to_title(std::string_view text);
std::string capitalize(std::string_view text);
std::string swap_case(std::string_view text);

enum class Side { left = 1, right = 2, both = 3 };
// Without characters: white space.
std::string_view strip(std::string_view text, Side side, const std::string_view* characters);

}  // namespace qnext::jinja
