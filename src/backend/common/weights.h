// The model's weights as kernels read them.
//
// Matrices are views into the checkpoint's memory map, panels and copies in one arena, or copies in
// the memory of another device; vectors (norms, gates, convolution taps) are widened to fp32
// copies. What is not in the map is owned by ResidentWeights or the device's store.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/thread_pool.h"
#include "checkpoint/checkpoint.h"
#include "model/config.h"
#include "ops/matmul/matmul.h"
#include "ops/moe/moe.h"

namespace qnext::backend {

using Vector = std::span<const float>;

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
  // [vocabulary, hidden], row-major as stored, in blocks too: rows are widened as they are looked
  // up.
  ops::WeightMatrix embedding;
  std::vector<LayerWeights> layers;
  Vector norm;  // [hidden]
  ops::WeightMatrix lm_head;
  std::optional<MtpWeights> mtp;
};

// The type in which a matrix is held. `quantizable`: what --quantize may round, to blocks of
// `quantize`, or where these do not fill its rows to q8_0, or not at all. Else all types stay as
// stored, but for blocks where nothing may be rounded, which are widened to f32, and for rows in
// blocks of types that no block type holds exactly together, which become q8_0.
DType held_dtype(const StoredTensor& matrix, bool quantizable, std::optional<DType> quantize);

using Progress = std::function<void(size_t done, size_t total)>;

// Memory of another device, which then holds all weights.
class WeightStore {
 public:
  virtual ~WeightStore() = default;
  // Room for all matrices, once. Throws Error on lack of memory.
  virtual std::byte* reserve(size_t bytes) = 0;
  // Copies bytes into that room; called from several threads.
  virtual void write(std::byte* to, const void* from, size_t bytes) = 0;
  // A copy that lives as long as the store.
  virtual Vector keep(Vector values) = 0;
};

class ResidentWeights {
 public:
  struct Options {
    std::optional<DType> quantize;
    bool load_mtp = true;
    Progress progress;
    // null: here. A store takes matrices as stored: no quantize, no blocks, no runs of rows.
    WeightStore* store = nullptr;
  };
  // Throws Error naming the first tensor that holds a value that is not finite.
  ResidentWeights(const Checkpoint& checkpoint, const Config& config, const Options& options,
                  ThreadPool& pool);

  const ModelWeights& model() const { return model_; }
  size_t bytes() const { return bytes_; }  // mapped views and copies together

 private:
  friend class WeightBinder;
  ModelWeights model_;
  AlignedBuffer arena_;                     // panels, and rows that had to be gathered or widened
  std::deque<std::vector<float>> vectors_;  // a deque keeps them in place
  size_t bytes_ = 0;
};

}  // namespace qnext::backend
