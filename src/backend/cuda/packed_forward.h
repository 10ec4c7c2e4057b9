// The layers of the model on tensor cores: packed weights, bf16 activations between kernels, fp32
// sums and residual stream. Rows of answers run as captured graphs of kernels that stream weights;
// rows of prompts as kernels for many rows, launched one by one. The body reads like the
// description of the model (docs/model.md); the sums are in ops/.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "backend/common/passes.h"
#include "backend/cuda/caches.h"
#include "backend/cuda/device_store.h"
#include "backend/cuda/expert_traffic.h"
#include "backend/cuda/graph_cache.h"
#include "backend/cuda/lone_row.h"
#include "backend/cuda/packed_weights.h"
#include "backend/cuda/packed_workspace.h"
#include "backend/cuda/pass_arrays.h"
#include "backend/cuda/pass_plan.h"
#include "backend/cuda/shown_rows.h"
#include "backend/cuda/stage_timer.h"
#include "ops/attention/paged_attention_cuda.h"
#include "ops/matmul/stream_matmul_cuda.h"
#include "ops/moe/route_cuda.h"
#include "ops/rope/rope.h"

namespace qnext::backend::cuda {

class PackedForward final : public Passes {
 public:
  PackedForward(const Config& config, const PackedModel& model, DeviceStore& store,
                ops::cuda::KvFormat kv_format, ops::cuda::Activations activations,
                const Stream& stream);

  // What the functions below work in; set before the first.
  void attach(PackedWorkspace& workspace, KvPages& pages, StateSlots& slots);
  void observe(Observer* observer) { observer_ = observer; }
  // The caches are about to change by other means than a step, or time is about to be measured: a
  // step that was queued ahead is not the next one any more.
  void forget_ahead();
  StageTimer& timer() { return timer_; }

  void run_model(std::span<const int32_t> tokens, std::span<const RowSequence> sequences) override;
  void run_mtp(std::span<const int32_t> next_tokens, Hidden source,
               std::span<const int64_t> hidden_rows,
               std::span<const RowSequence> sequences) override;
  void fill_mtp_cache(std::span<const int32_t> next_tokens, std::span<const int64_t> hidden_rows,
                      std::span<const RowSequence> sequences) override;
  void copy_hidden(int64_t first, int64_t rows, float* out) override;
  const float* lm_head(Hidden source, std::span<const int64_t> rows) override;
  bool can_draw(const ops::SamplingParameters& sampling) const override;
  void draw(std::span<const RowDraw> draws, std::span<int32_t> tokens) override;
  void draft(std::span<const DraftChain> chains, std::span<int32_t> tokens) override;
  const float* mtp_hidden(int64_t rows) override;

  const Traffic& traffic();

 private:
  using Product = ops::cuda::StreamProduct;
  // Where a pass takes the MTP head's hidden rows from, and where its own go.
  struct PassEnds {
    bool mtp = false;
    const float* hidden_in = nullptr;  // [all rows of the source, hidden]
    float* hidden_out = nullptr;       // [rows, hidden]; null: only the MTP head's cache is written
  };

  // What a graph does, as part of its key.
  static constexpr int64_t graph_of_model = 0, graph_of_mtp = 1, graph_of_greedy_step = 2,
                           graph_of_sampled_step = 3;

  static std::vector<int32_t> gather(const PassPlan& plan, std::span<const int32_t> values);
  static void remember_places(const PassPlan& plan, int64_t first, std::vector<int32_t>& places);
  std::vector<int32_t> places_of(Hidden source, std::span<const int64_t> rows) const;

  void run(const PassPlan& plan, const PassTokens& tokens, std::span<const int32_t> hidden_rows,
           const PassEnds& ends);
  void run_mtp_passes(const PassTokens& next_tokens, Hidden source,
                      std::span<const int64_t> hidden_rows, std::span<const RowSequence> sequences);
  void reserve_attention();
  void pass(const PassEnds& ends);
  void compute_angles();
  void begin_model_pass();
  void model_layers(float* hidden_out);
  void mtp_pass(const PassEnds& ends);
  void layer(const PackedLayer& weights, int index, int64_t kv_index, int64_t delta_index,
             const Vector* next_norm);
  ops::cuda::PagedProjections project_attention(Vector norm, const PackedAttention& weights);
  void prepare_attention(const ops::cuda::PagedProjections& projections, int64_t kv_index);
  void gated_attention(Vector norm, const PackedAttention& weights, int64_t kv_index);
  void gated_delta_net(Vector norm, const PackedDelta& weights, int64_t delta_index);
  void plain_delta_net(Vector norm, const PackedDelta& weights, int64_t delta_index);
  void mlp(const PackedLayer& layer, int index, const Vector* next_norm);
  void prompt_mlp(const ops::cuda::PackedExperts& experts, const ops::cuda::Routing& choice);
  ops::cuda::Routing routing(const PackedMlp& weights, int index) const;
  void project_normed(Vector weight, std::span<const Product> products, bool keep);
  void project(const Bf16* x, int64_t stride, std::span<const Product> products);
  ops::cuda::Activations activations(ops::cuda::PackedFormat weights) const;
  void add_to_residual(const PackedMatrix& weight);
  void compute_logits(Hidden source, std::span<const int64_t> rows, const PackedMatrix& head);
  void mask_logits(std::span<const RowDraw> draws);
  void queue_draws(std::span<const RowDraw> draws);
  void draw_logits(int64_t count, bool greedy, int32_t* drawn, int32_t* shown);
  void queue_drafts(std::span<const int64_t> rows, int32_t* shown);
  void queue_next_rows(std::span<const DraftChain* const> chains, std::span<const int32_t> places,
                       std::span<const int64_t> hidden, int64_t round);
  bool take_ahead(std::span<const PassPlan> plans, std::span<const int32_t> tokens);
  void run_ahead(std::span<const RowDraw> draws, bool drawn_ahead);
  void begin_next_row(bool greedy);
  void lone_step(int number, bool greedy);
  bool draw_ahead(std::span<const RowDraw> draws, std::span<int32_t> tokens);
  void show(Observed what, int index, int64_t width, const float* data);
  void count_traffic(const PassPlan& plan, const PassEnds& ends);
  void count_kv(const PassPlan& plan);
  void count_state(const PassPlan& plan);

  float eps() const { return static_cast<float>(config_.rms_norm_eps); }
  // Layers in order, the MTP head's last.
  uint8_t* chosen(int index) const {
    const size_t place = index < 0 ? model_.layers.size() : static_cast<size_t>(index);
    return w_->chosen + place * static_cast<size_t>(config_.experts + 1);
  }

  const Config& config_;
  const PackedModel& model_;
  const Stream& stream_;
  ops::RopeTable rope_;
  Vector inverse_frequency_;  // on the device
  ops::cuda::PagedShape paged_shape_;
  ops::cuda::Activations activations_;
  bool fast_delta_ = false;  // has_fast_delta()
  ExpertTraffic expert_traffic_;
  size_t counted_experts_ = 0;  // bytes of expert_traffic_ that traffic_ holds
  Observer* observer_ = nullptr;
  ShownRows shown_;
  StageTimer timer_;
  Traffic traffic_;

  PackedWorkspace* w_ = nullptr;
  KvPages* pages_ = nullptr;
  StateSlots* slots_ = nullptr;
  DeviceBuffer attention_;  // workspace

  PassArrays arrays_;
  GraphCache graphs_;
  int64_t graph_generation_ = 0;      // of arrays_, that the graphs know
  int newest_hidden_ = 0;             // of w_->final_hidden
  int newest_mtp_ = 0;                // of w_->mtp_hidden
  std::vector<int32_t> model_place_;  // of every row of the driver in the newest w_->final_hidden
  std::vector<int32_t> mtp_place_;    // the same in the newest w_->mtp_hidden

  // Of the pass under way.
  const PassPlan* plan_ = nullptr;
  bool answer_ = false;
  int64_t rows_ = 0;
  int64_t longest_ = 0;
  int64_t most_rows_ = 0;
  PassBatch pass_;
  const float* normed_by_ = nullptr;  // the weight whose norm of x lies in w_->normed already

  PinnedBuffer logits_;  // [logits_rows, vocabulary]
  // [packed_logits_rows], and a token of each number of steps that run ahead
  PinnedBuffer drawn_;
  Event drawn_all_;
  PinnedBuffer drafted_;           // of a whole step
  PinnedBuffer samplers_;          // [packed_logits_rows]
  PinnedBuffer masks_;             // [packed_logits_rows, mask words]
  PinnedBuffer masked_rows_;       // [packed_logits_rows]
  std::vector<float> mtp_hidden_;  // for an observer

  LoneRows lone_;
  std::array<Event, 2> drawn_ahead_;  // of steps that ran ahead, by the number of w_->final_hidden
};

}  // namespace qnext::backend::cuda
