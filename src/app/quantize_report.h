// What quantising a model did to its weights, as a table.
#pragma once

#include <string>
#include <vector>

#include "model/quantize.h"

namespace qnext::app {

// A line for each purpose of weights: tensors, their types, bytes, bits a weight and the relative
// error, the norm of what was lost over the norm of the weights; and one for all.
std::string quantize_table(const std::vector<QuantizedTensor>& tensors);

}  // namespace qnext::app
