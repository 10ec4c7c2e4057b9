#include "model/cache_shape.h"

#include <algorithm>

#include "base/error.h"

namespace qnext {

StateShape state_shape(const Config& config) {
  StateShape shape;
  shape.layers = std::ranges::count(config.layers, Mixer::gated_delta_net, &LayerKind::mixer);
  shape.conv_channels = config.linear_conv_channels();
  shape.conv_floats = (config.linear_conv_width - 1) * shape.conv_channels;
  shape.delta_floats =
      config.linear_value_heads * config.linear_key_head_dim * config.linear_value_head_dim;
  return shape;
}

int64_t kv_layers(const Config& config, bool with_mtp) {
  return std::ranges::count(config.layers, Mixer::full_attention, &LayerKind::mixer) +
         (with_mtp ? config.mtp_layers : 0);
}

void check_kv_dtype(const Config& config, DType dtype) {
  const auto block = static_cast<int64_t>(block_layout(dtype).values);
  if (config.head_dim % block != 0)
    fail("a KV cache in {} needs head_dim to be a multiple of {}, but it is {}; use --kv bf16",
         dtype_name(dtype), block, config.head_dim);
}

size_t kv_bytes_per_token(const Config& config, bool with_mtp, DType dtype) {
  const auto values = static_cast<size_t>(2 * config.kv_heads * config.head_dim);
  return static_cast<size_t>(kv_layers(config, with_mtp)) * dtype_bytes(dtype, values);
}

}  // namespace qnext
