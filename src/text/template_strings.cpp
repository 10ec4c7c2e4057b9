#include "text/template_strings.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "text/template_arithmetic.h"
#include "text/template_operations.h"
#include "text/template_runtime.h"
#include "text/template_unicode.h"

namespace qnext::jinja {

namespace {

size_t find_part(std::string_view text, std::string_view part, size_t from) {
  if (from > text.size()) return not_found;
  // memmem is linear in the worst case; string_view::find is not.
  const void* hit = memmem(text.data() + from, text.size() - from, part.data(), part.size());
  return hit ? static_cast<size_t>(static_cast<const char*>(hit) - text.data()) : not_found;
}

class Pieces {
 public:
  explicit Pieces(Runtime& runtime) : runtime_(runtime) {}
  void add(std::string_view piece) {
    runtime_.allocate(sizeof(std::string_view));
    pieces_.push_back(piece);
  }
  std::vector<std::string_view> take(bool reversed) {
    if (reversed) std::reverse(pieces_.begin(), pieces_.end());
    return std::move(pieces_);
  }

 private:
  Runtime& runtime_;
  std::vector<std::string_view> pieces_;
};

std::vector<std::string_view> split_spaces(Runtime& runtime, std::string_view text, int64_t limit) {
  Pieces pieces(runtime);
  size_t i = 0;
  for (;;) {
    while (i < text.size() && is_space(decode_at(text, i))) i += sequence_length(text, i);
    if (i >= text.size()) break;
    if (limit-- == 0) {
      pieces.add(text.substr(i));
      break;
    }
    const size_t begin = i;
    while (i < text.size() && !is_space(decode_at(text, i))) i += sequence_length(text, i);
    pieces.add(text.substr(begin, i - begin));
  }
  return pieces.take(false);
}

size_t previous(std::string_view text, size_t end) {
  size_t i = end - 1;
  while (i > 0 && (static_cast<unsigned char>(text[i]) & 0xC0) == 0x80) --i;
  return i;
}

std::vector<std::string_view> split_spaces_right(Runtime& runtime, std::string_view text,
                                                 int64_t limit) {
  Pieces pieces(runtime);
  size_t end = text.size();
  const auto space_before = [&] { return is_space(decode_at(text, previous(text, end))); };
  for (;;) {
    while (end > 0 && space_before()) end = previous(text, end);
    if (end == 0) break;
    if (limit-- == 0) {
      pieces.add(text.substr(0, end));
      break;
    }
    const size_t piece_end = end;
    while (end > 0 && !space_before()) end = previous(text, end);
    pieces.add(text.substr(end, piece_end - end));
  }
  return pieces.take(true);
}

}  // namespace

size_t find_first(Runtime& runtime, std::string_view text, std::string_view part, size_t from) {
  runtime.scan(text.size());
  return find_part(text, part, from);
}

size_t find_last(Runtime& runtime, std::string_view text, std::string_view part) {
  if (part.size() > text.size()) return not_found;
  runtime.allocate(text.size() + part.size());
  const std::string reversed_text(text.rbegin(), text.rend());
  const std::string reversed_part(part.rbegin(), part.rend());
  const size_t hit = find_part(reversed_text, reversed_part, 0);
  return hit == not_found ? not_found : text.size() - hit - part.size();
}

std::vector<std::string_view> split(Runtime& runtime, std::string_view text,
                                    const std::string_view* separator, int64_t limit) {
  runtime.scan(text.size());
  if (!separator) return split_spaces(runtime, text, limit);
  if (separator->empty()) fail("split needs a separator that is not empty");
  Pieces pieces(runtime);
  size_t begin = 0;
  while (limit-- != 0) {
    const size_t hit = find_part(text, *separator, begin);
    if (hit == not_found) break;
    pieces.add(text.substr(begin, hit - begin));
    begin = hit + separator->size();
  }
  pieces.add(text.substr(begin));
  return pieces.take(false);
}

std::vector<std::string_view> split_right(Runtime& runtime, std::string_view text,
                                          const std::string_view* separator, int64_t limit) {
  if (!separator) return split_spaces_right(runtime, text, limit);
  if (separator->empty()) fail("rsplit needs a separator that is not empty");
  runtime.allocate(text.size() + separator->size());
  const std::string reversed(text.rbegin(), text.rend());
  const std::string part(separator->rbegin(), separator->rend());
  Pieces pieces(runtime);
  size_t done = 0;  // bytes cut off at the end of the text
  while (limit-- != 0) {
    const size_t hit = find_part(reversed, part, done);
    if (hit == not_found) break;
    pieces.add(text.substr(text.size() - hit, hit - done));
    done = hit + part.size();
  }
  pieces.add(text.substr(0, text.size() - done));
  return pieces.take(true);
}

std::vector<std::string_view> split_lines(Runtime& runtime, std::string_view text, bool keep_ends) {
  runtime.scan(text.size());
  Pieces pieces(runtime);
  for (size_t begin = 0; begin < text.size();) {
    size_t end = begin;
    while (end < text.size() && !is_line_break(decode_at(text, end)))
      end += sequence_length(text, end);
    size_t next = end;
    if (next < text.size()) {
      const bool pair = text[next] == '\r' && next + 1 < text.size() && text[next + 1] == '\n';
      next += pair ? 2 : sequence_length(text, next);
    }
    pieces.add(text.substr(begin, (keep_ends ? next : end) - begin));
    begin = next;
  }
  return pieces.take(false);
}

std::string replace(Runtime& runtime, std::string_view text, std::string_view from,
                    std::string_view to, int64_t limit) {
  std::string out;
  size_t begin = 0;
  runtime.allocate(text.size());
  while (limit != 0) {
    // An empty `from` matches before each code point and at the end.
    const size_t hit = from.empty() ? begin : find_part(text, from, begin);
    if (hit == not_found) break;
    runtime.allocate(to.size());
    runtime.step();
    out.append(text, begin, hit - begin);
    out += to;
    --limit;
    begin = hit + from.size();
    if (from.empty()) {
      if (begin >= text.size()) return out;
      const size_t length = sequence_length(text, begin);
      out.append(text, begin, length);
      begin += length;
    }
  }
  out.append(text, begin);
  return out;
}

int64_t count_parts(Runtime& runtime, std::string_view text, std::string_view part) {
  runtime.scan(text.size());
  if (part.empty()) return static_cast<int64_t>(count_code_points(text)) + 1;
  int64_t count = 0;
  for (size_t i = find_part(text, part, 0); i != not_found;
       i = find_part(text, part, i + part.size()))
    ++count;
  return count;
}

std::string join(Runtime& runtime, std::string_view separator, const std::vector<Value>& items,
                 bool coerce) {
  std::string out;
  for (size_t i = 0; i < items.size(); ++i) {
    if (!coerce && !items[i].is_string())
      fail("join needs strings, found a '{}'", items[i].type_name());
    runtime.step();
    runtime.allocate(separator.size());
    if (i) out += separator;
    append_text(runtime, out, items[i]);
  }
  return out;
}

std::string center(Runtime& runtime, const std::string& text, int64_t width,
                   std::string_view fill) {
  const int64_t missing = width - static_cast<int64_t>(count_code_points(text));
  if (missing <= 0) return text;
  // Where the margins differ, an odd width puts the larger one on the left.
  const int64_t left = missing / 2 + (missing & width & 1);
  runtime.allocate(text.size());
  return repeat(runtime, fill, left) + text + repeat(runtime, fill, missing - left);
}

}  // namespace qnext::jinja
