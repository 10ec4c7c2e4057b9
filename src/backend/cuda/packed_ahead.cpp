// Steps of a lone answer that are queued before their token is known on the host (lone_row.h).
#include "backend/cuda/packed_forward.h"
#include "ops/matmul/stream_matmul_cuda.h"
#include "ops/sampling/sample_cuda.h"

namespace qnext::backend::cuda {

namespace {

ops::cuda::RowSampling lone_sampling(const RowDraw& draw, int64_t vocabulary, int64_t position) {
  std::vector<ops::cuda::LogitChange> no_changes;
  return ops::cuda::row_sampling(*draw.sampling, {}, vocabulary, position, no_changes);
}

bool is_lone_draw(std::span<const RowDraw> draws) {
  return draws.size() == 1 && !draws.front().allowed;
}

}  // namespace

// Whether the step that was queued ahead is the one asked for.
bool PackedForward::take_ahead(std::span<const PassPlan> plans, std::span<const int32_t> tokens) {
  const bool looked_at = observer_ || timer_.on();
  if (looked_at || plans.size() != 1 || !is_lone_row(plans.front()) ||
      !lone_.is_next(plans.front(), tokens.front()))
    return false;
  const PassPlan& plan = plans.front();
  lone_.take();
  slots_->swap_with_spare(plan.sequences.front().rows.state_in);
  newest_hidden_ = 1 - newest_hidden_;
  model_place_ = {0};
  count_traffic(plan, {false, nullptr, w_->final_hidden[newest_hidden_]});
  return true;
}

// The step that was queued has been for nothing.
void PackedForward::forget_ahead() {
  if (lone_.forget()) expert_traffic_.go_back(stream_);
}

// Queues the step behind the newest row, whose draw is queued already, if that promises anything.
void PackedForward::run_ahead(std::span<const RowDraw> draws, bool drawn_ahead) {
  if (!is_lone_draw(draws) || observer_ || timer_.on() || !lone_.can_go_on(longest_) ||
      drawn_ahead != lone_.was_taken())
    return;
  const RowDraw& draw = draws.front();
  const bool greedy = draw.sampling->temperature == 0;
  if (!drawn_ahead) begin_next_row(greedy);
  const int next = 1 - newest_hidden_;
  const GraphCache::Key key = {
      1, 1, longest_, most_rows_, greedy ? graph_of_greedy_step : graph_of_sampled_step, 0, next};
  graphs_.run(stream_, key, [&] { lone_step(next, greedy); });
  drawn_ahead_[static_cast<size_t>(next)].record(stream_);
  lone_.queued(lone_sampling(draw, config_.vocabulary_size, draw.position + 1));
}

// The row's token is drawn: everything that the layers of the next one begin with.
void PackedForward::begin_next_row(bool greedy) {
  advance_lone_row(stream_, arrays_.lone_row(), w_->drawn, greedy ? nullptr : w_->samplers,
                   expert_traffic_.counts());
  begin_model_pass();
}

// From an embedded row to the next one.
void PackedForward::lone_step(int number, bool greedy) {
  model_layers(w_->final_hidden[number]);
  expert_traffic_.count(stream_, w_->chosen);
  const Product product{model_.lm_head, ops::cuda::StreamStore::f32, w_->logits,
                        config_.vocabulary_size};
  project_normed(model_.norm, {&product, 1}, false);
  draw_logits(1, greedy, w_->drawn, drawn_.as<int32_t>() + packed_logits_rows + number);
  begin_next_row(greedy);
}

// The draw of a step that ran ahead, if this is it; the step behind it is queued.
bool PackedForward::draw_ahead(std::span<const RowDraw> draws, std::span<int32_t> tokens) {
  if (!is_lone_draw(draws) || !lone_.was_drawn_with(lone_sampling(
                                  draws.front(), config_.vocabulary_size, draws.front().position)))
    return false;
  const int number = newest_hidden_;
  traffic_.weights += static_cast<size_t>(model_.lm_head.bytes());
  run_ahead(draws, true);
  drawn_ahead_[static_cast<size_t>(number)].wait();
  tokens.front() = drawn_.as<int32_t>()[packed_logits_rows + number];
  return true;
}

}  // namespace qnext::backend::cuda
