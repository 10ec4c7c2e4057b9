#include "text/template_unicode.h"

#include <utf8proc.h>

namespace qnext::jinja {

namespace {

bool is_continuation(char byte) {
  return (static_cast<unsigned char>(byte) & 0xC0) == 0x80;
}

utf8proc_category_t category(uint32_t code_point) {
  return utf8proc_category(static_cast<utf8proc_int32_t>(code_point));
}

// The length of the valid sequence at `offset`; 0 where there is none.
size_t valid_length(std::string_view text, size_t offset) {
  utf8proc_int32_t code_point = 0;
  const auto* bytes = reinterpret_cast<const utf8proc_uint8_t*>(text.data()) + offset;
  const auto length =
      utf8proc_iterate(bytes, static_cast<utf8proc_ssize_t>(text.size() - offset), &code_point);
  return length > 0 ? static_cast<size_t>(length) : 0;
}

// Lower case of a capital sigma depends on its neighbours: final after a letter, before none.
bool is_final_sigma(std::string_view text, size_t offset, bool letter_before) {
  if (!letter_before) return false;
  const size_t next = offset + 2;
  return next >= text.size() || !is_alphabetic(decode_at(text, next));
}

void append_upper(std::string& out, uint32_t code_point, bool title = false) {
  if (code_point == 0xDF) {
    out += title ? "Ss" : "SS";
    return;
  }
  if (code_point == 0x149) {
    out +=
        "\xCA\xBC"
        "N";
    return;
  }
  if (code_point >= 0xFB00 &&
      code_point <= 0xFB06) {  // ligatures: full mappings of several letters
    static constexpr const char* upper[] = {"FF", "FI", "FL", "FFI", "FFL", "ST", "ST"};
    static constexpr const char* titled[] = {"Ff", "Fi", "Fl", "Ffi", "Ffl", "St", "St"};
    out += (title ? titled : upper)[code_point - 0xFB00];
    return;
  }
  const auto point = static_cast<utf8proc_int32_t>(code_point);
  append_code_point(
      out, static_cast<uint32_t>(title ? utf8proc_totitle(point) : utf8proc_toupper(point)));
}

void append_lower(std::string& out, std::string_view text, size_t offset, uint32_t code_point,
                  bool letter_before) {
  if (code_point == 0x3A3 && is_final_sigma(text, offset, letter_before)) {
    append_code_point(out, 0x3C2);
  } else if (code_point == 0x130) {
    out += "i\xCC\x87";
  } else {
    append_code_point(
        out, static_cast<uint32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(code_point))));
  }
}

bool is_cased(uint32_t code_point) {
  return is_lower(code_point) || is_upper(code_point) || is_title(code_point);
}

// Calls visit(offset, code point, whether a cased letter comes directly before).
template <typename Visit>
void for_each_code_point(std::string_view text, Visit&& visit) {
  bool letter_before = false;
  for (size_t i = 0; i < text.size(); i += sequence_length(text, i)) {
    const uint32_t code_point = decode_at(text, i);
    visit(i, code_point, letter_before);
    letter_before = is_cased(code_point);
  }
}

}  // namespace

bool is_valid_utf8(std::string_view text) {
  for (size_t i = 0; i < text.size();) {
    const size_t length = static_cast<unsigned char>(text[i]) < 0x80 ? 1 : valid_length(text, i);
    if (length == 0) return false;
    i += length;
  }
  return true;
}

std::string repair_utf8(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size();) {
    const size_t length = valid_length(text, i);
    if (length == 0) {
      out += "\xEF\xBF\xBD";
      ++i;
    } else {
      out.append(text, i, length);
      i += length;
    }
  }
  return out;
}

size_t count_code_points(std::string_view text) {
  size_t count = 0;
  for (char byte : text) count += is_continuation(byte) ? 0 : 1;
  return count;
}

size_t offset_of_code_point(std::string_view text, size_t index) {
  size_t offset = 0;
  for (; offset < text.size() && index > 0; --index) offset += sequence_length(text, offset);
  return offset;
}

size_t sequence_length(std::string_view text, size_t offset) {
  const auto lead = static_cast<unsigned char>(text[offset]);
  const size_t length = lead < 0xC0 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  return std::min(length, text.size() - offset);
}

uint32_t decode_at(std::string_view text, size_t offset) {
  const size_t length = sequence_length(text, offset);
  const uint32_t lead = static_cast<unsigned char>(text[offset]);
  if (length == 1) return lead;
  uint32_t code_point = lead & (0x7Fu >> length);
  for (size_t i = 1; i < length; ++i)
    code_point = code_point << 6 | (static_cast<unsigned char>(text[offset + i]) & 0x3Fu);
  return code_point;
}

void append_code_point(std::string& out, uint32_t code_point) {
  utf8proc_uint8_t bytes[4];
  const auto length = utf8proc_encode_char(static_cast<utf8proc_int32_t>(code_point), bytes);
  out.append(reinterpret_cast<const char*>(bytes), static_cast<size_t>(length));
}

bool is_space(uint32_t c) {
  if (c < 0x80) return c == ' ' || (c >= 9 && c <= 13) || (c >= 0x1C && c <= 0x1F);
  return c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 ||
         c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

bool is_line_break(uint32_t c) {
  return (c >= 10 && c <= 13) || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 ||
         c == 0x2029;
}

bool is_alphabetic(uint32_t c) {
  if (c < 0x80) return (c | 32) >= 'a' && (c | 32) <= 'z';
  const auto kind = category(c);
  return kind >= UTF8PROC_CATEGORY_LU && kind <= UTF8PROC_CATEGORY_LO;
}

bool is_decimal(uint32_t c) {
  if (c < 0x80) return c >= '0' && c <= '9';
  return category(c) == UTF8PROC_CATEGORY_ND;
}

bool is_digit(uint32_t c) {
  // Besides decimals: superscripts, subscripts and circled digits have a digit value.
  return is_decimal(c) || c == 0xB2 || c == 0xB3 || c == 0xB9 || c == 0x2070 ||
         (c >= 0x2074 && c <= 0x2079) || (c >= 0x2080 && c <= 0x2089) ||
         (c >= 0x2460 && c <= 0x2468) || (c >= 0x2474 && c <= 0x247C) ||
         (c >= 0x2488 && c <= 0x2490) || c == 0x24EA || (c >= 0x24F5 && c <= 0x24FD) ||
         c == 0x24FF || (c >= 0x2776 && c <= 0x277E) || (c >= 0x2780 && c <= 0x2788) ||
         (c >= 0x278A && c <= 0x2792);
}

bool is_numeric(uint32_t c) {
  if (is_digit(c)) return true;
  if (c < 0x80) return false;
  const auto kind = category(c);
  return kind == UTF8PROC_CATEGORY_NL || kind == UTF8PROC_CATEGORY_NO;
}

bool is_lower(uint32_t c) {
  if (c < 0x80) return c >= 'a' && c <= 'z';
  return category(c) == UTF8PROC_CATEGORY_LL || c == 0xAA || c == 0xBA;
}

bool is_upper(uint32_t c) {
  if (c < 0x80) return c >= 'A' && c <= 'Z';
  return category(c) == UTF8PROC_CATEGORY_LU;
}

bool is_title(uint32_t c) {
  return c >= 0x80 && category(c) == UTF8PROC_CATEGORY_LT;
}

bool is_printable(uint32_t c) {
  if (c < 0x80) return c >= 0x20 && c < 0x7F;
  const auto kind = category(c);
  return kind != UTF8PROC_CATEGORY_CN && kind < UTF8PROC_CATEGORY_ZS;
}

std::string to_upper(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for_each_code_point(text, [&](size_t, uint32_t c, bool) { append_upper(out, c); });
  return out;
}

std::string to_lower(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for_each_code_point(
      text, [&](size_t i, uint32_t c, bool before) { append_lower(out, text, i, c, before); });
  return out;
}

std::string to_title(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for_each_code_point(text, [&](size_t i, uint32_t c, bool before) {
    if (before)
      append_lower(out, text, i, c, before);
    else
      append_upper(out, c, true);
  });
  return out;
}

std::string capitalize(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for_each_code_point(text, [&](size_t i, uint32_t c, bool before) {
    if (i == 0)
      append_upper(out, c, true);
    else
      append_lower(out, text, i, c, before);
  });
  return out;
}

std::string swap_case(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for_each_code_point(text, [&](size_t i, uint32_t c, bool before) {
    if (is_upper(c))
      append_lower(out, text, i, c, before);
    else if (is_lower(c))
      append_upper(out, c);
    else
      append_code_point(out, c);
  });
  return out;
}

std::string_view strip(std::string_view text, Side side, const std::string_view* characters) {
  const auto drops = [&](size_t offset, size_t length) {
    if (!characters) return is_space(decode_at(text, offset));
    return characters->find(text.substr(offset, length)) != std::string_view::npos;
  };
  size_t begin = 0, end = text.size();
  if (side != Side::right)
    while (begin < end) {
      const size_t length = sequence_length(text, begin);
      if (!drops(begin, length)) break;
      begin += length;
    }
  if (side != Side::left)
    while (end > begin) {
      size_t last = end - 1;
      while (last > begin && is_continuation(text[last])) --last;
      if (!drops(last, end - last)) break;
      end = last;
    }
  return text.substr(begin, end - begin);
}

}  // namespace qnext::jinja
