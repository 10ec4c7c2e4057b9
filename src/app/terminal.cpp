#include "app/terminal.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdint>
#include <cstring>

#include "base/error.h"
#include "text/utf8.h"

namespace qnext::app {

bool is_terminal(int file_descriptor) {
  return isatty(file_descriptor) == 1;
}

int terminal_columns(int file_descriptor) {
  winsize size{};
  if (ioctl(file_descriptor, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return 80;
  return size.ws_col;
}

void write_output(std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = write(STDOUT_FILENO, text.data(), text.size());
    if (written >= 0) {
      text.remove_prefix(static_cast<size_t>(written));
    } else if (errno != EINTR) {
      fail("cannot write to standard output: {}", std::strerror(errno));
    }
  }
}

std::string read_input() {
  std::string text;
  std::array<char, 1 << 16> buffer;
  for (;;) {
    const ssize_t got = read(STDIN_FILENO, buffer.data(), buffer.size());
    if (got == 0) return text;
    if (got > 0) {
      text.append(buffer.data(), static_cast<size_t>(got));
    } else if (errno != EINTR) {
      fail("cannot read standard input: {}", std::strerror(errno));
    }
  }
}

void require_utf8(std::string_view text, std::string_view what) {
  if (const auto invalid = utf8::first_invalid(text)) {
    fail("{} is not valid UTF-8: byte 0x{:02x} at offset {}; convert it first (iconv -t utf-8)",
         what, static_cast<uint8_t>(text[*invalid]), *invalid);
  }
}

}  // namespace qnext::app
