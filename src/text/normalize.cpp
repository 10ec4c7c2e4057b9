#include "text/normalize.h"

#include <algorithm>
#include <vector>

#include "text/unicode_tables.h"
#include "text/utf8.h"

namespace qnext::unicode {

namespace {

// Hangul syllables are computed (Unicode Standard, section 3.12).
constexpr char32_t syllable_base = 0xAC00, leading_base = 0x1100, vowel_base = 0x1161,
                   trailing_base = 0x11A7;
constexpr char32_t leading_count = 19, vowel_count = 21, trailing_count = 28;
constexpr char32_t syllable_count = leading_count * vowel_count * trailing_count;

struct Item {
  char32_t code_point;
  uint8_t combining;
};

uint8_t combining_class(char32_t code_point) {
  const CombiningRange* end = combining_ranges + combining_range_count;
  const CombiningRange* range =
      std::lower_bound(combining_ranges, end, code_point,
                       [](const CombiningRange& r, char32_t c) { return r.last < c; });
  return range != end && range->first <= code_point ? range->value : uint8_t{0};
}

void decompose(char32_t code_point, std::vector<Item>& out) {
  if (code_point - syllable_base < syllable_count) {
    const char32_t index = code_point - syllable_base;
    out.push_back({leading_base + index / (vowel_count * trailing_count), 0});
    out.push_back({vowel_base + index / trailing_count % vowel_count, 0});
    if (index % trailing_count) out.push_back({trailing_base + index % trailing_count, 0});
    return;
  }
  const Decomposition* end = decompositions + decomposition_count;
  const Decomposition* entry =
      std::lower_bound(decompositions, end, code_point,
                       [](const Decomposition& d, char32_t c) { return d.code_point < c; });
  if (entry == end || entry->code_point != code_point) {
    out.push_back({code_point, combining_class(code_point)});
    return;
  }
  for (uint32_t i = 0; i < entry->length; ++i) {
    const char32_t part = decomposition_pool[entry->offset + i];
    out.push_back({part, combining_class(part)});
  }
}

// The primary composite of two code points, or 0.
char32_t compose(char32_t first, char32_t second) {
  if (first - leading_base < leading_count && second - vowel_base < vowel_count)
    return syllable_base +
           ((first - leading_base) * vowel_count + (second - vowel_base)) * trailing_count;
  if (first - syllable_base < syllable_count && (first - syllable_base) % trailing_count == 0 &&
      second > trailing_base && second < trailing_base + trailing_count)
    return first + (second - trailing_base);
  const Composition* end = compositions + composition_count;
  const Composition* entry = std::lower_bound(
      compositions, end, std::pair(first, second),
      [](const Composition& c, const std::pair<char32_t, char32_t>& pair) {
        return c.first != pair.first ? c.first < pair.first : c.second < pair.second;
      });
  return entry != end && entry->first == first && entry->second == second ? entry->composed : 0;
}

void reorder(std::vector<Item>& items) {
  for (auto begin = items.begin(); begin != items.end();) {
    if (begin->combining == 0) {
      ++begin;
      continue;
    }
    const auto end =
        std::find_if(begin, items.end(), [](const Item& i) { return i.combining == 0; });
    std::stable_sort(begin, end,
                     [](const Item& a, const Item& b) { return a.combining < b.combining; });
    begin = end;
  }
}

// Joins each character to the last starter unless something between blocks it; in place.
void recompose(std::vector<Item>& items) {
  size_t size = 0;
  ptrdiff_t starter = -1;
  int last = -1;  // combining class of the last item kept after the starter, -1 for none
  for (const Item item : items) {
    if (starter >= 0 && last < item.combining) {
      const char32_t composed =
          compose(items[static_cast<size_t>(starter)].code_point, item.code_point);
      if (composed) {
        items[static_cast<size_t>(starter)].code_point = composed;
        continue;
      }
    }
    if (item.combining == 0) {
      starter = static_cast<ptrdiff_t>(size);
      last = -1;
    } else {
      last = item.combining;
    }
    items[size++] = item;
  }
  items.resize(size);
}

bool is_complex(std::string_view text, size_t offset) {
  return classes(utf8::decode(text.data() + offset)) & nfc_complex;
}

}  // namespace

std::string_view nfc(std::string_view text, std::string& storage) {
  storage.clear();
  std::vector<Item> items;
  std::string segment;
  size_t copied = 0;
  for (size_t offset = utf8::skip_ascii(text, 0); offset < text.size();) {
    if (static_cast<uint8_t>(text[offset]) < 0x80) {
      offset = utf8::skip_ascii(text, offset);
      continue;
    }
    if (!is_complex(text, offset)) {
      offset += utf8::length_of(text[offset]);
      continue;
    }
    // A character that is not complex neither joins nor passes the one before it: the text falls
    // into independent segments there. This one starts at the character before.
    const size_t begin = offset == 0 ? 0 : utf8::previous(text, offset);
    while (offset < text.size() && is_complex(text, offset))
      offset += utf8::length_of(text[offset]);
    items.clear();
    for (size_t i = begin; i < offset; i += utf8::length_of(text[i]))
      decompose(utf8::decode(text.data() + i), items);
    reorder(items);
    recompose(items);
    segment.clear();
    for (const Item& item : items) utf8::append(segment, item.code_point);
    if (segment == text.substr(begin, offset - begin)) continue;
    storage.append(text, copied, begin - copied);
    storage.append(segment);
    copied = offset;
  }
  if (copied == 0) return text;
  storage.append(text, copied);
  return storage;
}

}  // namespace qnext::unicode
