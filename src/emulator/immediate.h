// Numbers in an instruction that are known when it is decoded: counts of groups, shapes.
#pragma once

#include <charconv>
#include <cstdint>
#include <string_view>

#include "emulator/statement.h"

namespace qnext::emulator {

inline int32_t immediate(std::string_view text, Names& names) {
  int32_t value = 0;
  const auto result = std::from_chars(text.data(), text.data() + text.size(), value);
  if (result.ec != std::errc{} || result.ptr != text.data() + text.size())
    names.refuse("a number has to stand here");
  return value;
}

}  // namespace qnext::emulator
