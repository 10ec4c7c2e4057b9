// Writing a checkpoint of random weights in the Hugging Face layout: real sizes without a download.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "base/json.h"
#include "tensor/dtype.h"

namespace qnext {

struct RandomCheckpointOptions {
  DType dtype = DType::bf16;  // f32, f16, bf16, or f8_e4m3 for the layout of the FP8 release
  uint64_t seed = 1;
  uint64_t shard_bytes = 5'000'000'000;  // a shard is closed before it would exceed this
  bool with_mtp = true;
  int threads = 0;  // 0: one for each core
  // Called after each tensor with the bytes written so far and in all.
  std::function<void(uint64_t done, uint64_t total)> progress;
};

// Writes config.json (the given one, with dtype and quantisation set) and the weights, as
// model.safetensors or as shards with an index. Activations stay of order one through the layers,
// and tokens spread about evenly over the experts (see model/random_weights.h). The files depend on
// config, dtype, seed, shard_bytes and with_mtp only. Memory: a few tens of MB.
// Creates the folder where needed. Throws Error: a bad config, a folder that already holds a
// checkpoint, too little room on the disk; what was written is then removed.
void write_random_checkpoint(const std::string& folder, json::Value config,
                             const RandomCheckpointOptions& options);

}  // namespace qnext
