// The layers of a model as a person would say them.
#pragma once

#include <string>
#include <vector>

#include "model/config.h"

namespace qnext::app {

// "12 times (3 Gated DeltaNet, 1 attention)"; layers with a dense MLP are marked "with dense MLP".
std::string layer_pattern(const std::vector<LayerKind>& layers);

}  // namespace qnext::app
