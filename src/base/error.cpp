#include "base/error.h"

#include <cstdio>
#include <cstdlib>

namespace qnext {

void check_failed(const char* condition, const char* file, int line, const std::string& detail) {
  fmt::print(stderr, "qnext: bug at {}:{}: {} does not hold{}{}\n", file, line, condition,
             detail.empty() ? "" : ": ", detail);
  std::abort();
}

}  // namespace qnext
