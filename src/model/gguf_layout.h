// Where the weights of a model lie in a GGUF file of architecture qwen3next: one table of names
// for reading (gguf_weights.h) and writing (quantize.h).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "model/config.h"
#include "model/weight_schema.h"

namespace qnext {

// The name of a weight's tensor: of an expert that of all experts, of in_proj_qkvz that of older
// files. Layers are blk.N; the MTP head is the layer after those of the model.
std::string gguf_name(const Config& config, const WeightSpec& spec);
// The name of any tensor in the layer of a weight: "attn_qkv.weight" to "blk.3.attn_qkv.weight".
std::string gguf_layer_name(const Config& config, const WeightSpec& spec, std::string_view name);

// What the published converter does to values.
enum class GgufChange {
  none,
  plus_one,   // norms that are centred about zero: the file has 1 + w
  minus_exp,  // A_log: the file has -exp(w)
};
GgufChange gguf_change(WeightRole role);

// Rows of a Hugging Face tensor; one of a single dimension, or of [channels, 1, width], is taken
// as rows of its last.
struct GgufRows {
  std::string weight;
  int64_t first = 0;
  int64_t count = 0;
};

struct GgufTensor {
  std::string name;
  std::vector<int64_t> shape;  // row-major
  WeightSpec spec;             // of the first weight in it
  std::vector<GgufRows> rows;  // in order, all there are
};

// All tensors of a file, in the order of the forward pass. in_proj_qkvz becomes attn_qkv (all q,
// all k, all v) and attn_gate (all z); the experts of a layer one tensor for each projection.
std::vector<GgufTensor> gguf_layout(const Config& config, bool with_mtp);

}  // namespace qnext
