// What only the CUDA backend has: its own memory, and what it says when that is short.
#include <gmock/gmock.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>
#include <random>

#include "tensor/blocks.h"
#include "tests/models.h"

namespace qnext {
namespace {

using testing::TestModel;

constexpr int32_t page_count = 2;

// Logits of a step over 90 tokens on the plain kernels, with keys and values kept in `kv`.
std::vector<float> logits_with(const TestModel& model, DType kv) {
  const auto backend = backend::make_cuda_backend(
      model.checkpoint, model.config,
      {.threads = 2, .kv_dtype = kv, .path = backend::CudaOptions::Path::eager});
  std::vector<int32_t> tokens(90), pages(page_count), state_out(tokens.size(), backend::no_slot);
  std::iota(tokens.begin(), tokens.end(), 3);
  std::iota(pages.begin(), pages.end(), 0);
  backend->reserve({page_count, 1, static_cast<int32_t>(tokens.size())});
  std::vector<float> logits(tokens.size() * static_cast<size_t>(model.config.vocabulary_size));
  backend::SequenceStep step;
  step.tokens = tokens;
  step.pages = pages;
  step.state_out = state_out;
  step.logits = logits.data();
  backend->step({{step}});
  return logits;
}

TEST(CudaBackend, KeysAndValuesInBf16StayNear) {
  const TestModel model(testing::tiny_shakespeare);
  const std::vector<float> exact = logits_with(model, DType::f32);
  const std::vector<float> rounded = logits_with(model, DType::bf16);
  double error = 0, norm = 0;
  for (size_t i = 0; i < exact.size(); ++i) {
    error += std::pow(double{exact[i]} - rounded[i], 2);
    norm += std::pow(double{exact[i]}, 2);
  }
  // A bf16 value is off by up to 2^-9 of itself.
  EXPECT_GT(error, 0);
  EXPECT_LT(std::sqrt(error / norm), 0x1p-7);
}

TEST(CudaBackend, LackOfMemoryNamesTheNeedAndTheOption) {
  const TestModel model(testing::tiny_shakespeare);
  const auto backend = model.backend(1);
  const auto complaint = [&](const backend::Reservation& reservation) -> std::string {
    try {
      backend->reserve(reservation);
    } catch (const Error& error) {
      return error.what();
    }
    return "none";
  };
  using ::testing::AllOf;
  using ::testing::HasSubstr;
  constexpr int32_t many = 1 << 30;
  EXPECT_THAT(complaint({many, 1, 1}), AllOf(HasSubstr("GiB free"), HasSubstr("--context")));
  EXPECT_THAT(complaint({1, many, 1}), AllOf(HasSubstr("GiB free"), HasSubstr("fewer sequences")));
  EXPECT_THAT(complaint({1, 1, many}), AllOf(HasSubstr("GiB free"), HasSubstr("--prefill-chunk")));
  EXPECT_EQ(complaint({1, 1, 1}), "none");
}

// --- drafts --------------------------------------------------------------------------------------

// The last row of what the MTP head's final norm puts out.
class LastMtpRow : public backend::Observer {
 public:
  void observe(backend::Observed what, int, int64_t rows, int64_t width,
               const float* data) override {
    if (what == backend::Observed::mtp_hidden)
      row.assign(data + (rows - 1) * width, data + rows * width);
  }
  std::vector<float> row;
};

std::vector<float> in_four_bits(std::vector<float> weights) {
  for (size_t first = 0; first < weights.size(); first += block_values) {
    BlockQ4_0 block;
    encode(weights.data() + first, block);
    const float d = bf16_to_float(float_to_bf16(f16_to_float(block.d)));
    for (size_t i = 0; i < block_values; ++i) {
      const int q = i < 16 ? block.qs[i] & 15 : block.qs[i - 16] >> 4;
      weights[first + i] = bf16_to_float(float_to_bf16(d * static_cast<float>(q - 8)));
    }
  }
  return weights;
}

// Logits in fp64, and what an fp32 sum of the same products may be off by.
struct HeadLogits {
  std::vector<double> values, errors;
  HeadLogits(const std::vector<float>& weights, const std::vector<float>& hidden) {
    for (size_t first = 0; first < weights.size(); first += hidden.size()) {
      double sum = 0, size = 0;
      for (size_t i = 0; i < hidden.size(); ++i) {
        const double product =
            double{weights[first + i]} * double{bf16_to_float(float_to_bf16(hidden[i]))};
        sum += product;
        size += std::abs(product);
      }
      values.push_back(sum);
      errors.push_back(static_cast<double>(hidden.size()) * 0x1p-24 * size);
    }
  }
  size_t best() const {
    return static_cast<size_t>(std::ranges::max_element(values) - values.begin());
  }
};

// However lm_head itself is held: a draft is a guess, and the model's own draw judges it.
TEST(Drafts, AreGuessedByLmHeadInFourBits) {
  const TestModel model(testing::tiny_shakespeare);
  const StoredTensor& tensor = model.checkpoint.get("lm_head.weight");
  std::vector<float> stored(static_cast<size_t>(tensor.elements()));
  convert_to_float(tensor.dtype, tensor.data, stored.data(), stored.size());
  const std::vector<float> small = in_four_bits(stored);
  const ops::SamplingParameters greedy;
  const ops::TokenCounts counts;
  for (const auto quantize :
       {std::optional<DType>{}, std::optional(DType::f8_e4m3), std::optional(DType::q4_0)}) {
    const auto backend = model.backend(1, {quantize, false});
    LastMtpRow last;
    backend->observe(&last);
    backend->reserve({page_count, 1, 1});
    const std::vector<int32_t> pages = {0, 1}, state_out = {0};
    int others = 0;
    for (int32_t position = 0; position < 120; ++position) {
      const std::vector<int32_t> token = {(position * 37 + 11) % 2048};
      backend::SequenceStep step;
      step.tokens = token;
      step.first_position = position;
      step.pages = pages;
      step.state_in = position == 0 ? backend::no_slot : 0;
      step.state_out = state_out;
      step.answer = position % 2 == 1;
      step.draw = step.mtp = true;
      step.propose = 1;
      step.sampling = &greedy;
      step.counts = &counts;
      const backend::SequenceResult result = backend->step({{step}}).front();
      ASSERT_EQ(result.proposed.size(), 1u);
      const auto draft = static_cast<size_t>(result.proposed.front());
      const HeadLogits logits(small, last.row);
      const size_t best = logits.best();
      ASSERT_LE(logits.values[best] - logits.values[draft],
                logits.errors[best] + logits.errors[draft])
          << draft << " in place of " << best << " at " << position;
      others += HeadLogits(stored, last.row).best() != draft;
    }
    EXPECT_GT(others, 0) << "weights as stored would have passed too";
  }
}

// A step over the beginnings of a text, so many drafts behind each.
std::vector<std::vector<int32_t>> drafts_behind(backend::Backend& backend,
                                                std::span<const int32_t> text,
                                                std::span<const size_t> lengths,
                                                std::span<const int32_t> drafts) {
  const ops::SamplingParameters greedy;
  const ops::TokenCounts counts;
  const auto count = static_cast<int32_t>(lengths.size());
  backend.reserve({2 * count, count, 256});
  std::vector<int32_t> pages(2 * lengths.size());
  std::iota(pages.begin(), pages.end(), 0);
  std::vector<std::vector<int32_t>> state_out;
  for (const size_t length : lengths) {
    state_out.emplace_back(length, backend::no_slot);
    state_out.back().back() = static_cast<int32_t>(state_out.size()) - 1;
  }
  backend::Batch batch;
  for (size_t i = 0; i < lengths.size(); ++i) {
    backend::SequenceStep step;
    step.tokens = text.first(lengths[i]);
    step.pages = std::span(pages).subspan(2 * i, 2);
    step.state_out = state_out[i];
    step.draw = step.mtp = true;
    step.propose = drafts[i];
    step.sampling = &greedy;
    step.counts = &counts;
    batch.sequences.push_back(step);
  }
  std::vector<std::vector<int32_t>> proposed;
  for (const backend::SequenceResult& result : backend.step(batch))
    proposed.push_back(result.proposed);
  return proposed;
}

// The plain kernels' drafts go through the host, one by one, and through lm_head as stored: no
// draft here is so near that this matters.
TEST(Drafts, FollowEachOtherAsOnTheHost) {
  const TestModel model(testing::tiny_shakespeare);
  const std::vector<int32_t> text = testing::greedy_text();
  const auto chained = model.backend(1, {std::nullopt, false}), plain = model.backend(1);
  const std::vector<size_t> lengths = {20, 33, 58, 12};
  const std::vector<int32_t> drafts = {4, 1, 2, 5};
  const auto all = drafts_behind(*plain, text, lengths, drafts);
  EXPECT_EQ(drafts_behind(*chained, text, lengths, drafts), all);
  for (size_t i = 0; i < lengths.size(); ++i) {
    EXPECT_EQ(std::ssize(all[i]), drafts[i]);
    const auto alone = drafts_behind(*chained, text, std::span(lengths).subspan(i, 1),
                                     std::span(drafts).subspan(i, 1));
    EXPECT_EQ(alone.front(), all[i]);
  }
}

// --- steps that are queued ahead ---------------------------------------------------------------

// An answer of one sequence, driven by hand.
struct Answer {
  std::vector<int32_t> tokens;  // all but the newest are computed
  std::vector<int32_t> pages;
  int32_t slot = 0;
  std::optional<std::vector<float>> logits, hidden;  // where they are to be kept
  bool mtp = false;
};

constexpr int32_t most_answer_pages = 4;

// Two backends that must do the same: one queues steps ahead, the other, as somebody watches its
// stages, launches every kernel by itself.
class StepsAhead : public ::testing::Test {
 protected:
  void SetUp() override {
    for (auto* backend : {&ahead_, &plain_}) {
      *backend = model_.backend(1, {std::nullopt, false});
      (*backend)->reserve({2 * most_answer_pages, 3, 128});
      // What the MTP head's cache holds where nobody has written must be the same in both.
      const std::vector<std::byte> zeros((*backend)->capabilities().page_bytes);
      for (int32_t page = 0; page < 2 * most_answer_pages; ++page)
        (*backend)->import_page(page, zeros);
    }
    plain_->start_profile();
  }

  Answer start(int32_t slot) {
    Answer answer;
    answer.slot = slot;
    answer.pages.resize(most_answer_pages);
    std::iota(answer.pages.begin(), answer.pages.end(), slot % 2 * most_answer_pages);
    std::vector<int32_t> prompt(static_cast<size_t>(random(1, 70)));
    for (int32_t& token : prompt) token = random_token();
    answer.tokens = prompt;
    backend::SequenceStep step;
    step.tokens = prompt;
    step.pages = answer.pages;
    std::vector<int32_t> state_out(prompt.size(), backend::no_slot);
    state_out.back() = slot;
    step.state_out = state_out;
    answer.tokens.push_back(both(step, answer, {}));
    return answer;
  }

  // One more token. `sampling` and, unless null, `mask` as in SequenceStep.
  void go_on(Answer& answer, const ops::SamplingParameters& sampling, const uint32_t* mask,
             int64_t visible_pages = most_answer_pages) {
    const std::vector<int32_t> newest = {answer.tokens.back()};
    const std::vector<int32_t> state_out = {answer.slot};
    backend::SequenceStep step;
    step.tokens = newest;
    step.first_position = std::ssize(answer.tokens) - 1;
    step.pages = std::span(answer.pages).first(static_cast<size_t>(visible_pages));
    step.state_in = answer.slot;
    step.state_out = state_out;
    step.answer = true;
    if (mask) step.allowed = std::span(&mask, 1);
    answer.tokens.push_back(both(step, answer, sampling));
  }

  int32_t both(backend::SequenceStep step, const Answer& answer,
               const ops::SamplingParameters& sampling) {
    const ops::TokenCounts counts;
    step.draw = true;
    step.sampling = &sampling;
    step.counts = &counts;
    step.mtp = answer.mtp;
    step.propose = answer.mtp ? 1 : 0;
    const auto rows = step.tokens.size();
    std::vector<float> logits[2], hidden[2];
    std::vector<backend::SequenceResult> results;
    for (const int i : {0, 1}) {
      logits[i].assign(answer.logits ? rows * vocabulary() : 0, 0.0f);
      hidden[i].assign(answer.hidden ? rows * static_cast<size_t>(model_.config.hidden_size) : 0,
                       0.0f);
      if (answer.logits) step.logits = logits[i].data();
      if (answer.hidden) step.hidden = hidden[i].data();
      results.push_back((i == 0 ? *ahead_ : *plain_).step({{step}}).front());
    }
    EXPECT_FALSE(results[0].error);
    EXPECT_EQ(logits[0], logits[1]);
    EXPECT_EQ(hidden[0], hidden[1]);
    EXPECT_EQ(results[0].proposed, results[1].proposed);
    EXPECT_EQ(results[0].tokens.front().token, results[1].tokens.front().token)
        << "position " << step.first_position;
    return results[0].tokens.front().token;
  }

  void expect_same_state(int32_t slot) {
    std::vector<std::byte> states[2];
    for (const int i : {0, 1}) {
      const backend::Backend& backend = i == 0 ? *ahead_ : *plain_;
      states[i].resize(backend.capabilities().slot_bytes);
      backend.export_state(slot, states[i]);
    }
    EXPECT_EQ(states[0], states[1]) << "slot " << slot;
  }

  int32_t random(int32_t least, int32_t most) {
    return std::uniform_int_distribution<int32_t>(least, most)(random_);
  }
  int32_t random_token() { return random(0, static_cast<int32_t>(vocabulary()) - 1); }
  size_t vocabulary() const { return static_cast<size_t>(model_.config.vocabulary_size); }

  TestModel model_{testing::tiny_shakespeare};
  std::unique_ptr<backend::Backend> ahead_, plain_;
  std::mt19937 random_{5};
};

TEST_F(StepsAhead, AnswersAreTheSame) {
  for (const float temperature : {0.0f, 1.0f}) {
    Answer answer = start(0);
    while (answer.tokens.size() < most_answer_pages * 64 - 1) {
      // A page comes when a row needs it, as the engine gives them.
      const auto pages = static_cast<int64_t>(answer.tokens.size() - 1) / 64 + 1;
      go_on(answer, {.temperature = temperature, .seed = 3}, nullptr, pages);
    }
    expect_same_state(0);
  }
}

// Whatever comes instead of the step that was queued.
TEST_F(StepsAhead, WhatWasQueuedInVainLeavesNoTrace) {
  for (int round = 0; round < 40; ++round) {
    const int32_t slot = random(0, 1);
    Answer answer = start(slot);
    const int32_t before = random(0, 6);
    for (int i = 0; i < before; ++i) go_on(answer, {}, nullptr);
    std::vector<uint32_t> mask((vocabulary() + 31) / 32, 0);
    mask[0] = 0x00F0F0F0;
    const int what = round % 10;
    SCOPED_TRACE(::testing::Message() << "what " << what << " behind " << before << " steps");
    if (what == 0) answer.tokens.back() = random_token();
    if (what == 1) answer.logits.emplace();
    if (what == 2) answer.hidden.emplace();
    if (what == 3) {
      for (auto* backend : {&*ahead_, &*plain_}) backend->copy_state(slot, 2);
      answer.slot = 2;
    }
    if (what == 4) {  // an earlier state where the newest was
      for (auto* backend : {&*ahead_, &*plain_}) backend->copy_state(slot, 2);
      for (int i = 0; i < 3; ++i) go_on(answer, {}, nullptr);
      for (auto* backend : {&*ahead_, &*plain_}) backend->copy_state(2, slot);
    }
    if (what == 5) {
      Answer other = start(1 - slot);
      for (int i = 0; i < 3; ++i) go_on(other, {}, nullptr);
      expect_same_state(1 - slot);
    }
    if (what == 6) answer.tokens.pop_back();
    if (what == 7) ahead_->traffic();
    for (int i = 0; i < 4; ++i) {
      const bool odd = what == 9 && i % 2 == 1;
      go_on(answer, {.temperature = odd ? 0.8f : 0.0f, .top_k = odd ? 20 : 0},
            what == 8 && i == 0 ? mask.data() : nullptr);
      answer.logits.reset();
    }
    expect_same_state(answer.slot);
  }
  EXPECT_EQ(ahead_->traffic().total(), plain_->traffic().total());
}

// Its head reads what the newest step has left, even if the next one has run.
TEST_F(StepsAhead, TheMtpHeadSeesItsOwnStep) {
  for (int round = 0; round < 4; ++round) {
    Answer answer = start(0);
    for (int i = 0; i < 5; ++i) go_on(answer, {}, nullptr);
    answer.mtp = true;  // its cache has zeros for the rows before
    go_on(answer, {}, nullptr);
    answer.mtp = round % 2 == 0;
    for (int i = 0; i < 5; ++i) go_on(answer, {}, nullptr);
    expect_same_state(0);
  }
}

}  // namespace
}  // namespace qnext
