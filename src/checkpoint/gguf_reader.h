// The primitives of a GGUF file, each checked against its end.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>

#include "base/error.h"
#include "checkpoint/gguf_metadata.h"

namespace qnext {

class GgufReader {
 public:
  GgufReader(std::span<const std::byte> file, std::string_view what) : file_(file), what_(what) {}

  size_t position() const { return position_; }
  size_t left() const { return file_.size() - position_; }

  template <typename... Arguments>
  [[noreturn]] void bad(fmt::format_string<Arguments...> format, Arguments&&... arguments) const {
    fail("{}: {}", what_, fmt::format(format, std::forward<Arguments>(arguments)...));
  }

  // `place` says in errors what is read: "tensor blk.0.attn_q.weight", ...
  template <typename Type>
  Type number(std::string_view place) {
    Type value;
    std::memcpy(&value, bytes(sizeof value, place), sizeof value);
    return value;
  }
  // A length and so many bytes, at most `longest`.
  std::string_view string(size_t longest, std::string_view place);
  // A value of the type, which is one of the published ones or an error.
  GgufValue value(uint32_t type, std::string_view place);

 private:
  const std::byte* bytes(size_t count, std::string_view place);
  GgufType checked_type(uint32_t type, std::string_view place) const;
  GgufScalar scalar(GgufType type, std::string_view place);
  GgufArray array(std::string_view place, int depth);

  std::span<const std::byte> file_;
  std::string_view what_;
  size_t position_ = 0;
};

}  // namespace qnext
