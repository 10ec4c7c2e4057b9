// What a GGUF file says of a model besides its weights.
#pragma once

#include "app/model_files.h"
#include "checkpoint/gguf_writer.h"

namespace qnext::app {

// All metadata of a file whose matrices are mostly of `type`: sizes, sampling defaults and, where
// the model has them, tokenizer and chat template. Throws Error where GGUF cannot say something.
GgufPairs gguf_metadata(const ModelFiles& files, bool with_mtp, DType type);

}  // namespace qnext::app
