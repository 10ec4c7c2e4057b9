#include "backend/common/step_driver.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

namespace qnext::backend {
namespace {

constexpr int64_t vocabulary = 40;

uint64_t& at(std::vector<uint64_t>& rows, int64_t row) {
  return rows.at(static_cast<size_t>(row));
}

// A model and an MTP head whose hidden rows are numbers made of all that a pass is given for them.
// Some rows of the head have no number for their logits.
class NumberPasses final : public Passes {
 public:
  explicit NumberPasses(bool draws) : draws_(draws) {}

  void run_model(std::span<const int32_t> tokens, std::span<const RowSequence> sequences) override {
    model_.assign(tokens.size(), 0);
    for (const RowSequence& s : sequences)
      for (int64_t i = 0; i < s.rows; ++i)
        at(model_, s.first_row + i) =
            mixed(7, tokens[static_cast<size_t>(s.first_row + i)], s.first_position + i, s.pages);
  }
  void run_mtp(std::span<const int32_t> next_tokens, Hidden source,
               std::span<const int64_t> hidden_rows,
               std::span<const RowSequence> sequences) override {
    std::vector<uint64_t> rows(next_tokens.size());
    for (const RowSequence& s : sequences)
      for (int64_t i = 0; i < s.rows; ++i) {
        const auto row = static_cast<size_t>(s.first_row + i);
        rows[row] = mixed(at(source == Hidden::model ? model_ : mtp_, hidden_rows[row]),
                          next_tokens[row], s.first_position + i, s.pages);
      }
    mtp_ = rows;
  }
  void fill_mtp_cache(std::span<const int32_t>, std::span<const int64_t>,
                      std::span<const RowSequence>) override {
    mtp_.clear();
  }
  void copy_hidden(int64_t, int64_t, float*) override {}
  const float* lm_head(Hidden source, std::span<const int64_t> rows) override {
    logits_.assign(rows.size() * vocabulary, 0.0f);
    for (size_t i = 0; i < rows.size(); ++i) {
      const uint64_t hidden = at(source == Hidden::model ? model_ : mtp_, rows[i]);
      float* const row = logits_.data() + i * vocabulary;
      if (source == Hidden::mtp && guess(hidden) < 0)
        std::fill_n(row, vocabulary, std::nanf(""));
      else
        row[favourite(hidden)] = 1;
    }
    return logits_.data();
  }
  bool can_draw(const ops::SamplingParameters&) const override { return draws_; }
  void draw(std::span<const RowDraw> draws, std::span<int32_t> tokens) override {
    for (size_t i = 0; i < draws.size(); ++i) tokens[i] = favourite(at(model_, draws[i].row));
  }
  void draft(std::span<const DraftChain> chains, std::span<int32_t> tokens) override {
    auto token = tokens.begin();
    for (const DraftChain& chain : chains) {
      uint64_t hidden = at(mtp_, chain.row);
      for (int32_t i = 0; i < chain.drafts; ++i, ++token) {
        *token = guess(hidden);
        hidden = mixed(hidden, *token, chain.position + i, chain.pages);
      }
    }
    EXPECT_EQ(token, tokens.end());
    mtp_.clear();
  }
  const float* mtp_hidden(int64_t) override { return nullptr; }

 private:
  static uint64_t mixed(uint64_t hidden, int32_t token, int64_t position,
                        std::span<const int32_t> pages) {
    for (const int64_t value : {int64_t{token}, position, int64_t{pages.front()}})
      hidden = (hidden ^ static_cast<uint64_t>(value + 1)) * 0x9E3779B97F4A7C15u ^ hidden >> 29;
    return hidden;
  }
  static int32_t favourite(uint64_t hidden) {
    return static_cast<int32_t>((hidden >> 33) % vocabulary);
  }
  static int32_t guess(uint64_t hidden) { return (hidden >> 40) % 7 == 0 ? -1 : favourite(hidden); }

  bool draws_;
  std::vector<uint64_t> model_, mtp_;
  std::vector<float> logits_;
};

// Whoever draws the drafts, they are the same: one by one on the host, or in one go on the device.
TEST(StepDriver, DraftsAreTheSameWhoeverDrawsThem) {
  Config config;
  config.vocabulary_size = vocabulary;
  config.hidden_size = 1;
  ThreadPool pool(2);
  std::mt19937 engine(1);
  const auto random = [&](int32_t least, int32_t most) {
    return std::uniform_int_distribution(least, most)(engine);
  };
  const ops::SamplingParameters greedy;
  const ops::TokenCounts counts;
  int64_t drafted = 0, cut_short = 0;
  for (int trial = 0; trial < 300; ++trial) {
    const auto count = static_cast<size_t>(random(1, 5));
    std::vector<std::vector<int32_t>> tokens(count), pages(count);
    Batch batch;
    for (size_t i = 0; i < count; ++i) {
      tokens[i].resize(static_cast<size_t>(random(1, 5)));
      for (int32_t& token : tokens[i]) token = random(0, vocabulary - 1);
      pages[i] = {random(0, 1000)};
      SequenceStep step;
      step.tokens = tokens[i];
      step.first_position = random(0, 5000);
      step.pages = pages[i];
      step.draw = random(0, 4) > 0;
      step.drafts = step.draw ? random(0, static_cast<int32_t>(tokens[i].size()) - 1) : 0;
      step.force_accepted = random(-1, step.drafts);
      step.sampling = &greedy;
      step.counts = &counts;
      step.mtp = random(0, 4) > 0;
      step.propose = step.mtp && step.draw ? random(0, 4) : 0;
      batch.sequences.push_back(step);
    }
    NumberPasses one_by_one(false), in_one_go(true);
    const auto expected = StepDriver(config, one_by_one, pool).step(batch);
    const auto found = StepDriver(config, in_one_go, pool).step(batch);
    for (size_t i = 0; i < count; ++i) {
      EXPECT_EQ(found[i].proposed, expected[i].proposed);
      ASSERT_EQ(found[i].tokens.size(), expected[i].tokens.size());
      for (size_t j = 0; j < found[i].tokens.size(); ++j)
        EXPECT_EQ(found[i].tokens[j].token, expected[i].tokens[j].token);
      drafted += std::ssize(found[i].proposed);
      cut_short += std::ssize(found[i].proposed) < batch.sequences[i].propose;
    }
  }
  EXPECT_GT(drafted, 500);
  EXPECT_GT(cut_short, 20) << "no head without numbers was met";
}

}  // namespace
}  // namespace qnext::backend
