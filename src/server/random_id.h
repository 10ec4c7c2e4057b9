// Names that are not given twice.
#pragma once

#include <string>

namespace qnext::server {

// 16 hexadecimal digits.
std::string random_id();

}  // namespace qnext::server
