#include "base/json.h"

#include <simdjson.h>

#include <charconv>
#include <cmath>
#include <limits>

#include "base/error.h"
#include "base/file.h"

namespace qnext::json {

namespace {

constexpr size_t index_threshold = 16;  // below it a linear scan beats the map
constexpr int maximum_depth = 512;

}  // namespace

Object::Object() = default;
Object::~Object() = default;
Object::Object(const Object&) = default;
Object::Object(Object&&) noexcept = default;
Object& Object::operator=(const Object&) = default;
Object& Object::operator=(Object&&) noexcept = default;

Object::Object(std::initializer_list<Entry> entries) {
  for (const Entry& entry : entries) set(entry.first, entry.second);
}

bool Object::operator==(const Object& other) const {
  if (size() != other.size()) return false;
  for (const auto& [key, value] : entries_) {
    const Value* twin = other.find(key);
    if (!twin || !(*twin == value)) return false;
  }
  return true;
}

const Value* Object::find(std::string_view key) const {
  if (entries_.size() < index_threshold) {
    for (const Entry& entry : entries_)
      if (entry.first == key) return &entry.second;
    return nullptr;
  }
  auto it = index_.find(key);
  return it == index_.end() ? nullptr : &entries_[it->second].second;
}

Value& Object::set(std::string key, Value value) {
  if (const Value* existing = find(key)) {
    Value& slot = const_cast<Value&>(*existing);
    slot = std::move(value);
    return slot;
  }
  entries_.emplace_back(std::move(key), std::move(value));
  if (entries_.size() == index_threshold) {
    for (size_t i = 0; i < entries_.size(); ++i) index_.emplace(entries_[i].first, i);
  } else if (entries_.size() > index_threshold) {
    index_.emplace(entries_.back().first, entries_.size() - 1);
  }
  return entries_.back().second;
}

const char* Value::kind_name() const {
  static constexpr const char* names[] = {"null",     "a boolean", "an integer", "a number",
                                          "a string", "an array",  "an object"};
  return names[storage_.index()];
}

bool Value::as_bool() const {
  if (const auto* value = std::get_if<bool>(&storage_)) return *value;
  fail("expected true or false, found {}", kind_name());
}

int64_t Value::as_integer() const {
  if (const auto* value = std::get_if<int64_t>(&storage_)) return *value;
  if (const auto* value = std::get_if<double>(&storage_)) {
    // 2^63 is exact in a double; anything at or beyond it does not fit.
    if (std::trunc(*value) == *value && std::abs(*value) < 9223372036854775808.0)
      return static_cast<int64_t>(*value);
    fail("expected a whole number, found {}", *value);
  }
  fail("expected a whole number, found {}", kind_name());
}

double Value::as_double() const {
  if (const auto* value = std::get_if<double>(&storage_)) return *value;
  if (const auto* value = std::get_if<int64_t>(&storage_)) return static_cast<double>(*value);
  fail("expected a number, found {}", kind_name());
}

const std::string& Value::as_string() const {
  if (const auto* value = std::get_if<std::string>(&storage_)) return *value;
  fail("expected a string, found {}", kind_name());
}

const Array& Value::as_array() const {
  if (const auto* value = std::get_if<Array>(&storage_)) return *value;
  fail("expected an array, found {}", kind_name());
}

const Object& Value::as_object() const {
  if (const auto* value = std::get_if<Object>(&storage_)) return *value;
  fail("expected an object, found {}", kind_name());
}

Array& Value::as_array() {
  return const_cast<Array&>(std::as_const(*this).as_array());
}
Object& Value::as_object() {
  return const_cast<Object&>(std::as_const(*this).as_object());
}

const Value* Value::find(std::string_view key) const {
  const auto* object = std::get_if<Object>(&storage_);
  return object ? object->find(key) : nullptr;
}

namespace {

Value convert(simdjson::dom::element element) {
  using simdjson::dom::element_type;
  switch (element.type()) {
    case element_type::ARRAY: {
      simdjson::dom::array array = element.get_array().value();
      Array out;
      out.reserve(array.size());
      for (simdjson::dom::element item : array) out.push_back(convert(item));
      return out;
    }
    case element_type::OBJECT: {
      Object out;
      const simdjson::dom::object object = element.get_object().value();
      for (auto [key, item] : object) out.set(std::string(key), convert(item));
      return out;
    }
    case element_type::STRING:
      return Value(element.get_string().value());
    case element_type::INT64:
      return element.get_int64().value();
    case element_type::UINT64:
      return static_cast<double>(element.get_uint64().value());
    case element_type::DOUBLE:
      return element.get_double().value();
    case element_type::BOOL:
      return element.get_bool().value();
    case element_type::NULL_VALUE:
      return nullptr;
  }
  return nullptr;
}

void write_to(std::string& out, const Value& value, int indent, int depth, bool ascii_only) {
  const auto new_line = [&](int levels) {
    if (indent >= 0) {
      out += '\n';
      out.append(static_cast<size_t>(indent) * static_cast<size_t>(levels), ' ');
    }
  };
  const char* const separator = indent >= 0 ? "," : ", ";
  if (value.is_null()) {
    out += "null";
  } else if (value.is_bool()) {
    out += value.as_bool() ? "true" : "false";
  } else if (value.is_integer()) {
    out += std::to_string(value.as_integer());
  } else if (value.is_float()) {
    out += format_double(value.as_double());
  } else if (value.is_string()) {
    append_string(out, value.as_string(), ascii_only);
  } else if (value.is_array()) {
    const Array& array = value.as_array();
    out += '[';
    for (size_t i = 0; i < array.size(); ++i) {
      if (i) out += separator;
      new_line(depth + 1);
      write_to(out, array[i], indent, depth + 1, ascii_only);
    }
    if (!array.empty()) new_line(depth);
    out += ']';
  } else {
    out += '{';
    bool first = true;
    for (const auto& [key, item] : value.as_object()) {
      if (!first) out += separator;
      first = false;
      new_line(depth + 1);
      append_string(out, key, ascii_only);
      out += ": ";
      write_to(out, item, indent, depth + 1, ascii_only);
    }
    if (!first) new_line(depth);
    out += '}';
  }
}

// Decodes the code point that starts at text[i]; the text is valid UTF-8 wherever it came from
// parse(). A stray byte is taken as itself.
uint32_t decode(std::string_view text, size_t i, size_t& length) {
  const auto byte = [&](size_t k) { return static_cast<unsigned char>(text[k]); };
  const unsigned char lead = byte(i);
  length = lead < 0x80 ? 1 : lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : lead >= 0xC0 ? 2 : 1;
  if (length == 1 || i + length > text.size()) {
    length = 1;
    return lead;
  }
  uint32_t point = lead & (0x7Fu >> length);
  for (size_t k = 1; k < length; ++k) point = point << 6 | (byte(i + k) & 0x3Fu);
  return point;
}

}  // namespace

Value parse(std::string_view text, std::string_view what) {
  simdjson::dom::parser parser;
  if (auto error = parser.allocate(text.size() + 1, maximum_depth); error)
    fail("{}: {} bytes of JSON are too many to parse", what, text.size());
  simdjson::dom::element root;
  if (auto error = parser.parse(text.data(), text.size()).get(root); error)
    fail("{}: not valid JSON: {}", what, simdjson::error_message(error));
  return convert(root);
}

Value parse_file(const std::string& path) {
  return parse(read_file(path), path);
}

std::string write(const Value& value, int indent, bool ascii_only) {
  std::string out;
  write_to(out, value, indent, 0, ascii_only);
  return out;
}

void append_string(std::string& out, std::string_view text, bool ascii_only) {
  out += '"';
  for (size_t i = 0; i < text.size(); ++i) {
    const unsigned char c = static_cast<unsigned char>(text[i]);
    switch (c) {
      case '"':
        out += "\\\"";
        break;
      case '\\':
        out += "\\\\";
        break;
      case '\n':
        out += "\\n";
        break;
      case '\r':
        out += "\\r";
        break;
      case '\t':
        out += "\\t";
        break;
      case '\b':
        out += "\\b";
        break;
      case '\f':
        out += "\\f";
        break;
      default:
        if (c < 0x20 || (c == 0x7F && ascii_only)) {
          out += fmt::format("\\u{:04x}", c);
        } else if (c < 0x80 || !ascii_only) {
          out += static_cast<char>(c);
        } else {
          size_t length = 1;
          uint32_t point = decode(text, i, length);
          if (point >= 0x10000) {
            point -= 0x10000;
            out +=
                fmt::format("\\u{:04x}\\u{:04x}", 0xD800 + (point >> 10), 0xDC00 + (point & 0x3FF));
          } else {
            out += fmt::format("\\u{:04x}", point);
          }
          i += length - 1;
        }
    }
  }
  out += '"';
}

std::string format_double(double value) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value < 0 ? "-Infinity" : "Infinity";
  // Python's repr: shortest digits, fixed notation from 1e-4 to below 1e16.
  std::string text = fmt::format("{}", value);
  const double magnitude = std::abs(value);
  if (value != 0 && (magnitude >= 1e16 || magnitude < 1e-4)) return text;
  if (text.find_first_of(".e") == std::string::npos) text += ".0";
  return text;
}

}  // namespace qnext::json
