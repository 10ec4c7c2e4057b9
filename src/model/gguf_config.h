// A model's sizes and sampling defaults from the metadata of a GGUF file of architecture qwen3next.
#pragma once

#include "checkpoint/gguf.h"
#include "model/config.h"
#include "model/generation_config.h"

namespace qnext {

// qwen3next.*, and from the table of tensors what the metadata leaves open: the rows of the
// embedding, tied embeddings, dense layers, biases. The rules of parse_config() hold.
// Throws Error naming the file and the key, or the field of config.json that it stands for.
Config read_gguf_config(const GgufFiles& files);

// general.sampling.*; the tokens that end an answer are eos_token_id, eot_token_id and the control
// tokens <|im_end|> and <|endoftext|>, as the generation_config.json of the family says.
GenerationConfig read_gguf_generation_config(const GgufFiles& files);

}  // namespace qnext
