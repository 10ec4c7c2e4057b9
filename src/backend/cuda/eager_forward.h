// The layers of the model over the rows of one batch, on the GPU: the eager way, one kernel after
// another on one stream. The body reads like the description of the model (docs/model.md) and like
// cpu/forward.h; the sums are in ops/.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "backend/common/passes.h"
#include "backend/common/weights.h"
#include "backend/cuda/caches.h"
#include "backend/cuda/device_store.h"
#include "backend/cuda/eager_workspace.h"
#include "ops/batch_cuda.h"
#include "ops/rope/rope.h"

namespace qnext::backend::cuda {

class EagerForward final : public Passes {
 public:
  // weights: in `store`, which also takes what the kernels want beside them.
  EagerForward(const Config& config, const ModelWeights& weights, DeviceStore& store,
               const Stream& stream);

  // What the functions below work in; set before the first.
  void attach(EagerWorkspace& workspace, KvPages& pages, StateSlots& slots);
  void observe(Observer* observer) { observer_ = observer; }

  void run_model(std::span<const int32_t> tokens, std::span<const RowSequence> sequences) override;
  void run_mtp(std::span<const int32_t> next_tokens, Hidden source,
               std::span<const int64_t> hidden_rows,
               std::span<const RowSequence> sequences) override;
  void fill_mtp_cache(std::span<const int32_t> next_tokens, std::span<const int64_t> hidden_rows,
                      std::span<const RowSequence> sequences) override;
  void copy_hidden(int64_t first, int64_t rows, float* out) override;
  const float* lm_head(Hidden source, std::span<const int64_t> rows) override;
  const float* mtp_hidden(int64_t rows) override;

  const Traffic& traffic() const { return traffic_; }

 private:
  // The experts of one layer, their matrices listed on the device.
  struct DeviceExperts {
    const ops::GatedExpert* list = nullptr;
    int64_t largest_width = 0;
  };

  void list_experts(const MlpWeights& weights, DeviceStore& store);
  void begin(std::span<const int32_t> tokens, std::span<const int64_t> hidden_rows,
             std::span<const RowSequence> sequences);
  void end();
  void embed(float* out, int64_t stride);
  void combine_mtp_input(std::span<const int32_t> next_tokens, Hidden source,
                         std::span<const int64_t> hidden_rows,
                         std::span<const RowSequence> sequences);
  void layer(const LayerWeights& weights, int index, int64_t kv_index, int64_t delta_index);
  void gated_attention(const AttentionWeights& weights, int64_t kv_index);
  void prepare_attention(const AttentionWeights& weights, const ops::KvCache& cache);
  void gated_delta_net(const GatedDeltaWeights& weights, int64_t delta_index);
  void mlp(const MlpWeights& weights, int index);
  void choose_experts(const MlpWeights& weights, int index, int64_t slots);
  void norm(const float* x, Vector weight, float* y);
  void project(const float* x, const Linear& linear, float* y, bool accumulate = false);
  void show(Observed what, int index, int64_t width, const float* data);

  // Layers in order, the MTP head's last.
  size_t place_of(int index) const {
    return index < 0 ? weights_.layers.size() : static_cast<size_t>(index);
  }
  uint8_t* chosen(int index) const {
    return w_->chosen + place_of(index) * static_cast<size_t>(config_.experts + 1);
  }

  const Config& config_;
  const ModelWeights& weights_;
  const Stream& stream_;
  ops::RopeTable rope_;
  Vector inverse_frequency_;            // on the device
  std::vector<DeviceExperts> experts_;  // by place_of()
  Observer* observer_ = nullptr;
  Traffic traffic_;

  EagerWorkspace* w_ = nullptr;
  KvPages* pages_ = nullptr;
  StateSlots* slots_ = nullptr;

  // Of the pass under way.
  int64_t rows_ = 0;
  std::span<const RowSequence> sequences_;
  ops::cuda::Batch batch_;
  const int32_t* tokens_ = nullptr;       // on the device, [rows]
  const int32_t* hidden_rows_ = nullptr;  // on the device, [rows], of the MTP head
  DeviceBuffer batch_memory_;
  std::vector<int32_t> batch_arrays_;  // what batch_memory_ holds
  std::vector<uint8_t> chosen_;        // what w_->chosen holds

  PinnedBuffer logits_;            // [logits_rows, vocabulary]
  std::vector<float> mtp_hidden_;  // for an observer
};

}  // namespace qnext::backend::cuda
