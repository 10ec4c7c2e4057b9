// Which type each tensor of a quantised file gets.
#pragma once

#include <string>
#include <vector>

#include "model/gguf_layout.h"
#include "tensor/dtype.h"

namespace qnext {

// A tensor whose name in the file the pattern matches ("blk.*.attn_v.weight", as a shell matches
// file names) gets this type.
struct TypeOverride {
  std::string pattern;
  DType type = DType::f32;
};

// The types that `--type` may name: "q4_k" and so on, in the order of the table of the recipe.
std::vector<std::string> quantize_type_names();
// Throws Error, listing those names, for any other.
DType quantize_type(const std::string& name);

// The published number of a file whose matrices are mostly of this type: general.file_type.
uint32_t gguf_file_type(DType type);

// The type of each tensor. Vectors, the convolution and what decides where tokens go (routers, the
// gate of the shared expert, in_proj_ba) stay f32, embedding and output get a better type than the
// rest, and rows that are no whole blocks of the type a type of smaller blocks. Of several
// overrides that match, the last counts; they have no effect on what is no matrix. Throws Error
// where an override matches no matrix.
std::vector<DType> quantize_recipe(const std::vector<GgufTensor>& tensors, DType type,
                                   const std::vector<TypeOverride>& overrides);

}  // namespace qnext
