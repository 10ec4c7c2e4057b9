// The key-value pairs at the head of a GGUF file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace qnext {

// The types of values with their published numbers.
enum class GgufType : uint32_t {
  u8 = 0,
  i8 = 1,
  u16 = 2,
  i16 = 3,
  u32 = 4,
  i32 = 5,
  f32 = 6,
  boolean = 7,
  string = 8,
  array = 9,
  u64 = 10,
  i64 = 11,
  f64 = 12
};

// Integers widened to 64 bits, f32 to double.
using GgufScalar = std::variant<uint64_t, int64_t, double, bool>;

// Points into the file.
struct GgufArray {
  GgufType type = GgufType::u8;  // of the items
  size_t count = 0;
  const std::byte* scalars = nullptr;     // numbers and booleans, as they lie in the file
  std::vector<std::string_view> strings;  // where type is string
  std::vector<GgufArray> arrays;          // where type is array

  GgufScalar scalar(size_t index) const;
};

using GgufValue = std::variant<GgufScalar, std::string_view, GgufArray>;

// What a value is, for errors: "an integer", "an array of strings", ...
std::string kind_of(const GgufValue& value);

// Typed look-up. Text points into the file. Everything throws Error naming the file and the key:
// find_... where a value is there and is of another kind, the others also where there is none.
class GgufMetadata {
 public:
  GgufMetadata() = default;
  explicit GgufMetadata(std::string what) : what_(std::move(what)) {}

  // False where the key is taken.
  bool add(std::string_view key, GgufValue value);

  const std::string& what() const { return what_; }  // the file
  const std::map<std::string, GgufValue, std::less<>>& entries() const { return entries_; }
  const GgufValue* find(std::string_view key) const;

  // Any integer type, in the range of int64_t.
  std::optional<int64_t> find_integer(std::string_view key) const;
  std::optional<double> find_number(std::string_view key) const;  // integers too
  std::optional<bool> find_boolean(std::string_view key) const;
  std::optional<std::string_view> find_string(std::string_view key) const;
  std::optional<std::vector<std::string_view>> find_strings(std::string_view key) const;
  // Of an array of integers or booleans.
  std::optional<std::vector<int64_t>> find_integers(std::string_view key) const;

  int64_t integer(std::string_view key) const;
  double number(std::string_view key) const;
  std::string_view string(std::string_view key) const;
  std::vector<std::string_view> strings(std::string_view key) const;

 private:
  [[noreturn]] void fail_kind(std::string_view key, std::string_view wanted) const;
  [[noreturn]] void fail_missing(std::string_view key) const;
  int64_t integer_of(std::string_view key, const GgufScalar& scalar) const;

  std::string what_;
  std::map<std::string, GgufValue, std::less<>> entries_;
};

}  // namespace qnext
