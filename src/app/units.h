// Numbers as a person reads them.
#pragma once

#include <cstddef>
#include <string>

namespace qnext::app {

std::string bytes_text(double bytes);      // "512 B", "1.50 KiB", "23.4 MiB", "7.10 GiB"
std::string count_text(double count);      // "950", "7.12 k", "6.95 M", "3.56 G"
std::string seconds_text(double seconds);  // "12 ms", "3.4 s", "2 min 05 s"
std::string rate_text(double per_second);  // three digits: "0.52", "12.3", "1520"
// 1234567 as "1,234,567".
std::string grouped_text(long long value);

}  // namespace qnext::app
