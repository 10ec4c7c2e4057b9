// The importance of a model's columns from a text, as `quantize --calibrate` asks for it.
#pragma once

#include <string>

#include "app/model_files.h"
#include "model/importance.h"

namespace qnext::app {

// Runs the model as stored on the CPU over a text file (- for standard input), in windows of 2048
// tokens or the model's limit, with a progress bar; with the MTP head where that is to be
// quantised. Throws Error on a text that tokenize_text() refuses.
Importance calibrate(const ModelFiles& files, const std::string& text_file, bool with_mtp,
                     int threads);

}  // namespace qnext::app
