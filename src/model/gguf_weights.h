// The tensors of a GGUF file of architecture qwen3next under the names and in the layouts of a
// Hugging Face checkpoint.
//
// What the published converter does to them is undone: rows of in_proj_qkvz are gathered from
// attn_qkv (all q, all k, all v) and attn_gate (all z), or are ssm_in as it is in older files;
// experts are slices of the fused ffn_*_exps; A_log = log(-ssm_a); 1 is taken off the norms that
// are centred about zero. Value heads stand by their key heads in both. Matrices are not copied.
#pragma once

#include "checkpoint/checkpoint.h"
#include "checkpoint/gguf.h"
#include "model/config.h"

namespace qnext {

// `config` is what read_gguf_config() makes of the files. The checkpoint keeps their maps; a tensor
// that the model has no use for keeps its own name. An MTP head (blk.N.nextn.*) comes along.
// Throws Error naming the file and the tensor where one is missing or has another shape than the
// config implies.
Checkpoint gguf_checkpoint(const GgufFiles& files, const Config& config);

}  // namespace qnext
