// Where a model lies.
#pragma once

#include <string>

namespace qnext::app {

// The folder that --model names, or, where it is empty, the bundled model's: beside the installed
// program, else in the source tree that it was built from. Throws Error saying what is missing.
std::string find_model_folder(const std::string& given);

}  // namespace qnext::app
