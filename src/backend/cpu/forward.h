// The layers of the model over the rows of one batch. The body reads like the description of the
// model (docs/model.md); the sums are in ops/.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <span>
#include <string_view>
#include <vector>

#include "backend/common/passes.h"
#include "backend/common/weights.h"
#include "backend/cpu/caches.h"
#include "backend/cpu/stage_clock.h"
#include "backend/cpu/workspace.h"
#include "backend/step.h"
#include "base/thread_pool.h"
#include "ops/attention/attention.h"
#include "ops/causal_conv/causal_conv.h"
#include "ops/gated_delta/gated_delta.h"
#include "ops/rope/rope.h"

namespace qnext::backend::cpu {

class Forward final : public Passes {
 public:
  Forward(const Config& config, const ModelWeights& weights, ThreadPool& pool);

  // What the functions below work in; set before the first.
  void attach(Workspace& workspace, KvPages& pages, StateSlots& slots);
  void observe(Observer* observer) { observer_ = observer; }
  void observe_inputs(InputObserver* observer) { input_observer_ = observer; }

  void run_model(std::span<const int32_t> tokens, std::span<const RowSequence> sequences) override;
  void run_mtp(std::span<const int32_t> next_tokens, Hidden source,
               std::span<const int64_t> hidden_rows,
               std::span<const RowSequence> sequences) override;
  void fill_mtp_cache(std::span<const int32_t> next_tokens, std::span<const int64_t> hidden_rows,
                      std::span<const RowSequence> sequences) override;
  void copy_hidden(int64_t first, int64_t rows, float* out) override;
  const float* lm_head(Hidden source, std::span<const int64_t> rows) override;
  const float* mtp_hidden(int64_t) override { return w_->mtp_hidden; }

  const Traffic& traffic() const { return traffic_; }
  StageClock& clock() { return clock_; }

 private:
  const float* hidden_row(Hidden source, int64_t row) const {
    return (source == Hidden::model ? w_->final_hidden : w_->mtp_hidden) +
           row * config_.hidden_size;
  }
  void begin(int64_t rows, std::span<const RowSequence> sequences);
  void embed(std::span<const int32_t> tokens, float* out, int64_t stride);
  void combine_mtp_input(std::span<const int32_t> next_tokens, Hidden source,
                         std::span<const int64_t> hidden_rows,
                         std::span<const RowSequence> sequences);
  void layer(const LayerWeights& weights, int index, int64_t kv_index, int64_t delta_index);
  void gated_attention(const AttentionWeights& weights, int index, int64_t kv_index);
  void write_cache(const AttentionWeights& weights, const ops::KvCache& cache);
  void prepare_heads(float* heads, int64_t count, int64_t stride, Vector weight);
  void gated_delta_net(const GatedDeltaWeights& weights, int index, int64_t delta_index);
  void ungroup_projections();
  void choose_experts(const MlpWeights& weights, int index, int64_t slots);
  void mlp(const MlpWeights& weights, int index);
  void norm(const float* x, Vector weight, float* y);
  void show(int index, std::initializer_list<std::string_view> matrices, const float* x,
            int64_t columns);
  void project(const float* x, int64_t columns, std::initializer_list<const Linear*> linears,
               std::initializer_list<float*> outputs, bool accumulate = false);

  const Config& config_;
  const ModelWeights& weights_;
  ThreadPool& pool_;
  ops::RopeTable rope_;
  Observer* observer_ = nullptr;
  InputObserver* input_observer_ = nullptr;
  Traffic traffic_;
  StageClock clock_;

  Workspace* w_ = nullptr;
  KvPages* pages_ = nullptr;
  StateSlots* slots_ = nullptr;

  // Of the pass under way.
  int64_t rows_ = 0;
  std::span<const RowSequence> sequences_;
  std::vector<ops::AttentionSequence> attention_sequences_;
  AlignedBuffer attention_workspace_;
};

}  // namespace qnext::backend::cpu
