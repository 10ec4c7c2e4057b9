// A model's sizes and sampling defaults in the metadata of a GGUF file of architecture qwen3next,
// there and back.
#pragma once

#include "checkpoint/gguf.h"
#include "checkpoint/gguf_writer.h"
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

// The inverse of read_gguf_config(): general.architecture and qwen3next.*, with what llama.cpp's
// loader of the architecture asks for. with_mtp: the file has the MTP head as its last block.
// Throws Error where the config has something that the format does not.
void write_gguf_config(const Config& config, bool with_mtp, GgufPairs& metadata);

// The inverse of read_gguf_generation_config(), but for what ends an answer: the tokenizer says it.
void write_gguf_generation_config(const GenerationConfig& config, GgufPairs& metadata);

}  // namespace qnext
