#include "checkpoint/gguf_reader.h"

#include <algorithm>
#include <bit>

namespace qnext {

static_assert(std::endian::native == std::endian::little, "GGUF is read as it lies in memory");

namespace {

constexpr int deepest_array = 8;  // arrays of arrays are allowed; nobody writes them

// Bytes of a number or boolean; 0 for the other types.
size_t scalar_bytes(GgufType type) {
  switch (type) {
    case GgufType::u8:
    case GgufType::i8:
    case GgufType::boolean:
      return 1;
    case GgufType::u16:
    case GgufType::i16:
      return 2;
    case GgufType::u32:
    case GgufType::i32:
    case GgufType::f32:
      return 4;
    case GgufType::u64:
    case GgufType::i64:
    case GgufType::f64:
      return 8;
    case GgufType::string:
    case GgufType::array:
      break;
  }
  return 0;
}

}  // namespace

const std::byte* GgufReader::bytes(size_t count, std::string_view place) {
  if (count > left())
    bad("{} needs {} bytes at offset {}, but {} follow; the file is cut short", place, count,
        position_, left());
  const std::byte* at = file_.data() + position_;
  position_ += count;
  return at;
}

std::string_view GgufReader::string(size_t longest, std::string_view place) {
  const auto length = number<uint64_t>(place);
  if (length > longest) bad("{} has a text of {} bytes; at most {} may be", place, length, longest);
  return {reinterpret_cast<const char*>(bytes(length, place)), length};
}

GgufValue GgufReader::value(uint32_t type, std::string_view place) {
  switch (checked_type(type, place)) {
    case GgufType::string:
      return string(left(), place);
    case GgufType::array:
      return array(place, 1);
    default:
      return scalar(static_cast<GgufType>(type), place);
  }
}

GgufType GgufReader::checked_type(uint32_t type, std::string_view place) const {
  if (type > static_cast<uint32_t>(GgufType::f64))
    bad("{} has a value of the unknown type {}", place, type);
  return static_cast<GgufType>(type);
}

GgufScalar GgufReader::scalar(GgufType type, std::string_view place) {
  GgufArray one;
  one.type = type;
  one.count = 1;
  one.scalars = bytes(scalar_bytes(type), place);
  if (type == GgufType::boolean && std::to_integer<int>(*one.scalars) > 1)
    bad("{} is the boolean {}, neither 0 nor 1", place, std::to_integer<int>(*one.scalars));
  return one.scalar(0);
}

GgufArray GgufReader::array(std::string_view place, int depth) {
  if (depth > deepest_array) bad("{} has arrays in arrays, {} deep", place, depth);
  GgufArray out;
  out.type = checked_type(number<uint32_t>(place), place);
  const auto count = number<uint64_t>(place);
  // What an item takes at least: texts begin with a length, arrays with a type and a count.
  const size_t item_bytes = out.type == GgufType::string  ? 8
                            : out.type == GgufType::array ? 12
                                                          : scalar_bytes(out.type);
  if (count > left() / item_bytes)
    bad("{} has {} items, but {} bytes follow; the file is cut short", place, count, left());
  out.count = count;
  if (out.type == GgufType::string) {
    out.strings.reserve(count);
    for (size_t i = 0; i < count; ++i) out.strings.push_back(string(left(), place));
  } else if (out.type == GgufType::array) {
    for (size_t i = 0; i < count; ++i) out.arrays.push_back(array(place, depth + 1));
  } else {
    out.scalars = bytes(count * item_bytes, place);
    const auto is_boolean = [](std::byte value) { return std::to_integer<int>(value) <= 1; };
    if (out.type == GgufType::boolean && !std::all_of(out.scalars, out.scalars + count, is_boolean))
      bad("{} has a boolean that is neither 0 nor 1", place);
  }
  return out;
}

}  // namespace qnext
