#include "server/random_id.h"

#include <cstdint>
#include <random>

#include "base/error.h"

namespace qnext::server {

// Straight from the system: who knows some of them cannot tell others.
std::string random_id() {
  thread_local std::random_device source;
  std::uniform_int_distribution<uint64_t> any;
  return fmt::format("{:016x}", any(source));
}

}  // namespace qnext::server
