// Typed look-up of the members of a configuration object, with errors that name file and field.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/json.h"

namespace qnext {

// Null counts as absent, as in transformers. The object must outlive this.
class ConfigFields {
 public:
  // A bound far above any model, so low that products of three sizes fit in 63 bits.
  static constexpr int64_t maximum_size = int64_t{1} << 20;

  ConfigFields(const json::Value& object, std::string what)
      : object_(object), what_(std::move(what)) {
    if (!object.is_object()) fail("{}: expected an object, found {}", what_, object.kind_name());
  }

  template <typename... Arguments>
  [[noreturn]] void bad(fmt::format_string<Arguments...> format, Arguments&&... arguments) const {
    fail("{}: {}", what_, fmt::format(format, std::forward<Arguments>(arguments)...));
  }

  const json::Value* find(std::string_view name) const {
    const json::Value* value = object_.find(name);
    return value && !value->is_null() ? value : nullptr;
  }

  template <typename Read>
  auto read(std::string_view name, Read&& convert) const {
    try {
      return convert(*find(name));
    } catch (const Error& error) {
      bad("{}: {}", name, error.what());
    }
  }

  int64_t integer(std::string_view name, int64_t fallback, int64_t least, int64_t most) const {
    if (!find(name)) return fallback;
    const int64_t value = read(name, [](const json::Value& v) { return v.as_integer(); });
    if (value < least || value > most)
      bad("{} = {} is out of range: it must be {} to {}", name, value, least, most);
    return value;
  }

  int64_t size(std::string_view name, int64_t fallback, int64_t most = maximum_size) const {
    return integer(name, fallback, 1, most);
  }

  double number(std::string_view name, double fallback) const {
    if (!find(name)) return fallback;
    return read(name, [](const json::Value& v) { return v.as_double(); });
  }

  double positive_number(std::string_view name, double fallback) const {
    const double value = number(name, fallback);
    if (!(value > 0 && value < 1e18)) bad("{} = {} must be above 0", name, value);
    return value;
  }

  bool boolean(std::string_view name, bool fallback) const {
    if (!find(name)) return fallback;
    return read(name, [](const json::Value& v) { return v.as_bool(); });
  }

  std::string string(std::string_view name, std::string_view fallback) const {
    if (!find(name)) return std::string(fallback);
    return read(name, [](const json::Value& v) { return v.as_string(); });
  }

  // A whole number or a list of them.
  std::vector<int64_t> integers(std::string_view name) const {
    if (!find(name)) return {};
    return read(name, [](const json::Value& value) {
      std::vector<int64_t> out;
      if (!value.is_array()) return std::vector<int64_t>{value.as_integer()};
      for (const json::Value& item : value.as_array()) out.push_back(item.as_integer());
      return out;
    });
  }

  const std::string& what() const { return what_; }

 private:
  const json::Value& object_;
  std::string what_;
};

}  // namespace qnext
