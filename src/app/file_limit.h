// Connections are open files, and many systems allow a process 1024 of them unless it asks for
// more.
#pragma once

#include <cstdint>

namespace qnext::app {

// As many as this process may have without more rights; returns how many that are.
int64_t raise_file_limit();

}  // namespace qnext::app
