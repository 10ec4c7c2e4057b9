// Logits and draws of the tensor-core path.
#include <algorithm>

#include "backend/cuda/few_words.h"
#include "backend/cuda/packed_forward.h"
#include "base/error.h"
#include "ops/embedding/round_rows_cuda.h"
#include "ops/sampling/mask_cuda.h"
#include "ops/sampling/sample_cuda.h"

namespace qnext::backend::cuda {

using ops::cuda::StreamStore;

namespace {

bool follow_each_other(std::span<const int32_t> places) {
  return std::ranges::adjacent_find(places, [](int32_t a, int32_t b) { return b != a + 1; }) ==
         places.end();
}

}  // namespace

// Logits of rows of `source` in w_->logits.
void PackedForward::compute_logits(Hidden source, std::span<const int64_t> rows,
                                   const PackedMatrix& head) {
  const auto count = static_cast<int64_t>(rows.size());
  QNEXT_CHECK(count <= packed_logits_rows);
  const int64_t width = config_.hidden_size;
  const std::vector<int32_t> places = places_of(source, rows);
  const float* from =
      source == Hidden::model ? w_->final_hidden[newest_hidden_] : w_->mtp_hidden[newest_mtp_];
  const int32_t* row_of = nullptr;
  if (follow_each_other(places)) {
    from += places.front() * width;
  } else {
    static_assert(packed_logits_rows <= most_few_words);
    write_few_words(stream_, places, w_->logits_from);
    row_of = w_->logits_from;
  }
  timer_.stage(stream_, "lm_head");
  ops::cuda::round_rows(stream_.get(), from, width, width, row_of, count, w_->logits_input,
                        w_->hidden_stride);
  const Product product{head, StreamStore::f32, w_->logits, config_.vocabulary_size};
  ops::cuda::StreamInput input;
  input.values = w_->logits_input;
  input.stride = w_->hidden_stride;
  ops::cuda::stream_matmul(stream_.get(), input, count, &product, 1);
  traffic_.weights += static_cast<size_t>(head.bytes());
}

const float* PackedForward::lm_head(Hidden source, std::span<const int64_t> rows) {
  forget_ahead();
  lone_.interrupted();
  compute_logits(source, rows, model_.lm_head);
  stream_.copy_to_host(logits_.data(), w_->logits,
                       rows.size() * static_cast<size_t>(config_.vocabulary_size) * sizeof(float));
  timer_.stage(stream_, nullptr);
  stream_.wait();
  return logits_.as<float>();
}

// Penalties depend on which drafts were accepted, logprobs are wanted on the host anyway.
bool PackedForward::can_draw(const ops::SamplingParameters& sampling) const {
  return sampling.logprobs < 0 && sampling.logit_bias.empty() && sampling.presence_penalty == 0 &&
         sampling.frequency_penalty == 0 && sampling.repetition_penalty == 1 &&
         config_.vocabulary_size <= ops::cuda::widest_sampled_vocabulary;
}

void PackedForward::draw(std::span<const RowDraw> draws, std::span<int32_t> tokens) {
  if (!draw_ahead(draws, tokens)) {
    for (size_t begin = 0; begin < draws.size(); begin += packed_logits_rows) {
      const auto group =
          draws.subspan(begin, std::min<size_t>(packed_logits_rows, draws.size() - begin));
      queue_draws(group);
      drawn_all_.record(stream_);
      run_ahead(draws, false);
      drawn_all_.wait();
      std::copy_n(drawn_.as<int32_t>(), group.size(), tokens.subspan(begin).begin());
    }
  }
  lone_.drew(tokens.front());
}

// Rows whose draws may not give any token.
void PackedForward::mask_logits(std::span<const RowDraw> draws) {
  const int64_t vocabulary = config_.vocabulary_size;
  const auto words = static_cast<size_t>(ops::cuda::mask_words(vocabulary));
  size_t count = 0;
  for (size_t i = 0; i < draws.size(); ++i) {
    if (!draws[i].allowed) continue;
    std::copy_n(draws[i].allowed, words, masks_.as<uint32_t>() + count * words);
    masked_rows_.as<int32_t>()[count++] = static_cast<int32_t>(i);
  }
  if (count == 0) return;
  stream_.copy_to_device(w_->masks, masks_.data(), count * words * sizeof(uint32_t));
  stream_.copy_to_device(w_->masked_rows, masked_rows_.data(), count * sizeof(int32_t));
  ops::cuda::mask_logits(stream_.get(), w_->logits, vocabulary, vocabulary, w_->masks,
                         w_->masked_rows, static_cast<int64_t>(count));
}

// Their tokens come to w_->drawn and to drawn_.
void PackedForward::queue_draws(std::span<const RowDraw> draws) {
  const int64_t vocabulary = config_.vocabulary_size;
  std::vector<int64_t> rows;
  for (const RowDraw& one : draws) rows.push_back(one.row);
  compute_logits(Hidden::model, rows, model_.lm_head);
  timer_.stage(stream_, "sampling");
  mask_logits(draws);
  const bool greedy =
      std::ranges::all_of(draws, [](const RowDraw& one) { return one.sampling->temperature == 0; });
  if (!greedy) {
    std::vector<ops::cuda::LogitChange> no_changes;
    auto* samplers = samplers_.as<ops::cuda::RowSampling>();
    for (size_t i = 0; i < draws.size(); ++i)
      samplers[i] = ops::cuda::row_sampling(*draws[i].sampling, {}, vocabulary, draws[i].position,
                                            no_changes);
    stream_.copy_to_device(w_->samplers, samplers, draws.size() * sizeof(ops::cuda::RowSampling));
  }
  draw_logits(static_cast<int64_t>(draws.size()), greedy, w_->drawn, drawn_.as<int32_t>());
  timer_.stage(stream_, nullptr);
}

// From w_->logits, by w_->samplers unless greedy, into `drawn`, of w_->drawn, and `shown`, which is
// the host's memory: a copy of so few bytes would take longer.
void PackedForward::draw_logits(int64_t count, bool greedy, int32_t* drawn, int32_t* shown) {
  const int64_t vocabulary = config_.vocabulary_size;
  if (greedy)
    ops::cuda::greedy_rows(stream_.get(), w_->logits, vocabulary, count, vocabulary, drawn, shown);
  else
    ops::cuda::sample_rows(stream_.get(), w_->logits, vocabulary, count, vocabulary, w_->samplers,
                           nullptr, drawn, shown);
}

// Rows that ran in one pass lie beside each other: one copy for each run of them.
void PackedForward::copy_hidden(int64_t first, int64_t rows, float* out) {
  const int64_t width = config_.hidden_size;
  const auto place = [&](int64_t row) {
    return int64_t{model_place_[static_cast<size_t>(first + row)]};
  };
  for (int64_t row = 0; row < rows;) {
    int64_t end = row + 1;
    while (end < rows && place(end) == place(row) + end - row) ++end;
    stream_.copy_to_host(out + row * width, w_->final_hidden[newest_hidden_] + place(row) * width,
                         static_cast<size_t>((end - row) * width) * sizeof(float));
    row = end;
  }
  stream_.wait();
}

const float* PackedForward::mtp_hidden(int64_t rows) {
  const auto width = static_cast<size_t>(config_.hidden_size);
  std::vector<float> values(static_cast<size_t>(rows) * width);
  stream_.copy_to_host(values.data(), w_->mtp_hidden[newest_mtp_], values.size() * sizeof(float));
  stream_.wait();
  mtp_hidden_.resize(values.size());
  for (size_t row = 0; row < static_cast<size_t>(rows); ++row)
    std::copy_n(values.begin() + static_cast<int64_t>(static_cast<size_t>(mtp_place_[row]) * width),
                width, mtp_hidden_.begin() + static_cast<int64_t>(row * width));
  return mtp_hidden_.data();
}

}  // namespace qnext::backend::cuda
