// Reads the fields of a request. What is absent or null is left to its default; a field that is
// there and wrong is an ApiError 400 that names it; fields that nobody asks for are ignored.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "server/api_error.h"

namespace qnext::server {

class Fields {
 public:
  // `value` must outlive this. `path` is how errors name it, empty for the request itself. Throws
  // ApiError where it is not an object.
  explicit Fields(const json::Value& value, std::string path = {});

  const json::Value* find(std::string_view name) const;  // null where absent or null
  std::optional<bool> boolean(std::string_view name) const;
  std::optional<int64_t> integer(std::string_view name, int64_t least, int64_t most) const;
  std::optional<double> number(std::string_view name, double least, double most) const;
  std::optional<std::string> text(std::string_view name) const;
  // The same, for what must be there.
  const json::Value& required(std::string_view name) const;
  const std::string& required_text(std::string_view name) const;

  // As errors name the field: "stream_options.include_usage".
  std::string path(std::string_view name) const;
  [[noreturn]] void refuse(std::string_view name, const std::string& problem) const;
  // For fields that would change the answer if they were followed. Throws where it is there.
  void refuse_unsupported(std::string_view name) const;

 private:
  const json::Value& value_;
  std::string path_;
};

// A list of token ids. Throws ApiError naming `path` where one is none of the vocabulary.
std::vector<int32_t> read_token_ids(const json::Array& ids, int64_t vocabulary,
                                    const std::string& path);

[[noreturn]] void refuse_field(const std::string& path, const std::string& problem);

// How a field's path begins where it is read, or a part of it from a '.' on, and what clients of
// another protocol call that.
struct FieldName {
  std::string_view read;
  std::string_view known;
};
// The error with the field's name as its client knows it: by the first that fits.
ApiError renamed(const ApiError& error, std::span<const FieldName> names);

// Runs `read`, whose errors name fields of another protocol.
template <typename Read>
auto with_names(std::span<const FieldName> names, const Read& read) {
  try {
    return read();
  } catch (const ApiError& error) {
    throw renamed(error, names);
  }
}

}  // namespace qnext::server
