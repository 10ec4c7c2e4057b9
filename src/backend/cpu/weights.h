// The model's weights as the CPU kernels read them.
//
// Matrices are either views into the checkpoint's memory map or panels packed into one arena;
// vectors (norms, gates, convolution taps) are widened to fp32 copies. Everything is owned by
// ResidentWeights and lives as long as it; the map belongs to the checkpoint.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/thread_pool.h"
#include "checkpoint/safetensors.h"
#include "model/config.h"
#include "ops/matmul/matmul.h"
#include "ops/moe/moe.h"

namespace qnext::backend::cpu {

using Vector = std::vector<float>;

// A projection: y = x w^T + bias.
struct Linear {
  ops::WeightMatrix weight;  // [outputs, inputs]
  Vector bias;               // [outputs] or empty
};

struct AttentionWeights {
  Linear q;       // [heads * 2 * head_dim, hidden]: per head the query, then its gate
  Linear k;       // [kv_heads * head_dim, hidden]
  Linear v;       // [kv_heads * head_dim, hidden]
  Linear o;       // [hidden, heads * head_dim]
  Vector q_norm;  // [head_dim]
  Vector k_norm;  // [head_dim]
};

struct GatedDeltaWeights {
  Linear qkvz;     // grouped by key head: q[dk] k[dk] v[r * dv] z[r * dv]
  Linear ba;       // grouped by key head: b[r] a[r]
  Linear out;      // [hidden, value_heads * dv]
  Vector conv;     // [channels, width]
  Vector a_log;    // [value_heads]
  Vector dt_bias;  // [value_heads]
  Vector norm;     // [dv], plain
};

// Also the dense layers: one expert, no router.
struct MlpWeights {
  std::optional<Linear> router;           // [experts, hidden]
  std::optional<Linear> shared_gate;      // [1, hidden]
  std::vector<ops::GatedExpert> experts;  // routed ones, then the shared one if any
};

struct LayerWeights {
  Vector input_norm;           // [hidden]
  Vector post_attention_norm;  // [hidden]
  std::variant<AttentionWeights, GatedDeltaWeights> mixer;
  MlpWeights mlp;
};

struct MtpWeights {
  Vector embedding_norm;  // [hidden]
  Vector hidden_norm;     // [hidden]
  Linear fc;              // [hidden, 2 * hidden]: embedding first
  LayerWeights layer;
  Vector norm;  // [hidden]
};

struct ModelWeights {
  ops::WeightMatrix embedding;  // [vocabulary, hidden], as stored
  std::vector<LayerWeights> layers;
  Vector norm;  // [hidden]
  ops::WeightMatrix lm_head;
  std::optional<MtpWeights> mtp;
};

using Progress = std::function<void(size_t done, size_t total)>;

class ResidentWeights {
 public:
  struct Options {
    std::optional<DType> quantize;
    bool load_mtp = true;
    Progress progress;
  };
  // Throws Error naming the first tensor that holds a value that is not finite.
  ResidentWeights(const Checkpoint& checkpoint, const Config& config, const Options& options,
                  ThreadPool& pool);

  const ModelWeights& model() const { return model_; }
  size_t bytes() const { return bytes_; }  // mapped views and arena together

 private:
  friend class WeightBinder;
  ModelWeights model_;
  AlignedBuffer arena_;              // packed panels
  std::deque<Vector> block_scales_;  // of FP8 matrices; a deque keeps them in place
  size_t bytes_ = 0;
};

}  // namespace qnext::backend::cpu
