#include "backend/cuda/packed_forward.h"

#include <algorithm>
#include <bit>

#include "backend/common/rope_table.h"
#include "backend/cuda/packed_shapes.h"
#include "base/error.h"
#include "ops/embedding/embed_rows_cuda.h"
#include "ops/rms_norm/row_norms_cuda.h"
#include "ops/rope/rope_cuda.h"
#include "ops/sampling/mask_cuda.h"

namespace qnext::backend::cuda {

namespace {

// Contexts are rounded up, so that one graph serves many steps.
int64_t rounded_context(int64_t positions) {
  return static_cast<int64_t>(
      std::bit_ceil(static_cast<uint64_t>(std::max<int64_t>(positions, 1024))));
}

}  // namespace

PackedForward::PackedForward(const Config& config, const PackedModel& model, DeviceStore& store,
                             ops::cuda::KvFormat kv_format, ops::cuda::Activations activations,
                             const Stream& stream)
    : config_(config),
      model_(model),
      stream_(stream),
      rope_(rope_table(config)),
      inverse_frequency_(store.keep(rope_.inverse_frequency)),
      paged_shape_{config.attention_heads, config.kv_heads, config.head_dim, kv_format},
      activations_(activations),
      fast_delta_(has_fast_delta(config)),
      expert_traffic_(model, config, store),
      logits_(static_cast<size_t>(logits_rows * config.vocabulary_size) * sizeof(float)),
      drawn_((packed_logits_rows + 2) * sizeof(int32_t)),
      samplers_(packed_logits_rows * sizeof(ops::cuda::RowSampling)),
      masks_(packed_logits_rows *
             static_cast<size_t>(ops::cuda::mask_words(config.vocabulary_size)) * sizeof(uint32_t)),
      masked_rows_(packed_logits_rows * sizeof(int32_t)) {}

void PackedForward::attach(PackedWorkspace& workspace, KvPages& pages, StateSlots& slots) {
  forget_ahead();
  w_ = &workspace;
  pages_ = &pages;
  slots_ = &slots;
  graphs_.clear();
  newest_hidden_ = 0;
  lone_.interrupted();
}

// --- passes ----------------------------------------------------------------------------------

void PackedForward::run_model(std::span<const int32_t> tokens,
                              std::span<const RowSequence> sequences) {
  const std::vector<PassPlan> plans = plan_passes(sequences);
  if (take_ahead(plans, tokens)) return;
  newest_hidden_ = 0;
  model_place_.assign(tokens.size(), 0);
  int64_t first = 0;
  for (const PassPlan& plan : plans) {
    const std::vector<int32_t> pass_tokens = gather(plan, tokens);
    remember_places(plan, first, model_place_);
    run(plan, {pass_tokens}, {},
        {false, nullptr, w_->final_hidden[0] + first * config_.hidden_size});
    first += plan.rows;
  }
  if (plans.size() == 1 && is_lone_row(plans.front()))
    lone_.ran(plans.front());
  else
    lone_.interrupted();
  if (observer_) shown_.deliver(static_cast<int64_t>(tokens.size()), *observer_);
}

void PackedForward::run_mtp(std::span<const int32_t> next_tokens, Hidden source,
                            std::span<const int64_t> hidden_rows,
                            std::span<const RowSequence> sequences) {
  lone_.interrupted();
  run_mtp_passes({next_tokens}, source, hidden_rows, sequences);
}

void PackedForward::run_mtp_passes(const PassTokens& next_tokens, Hidden source,
                                   std::span<const int64_t> hidden_rows,
                                   std::span<const RowSequence> sequences) {
  const std::vector<int32_t> hidden = places_of(source, hidden_rows);
  const float* from =
      source == Hidden::model ? w_->final_hidden[newest_hidden_] : w_->mtp_hidden[newest_mtp_];
  float* to = w_->mtp_hidden[1 - newest_mtp_];
  mtp_place_.assign(next_tokens.values.size(), 0);
  int64_t first = 0;
  for (const PassPlan& plan : plan_passes(sequences)) {
    const std::vector<int32_t> pass_tokens = gather(plan, next_tokens.values);
    const std::vector<int32_t> pass_hidden = gather(plan, hidden);
    remember_places(plan, first, mtp_place_);
    run(plan, {pass_tokens, next_tokens.table}, pass_hidden,
        {true, from, to + first * config_.hidden_size});
    first += plan.rows;
  }
  if (observer_) shown_.deliver(std::ssize(next_tokens.values), *observer_);
  newest_mtp_ = 1 - newest_mtp_;
}

void PackedForward::fill_mtp_cache(std::span<const int32_t> next_tokens,
                                   std::span<const int64_t> hidden_rows,
                                   std::span<const RowSequence> sequences) {
  lone_.interrupted();
  const std::vector<int32_t> hidden = places_of(Hidden::model, hidden_rows);
  for (const PassPlan& plan : plan_passes(sequences)) {
    const std::vector<int32_t> pass_tokens = gather(plan, next_tokens);
    const std::vector<int32_t> pass_hidden = gather(plan, hidden);
    run(plan, {pass_tokens}, pass_hidden, {true, w_->final_hidden[newest_hidden_], nullptr});
  }
}

// The values of the plan's rows, in its order.
std::vector<int32_t> PackedForward::gather(const PassPlan& plan, std::span<const int32_t> values) {
  std::vector<int32_t> out;
  for (const PassSequence& s : plan.sequences) {
    const auto rows =
        values.subspan(static_cast<size_t>(s.driver_row), static_cast<size_t>(s.rows.rows));
    out.insert(out.end(), rows.begin(), rows.end());
  }
  return out;
}

void PackedForward::remember_places(const PassPlan& plan, int64_t first,
                                    std::vector<int32_t>& places) {
  for (const PassSequence& s : plan.sequences)
    for (int64_t i = 0; i < s.rows.rows; ++i)
      places[static_cast<size_t>(s.driver_row + i)] =
          static_cast<int32_t>(first + s.rows.first_row + i);
}

std::vector<int32_t> PackedForward::places_of(Hidden source, std::span<const int64_t> rows) const {
  const std::vector<int32_t>& places = source == Hidden::model ? model_place_ : mtp_place_;
  std::vector<int32_t> out;
  for (const int64_t row : rows) out.push_back(places[static_cast<size_t>(row)]);
  return out;
}

// A pass of answers is replayed as a graph, unless somebody looks in between.
void PackedForward::run(const PassPlan& plan, const PassTokens& tokens,
                        std::span<const int32_t> hidden_rows, const PassEnds& ends) {
  QNEXT_CHECK(w_ && plan.rows <= w_->rows, "{} rows", plan.rows);
  forget_ahead();
  plan_ = &plan;
  answer_ = plan.answer;
  rows_ = plan.rows;
  longest_ = plan.answer ? rounded_context(plan.longest) : plan.longest;
  most_rows_ = static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(plan.most_rows)));
  reserve_attention();
  pass_ = arrays_.upload(stream_, plan, *slots_, tokens, hidden_rows);
  if (arrays_.generation() != graph_generation_) {
    graphs_.clear();
    graph_generation_ = arrays_.generation();
  }
  if (!plan.answer || observer_ || timer_.on()) {
    pass(ends);
  } else {
    const GraphCache::Key key = {rows_,
                                 pass_.batch.sequences,
                                 longest_,
                                 most_rows_,
                                 ends.mtp ? graph_of_mtp : graph_of_model,
                                 reinterpret_cast<intptr_t>(ends.hidden_in),
                                 reinterpret_cast<intptr_t>(ends.hidden_out)};
    graphs_.run(stream_, key, [&] { pass(ends); });
  }
  if (is_lone_row(plan)) slots_->swap_with_spare(plan.sequences.front().rows.state_in);
  count_traffic(plan, ends);
}

// Its need depends on the longest sequence of a batch, which the reservation does not tell.
void PackedForward::reserve_attention() {
  if (!answer_) return;
  const size_t bytes = attention_bytes(config_, rows_, longest_);
  if (bytes <= attention_.size()) return;
  stream_.wait();
  graphs_.clear();
  attention_ = {};
  attention_ = DeviceBuffer(bytes, "attention over long contexts; run fewer sequences at once");
}

void PackedForward::pass(const PassEnds& ends) {
  timer_.stage(stream_, "embedding and angles");
  if (ends.mtp) {
    compute_angles();
    mtp_pass(ends);
  } else {
    begin_model_pass();
    model_layers(ends.hidden_out);
  }
  expert_traffic_.count(stream_, w_->chosen);
  timer_.stage(stream_, nullptr);
}

void PackedForward::compute_angles() {
  ops::cuda::rope_angles(stream_.get(), pass_.batch, inverse_frequency_.data(),
                         rope_.rotary_dims / 2, rope_.attention_factor, w_->cosine, w_->sine);
}

void PackedForward::begin_model_pass() {
  compute_angles();
  const ops::WeightMatrix& table = model_.embedding;
  const int64_t width = config_.hidden_size;
  ops::cuda::embed_rows(stream_.get(), table.dtype, table.data, table.rows, width, pass_.tokens,
                        rows_, w_->x, width);
}

void PackedForward::model_layers(float* hidden_out) {
  const int64_t width = config_.hidden_size;
  int64_t kv_index = 0, delta_index = 0;
  for (size_t i = 0; i < model_.layers.size(); ++i) {
    show(Observed::residual, static_cast<int>(i), width, w_->x);
    layer(model_.layers[i], static_cast<int>(i), kv_index, delta_index,
          i + 1 < model_.layers.size() ? &model_.layers[i + 1].input_norm : nullptr);
    ++(config_.layers[i].mixer == Mixer::full_attention ? kv_index : delta_index);
  }
  timer_.stage(stream_, "final norm");
  ops::cuda::rms_norm_rows(stream_.get(), w_->x, width, nullptr, model_.norm.data(), eps(), rows_,
                           width, hidden_out, width);
  show(Observed::residual, static_cast<int>(model_.layers.size()), width, hidden_out);
}

void PackedForward::mtp_pass(const PassEnds& ends) {
  const PackedMtp& mtp = *model_.mtp;
  const int64_t width = config_.hidden_size;
  ops::cuda::MtpInput input;
  input.dtype = model_.embedding.dtype;
  input.table = model_.embedding.data;
  input.vocabulary = model_.embedding.rows;
  input.tokens = pass_.tokens;
  input.embedding_weight = mtp.embedding_norm.data();
  input.hidden = ends.hidden_in;
  input.hidden_stride = width;
  input.row_of = pass_.hidden_rows;
  input.hidden_weight = mtp.hidden_norm.data();
  input.eps = eps();
  ops::cuda::mtp_input_rows(stream_.get(), input, rows_, width, w_->mtp_input, w_->mtp_stride);
  timer_.stage(stream_, "mtp fc");
  const Product fc{mtp.fc, ops::cuda::StreamStore::f32, w_->x, width};
  project(w_->mtp_input, w_->mtp_stride, {&fc, 1});
  if (!ends.hidden_out) {
    prepare_attention(
        project_attention(mtp.layer.input_norm, std::get<PackedAttention>(mtp.layer.mixer)),
        kv_layers(config_, false));
    return;
  }
  layer(mtp.layer, -1, kv_layers(config_, false), 0, nullptr);
  timer_.stage(stream_, "final norm");
  ops::cuda::rms_norm_rows(stream_.get(), w_->x, width, nullptr, mtp.norm.data(), eps(), rows_,
                           width, ends.hidden_out, width);
}

// --- looking in ------------------------------------------------------------------------------

void PackedForward::show(Observed what, int index, int64_t width, const float* data) {
  if (!observer_) return;
  std::vector<float> values(static_cast<size_t>(rows_ * width));
  stream_.copy_to_host(values.data(), data, values.size() * sizeof(float));
  stream_.wait();
  shown_.add(*plan_, what, index, width, values);
}

}  // namespace qnext::backend::cuda
