#include "checkpoint/gguf_metadata.h"

#include <cstring>
#include <limits>

#include "base/error.h"
#include "checkpoint/stored_tensor.h"

namespace qnext {

namespace {

template <typename Type>
Type load(const std::byte* at) {
  Type value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

// Whether items of the type are integers or booleans.
bool is_whole(GgufType type) {
  return type != GgufType::f32 && type != GgufType::f64 && type != GgufType::string &&
         type != GgufType::array;
}

}  // namespace

GgufScalar GgufArray::scalar(size_t index) const {
  QNEXT_CHECK(scalars && index < count);
  switch (type) {
    case GgufType::u8:
      return uint64_t{load<uint8_t>(scalars + index)};
    case GgufType::i8:
      return int64_t{load<int8_t>(scalars + index)};
    case GgufType::u16:
      return uint64_t{load<uint16_t>(scalars + 2 * index)};
    case GgufType::i16:
      return int64_t{load<int16_t>(scalars + 2 * index)};
    case GgufType::u32:
      return uint64_t{load<uint32_t>(scalars + 4 * index)};
    case GgufType::i32:
      return int64_t{load<int32_t>(scalars + 4 * index)};
    case GgufType::u64:
      return load<uint64_t>(scalars + 8 * index);
    case GgufType::i64:
      return load<int64_t>(scalars + 8 * index);
    case GgufType::f32:
      return double{load<float>(scalars + 4 * index)};
    case GgufType::f64:
      return load<double>(scalars + 8 * index);
    case GgufType::boolean:
      return load<uint8_t>(scalars + index) != 0;
    case GgufType::string:
    case GgufType::array:
      break;
  }
  QNEXT_CHECK(false, "no scalar");
  return {};
}

std::string kind_of(const GgufValue& value) {
  if (std::holds_alternative<std::string_view>(value)) return "text";
  if (const auto* array = std::get_if<GgufArray>(&value)) {
    if (array->type == GgufType::string) return "an array of text";
    if (array->type == GgufType::array) return "an array of arrays";
    if (array->type == GgufType::boolean) return "an array of booleans";
    return is_whole(array->type) ? "an array of integers" : "an array of numbers";
  }
  const auto& scalar = std::get<GgufScalar>(value);
  if (std::holds_alternative<bool>(scalar)) return "a boolean";
  return std::holds_alternative<double>(scalar) ? "a number" : "an integer";
}

bool GgufMetadata::add(std::string_view key, GgufValue value) {
  return entries_.emplace(key, std::move(value)).second;
}

const GgufValue* GgufMetadata::find(std::string_view key) const {
  const auto found = entries_.find(key);
  return found == entries_.end() ? nullptr : &found->second;
}

std::optional<int64_t> GgufMetadata::find_integer(std::string_view key) const {
  const GgufValue* value = find(key);
  if (!value) return std::nullopt;
  const auto* scalar = std::get_if<GgufScalar>(value);
  if (!scalar || std::holds_alternative<bool>(*scalar)) fail_kind(key, "an integer");
  return integer_of(key, *scalar);
}

std::optional<double> GgufMetadata::find_number(std::string_view key) const {
  const GgufValue* value = find(key);
  if (!value) return std::nullopt;
  const auto* scalar = std::get_if<GgufScalar>(value);
  if (!scalar || std::holds_alternative<bool>(*scalar)) fail_kind(key, "a number");
  if (const auto* number = std::get_if<double>(scalar)) return *number;
  return static_cast<double>(integer_of(key, *scalar));
}

std::optional<bool> GgufMetadata::find_boolean(std::string_view key) const {
  const GgufValue* value = find(key);
  if (!value) return std::nullopt;
  const auto* scalar = std::get_if<GgufScalar>(value);
  const auto* boolean = scalar ? std::get_if<bool>(scalar) : nullptr;
  if (!boolean) fail_kind(key, "a boolean");
  return *boolean;
}

std::optional<std::string_view> GgufMetadata::find_string(std::string_view key) const {
  const GgufValue* value = find(key);
  if (!value) return std::nullopt;
  const auto* text = std::get_if<std::string_view>(value);
  if (!text) fail_kind(key, "text");
  return *text;
}

std::optional<std::vector<std::string_view>> GgufMetadata::find_strings(
    std::string_view key) const {
  const GgufValue* value = find(key);
  if (!value) return std::nullopt;
  const auto* array = std::get_if<GgufArray>(value);
  if (!array || array->type != GgufType::string) fail_kind(key, "an array of text");
  return array->strings;
}

std::optional<std::vector<int64_t>> GgufMetadata::find_integers(std::string_view key) const {
  const GgufValue* value = find(key);
  if (!value) return std::nullopt;
  const auto* array = std::get_if<GgufArray>(value);
  if (!array || !is_whole(array->type)) fail_kind(key, "an array of integers");
  std::vector<int64_t> integers(array->count);
  for (size_t i = 0; i < array->count; ++i) integers[i] = integer_of(key, array->scalar(i));
  return integers;
}

int64_t GgufMetadata::integer(std::string_view key) const {
  if (const auto value = find_integer(key)) return *value;
  fail_missing(key);
}

double GgufMetadata::number(std::string_view key) const {
  if (const auto value = find_number(key)) return *value;
  fail_missing(key);
}

std::string_view GgufMetadata::string(std::string_view key) const {
  if (const auto value = find_string(key)) return *value;
  fail_missing(key);
}

std::vector<std::string_view> GgufMetadata::strings(std::string_view key) const {
  if (auto value = find_strings(key)) return *std::move(value);
  fail_missing(key);
}

void GgufMetadata::fail_kind(std::string_view key, std::string_view wanted) const {
  fail("{}: metadata {} must be {}, not {}", what_, key, wanted, kind_of(*find(key)));
}

void GgufMetadata::fail_missing(std::string_view key) const {
  fail("{}: metadata {} is missing", what_, key);
}

int64_t GgufMetadata::integer_of(std::string_view key, const GgufScalar& scalar) const {
  if (const auto* value = std::get_if<int64_t>(&scalar)) return *value;
  if (const auto* value = std::get_if<bool>(&scalar)) return *value;
  const auto* value = std::get_if<uint64_t>(&scalar);
  if (!value) fail_kind(key, "an integer");
  if (*value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()))
    fail("{}: metadata {} = {} is out of range", what_, key, *value);
  return static_cast<int64_t>(*value);
}

}  // namespace qnext
