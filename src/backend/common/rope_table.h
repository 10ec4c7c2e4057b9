// The rotary table of a model's config.
#pragma once

#include "model/config.h"
#include "ops/rope/rope.h"

namespace qnext::backend {

ops::RopeTable rope_table(const Config& config);

}  // namespace qnext::backend
