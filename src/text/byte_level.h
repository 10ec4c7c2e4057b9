// The byte-level alphabet of GPT-2, in which vocabularies are written: every byte is shown as one
// printable character. Bytes that are printable in Latin-1 stand for themselves; the other 68
// become U+0100, U+0101, ... in order (a space is U+0120).
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace qnext {

// The bytes that valid UTF-8 in that alphabet stands for; none where a character is not of it.
std::optional<std::string> from_byte_level(std::string_view text);

// The character that stands for a byte.
std::string to_byte_level(unsigned char byte);

}  // namespace qnext
