// What the columns of the weight matrices are worth: a rounding error in a column that multiplies
// large activations costs more than one in a column that multiplies small ones.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

namespace qnext {

struct Importance {
  // By the weight's Hugging Face name ("model.layers.0.mlp.experts.3.down_proj.weight"): the mean
  // square of each input column [columns] over the tokens of a calibration text that met the
  // matrix. Absent where no token did.
  std::map<std::string, std::vector<float>, std::less<>> columns;
};

}  // namespace qnext
