// How much a sequence's memory takes: the recurrent state and the KV pages, in elements and bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "model/config.h"
#include "tensor/dtype.h"

namespace qnext {

// The recurrent state of one sequence: for every Gated DeltaNet layer in order, the last
// conv_width - 1 inputs [conv_width - 1, conv_channels] and S [value_heads, key_dim, value_dim],
// all fp32.
struct StateShape {
  int64_t layers = 0;         // Gated DeltaNet layers
  int64_t conv_channels = 0;  // 2 * key_heads * key_dim + value_heads * value_dim
  int64_t conv_floats = 0;    // a layer
  int64_t delta_floats = 0;   // a layer
  int64_t layer_floats() const { return conv_floats + delta_floats; }
  // With S in `delta_dtype`; the inputs stay fp32.
  size_t layer_bytes(DType delta_dtype = DType::f32) const {
    return dtype_bytes(DType::f32, static_cast<size_t>(conv_floats)) +
           dtype_bytes(delta_dtype, static_cast<size_t>(delta_floats));
  }
  size_t bytes(DType delta_dtype = DType::f32) const {
    return static_cast<size_t>(layers) * layer_bytes(delta_dtype);
  }
};
StateShape state_shape(const Config& config);

// Attention layers that hold a KV cache: the model's, then the MTP head's.
int64_t kv_layers(const Config& config, bool with_mtp);
// Throws Error where heads of the model do not fit a cache of this type: blocks of q8_0 have 32
// values of one head.
void check_kv_dtype(const Config& config, DType dtype);
// Bytes of keys and values of one position over all those layers, in a type that
// check_kv_dtype() allows.
size_t kv_bytes_per_token(const Config& config, bool with_mtp, DType dtype);

}  // namespace qnext
