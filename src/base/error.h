// How qnext reports trouble. Bad input (a file, a flag, a request) throws Error, whose text is one
// line that names the thing and says what to do. A broken invariant is a bug: QNEXT_CHECK prints
// where and aborts.
#pragma once

#include <fmt/format.h>

#include <stdexcept>
#include <string>
#include <utility>

namespace qnext {

class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Throws Error with the formatted text.
template <typename... Arguments>
[[noreturn]] void fail(fmt::format_string<Arguments...> format, Arguments&&... arguments) {
  throw Error(fmt::format(format, std::forward<Arguments>(arguments)...));
}

[[noreturn]] void check_failed(const char* condition, const char* file, int line,
                               const std::string& detail);

}  // namespace qnext

// QNEXT_CHECK(condition) or QNEXT_CHECK(condition, "format", arguments...).
#define QNEXT_CHECK(condition, ...)                                    \
  do {                                                                 \
    if (!(condition)) [[unlikely]]                                     \
      ::qnext::check_failed(#condition, __FILE__, __LINE__,            \
                            ::qnext::detail::check_text(__VA_ARGS__)); \
  } while (false)

namespace qnext::detail {
inline std::string check_text() {
  return {};
}
template <typename... Arguments>
std::string check_text(fmt::format_string<Arguments...> format, Arguments&&... arguments) {
  return fmt::format(format, std::forward<Arguments>(arguments)...);
}
}  // namespace qnext::detail
