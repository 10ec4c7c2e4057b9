// How much each input of a matrix matters.
#pragma once

#include <map>
#include <string>
#include <vector>

namespace qnext {

// Mean square of each input column over a calibration text, by the Hugging Face name of the weight.
// A weight that is absent counts all its columns alike.
struct Importance {
  std::map<std::string, std::vector<float>, std::less<>> columns;
};

}  // namespace qnext
