// Standard output, standard error and what is known of the terminal behind them.
#pragma once

#include <string>
#include <string_view>

namespace qnext::app {

bool is_terminal(int file_descriptor);
int terminal_columns(int file_descriptor);  // 80 where it cannot be told

// Writes all bytes at once, unbuffered, so that streamed text appears as it comes. Throws Error
// where the system refuses (a full disk).
void write_output(std::string_view text);

// All of standard input.
std::string read_input();

// Throws Error naming `what` and the offset of the first byte that is not UTF-8.
void require_utf8(std::string_view text, std::string_view what);

}  // namespace qnext::app
