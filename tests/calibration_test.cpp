// The importance of columns against what the fp64 oracle's matrices read.
#include "engine/calibration.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "engine/text_windows.h"
#include "model/oracle_forward.h"
#include "tests/models.h"

namespace qnext {
namespace {

using testing::TestModel;

std::vector<int32_t> random_tokens(const Config& config, size_t count) {
  std::mt19937 random(11);
  std::uniform_int_distribution<int32_t> token(0, static_cast<int32_t>(config.vocabulary_size) - 1);
  std::vector<int32_t> tokens(count);
  for (int32_t& t : tokens) t = token(random);
  return tokens;
}

struct Columns {
  std::vector<double> squares;
  double rows = 0;
  double largest = 0;  // magnitude of an input
};
using Sums = std::map<std::string, Columns, std::less<>>;

void add(const MatrixInputs& inputs, const Checkpoint& checkpoint, bool mtp, Sums& sums) {
  for (const auto& [name, x] : inputs) {
    if (name.starts_with("mtp.") != mtp) continue;
    const auto width = static_cast<size_t>(checkpoint.get(name).shape[1]);
    Columns& columns = sums[name];
    columns.squares.resize(width);
    columns.rows += static_cast<double>(x.size() / width);
    for (size_t i = 0; i < x.size(); ++i) {
      columns.squares[i % width] += x[i] * x[i];
      columns.largest = std::max(columns.largest, std::abs(x[i]));
    }
  }
}

// A window's last token is not read but by the MTP head, as what follows the one before.
Sums oracle_sums(const TestModel& model, std::span<const int32_t> tokens, int64_t context) {
  Sums sums;
  for (const engine::TextWindow& window :
       engine::text_windows(std::ssize(tokens), context, context - 1)) {
    const auto part = tokens.subspan(static_cast<size_t>(window.first),
                                     static_cast<size_t>(window.end - window.first));
    MatrixInputs read;
    oracle_forward(model.config, model.checkpoint, part.first(part.size() - 1), &read);
    add(read, model.checkpoint, false, sums);
    MatrixInputs read_by_mtp;
    oracle_forward(model.config, model.checkpoint, part, &read_by_mtp);
    add(read_by_mtp, model.checkpoint, true, sums);
  }
  return sums;
}

TEST(Calibration, MatchesTheOracle) {
  for (const char* name : {"g1-small", "g3-yarn"}) {
    const TestModel model(testing::data_folder(name));
    const std::vector<int32_t> tokens = random_tokens(model.config, 60);
    for (const int64_t context : {100, 24}) {
      const auto backend = model.backend(2);
      const Importance found =
          engine::collect_importance(*backend, tokens, {.context = context, .chunk = 10});
      const Sums expected =
          oracle_sums(model, tokens, std::min<int64_t>(context, std::ssize(tokens)));
      EXPECT_EQ(found.columns.size(), expected.size());
      for (const auto& [weight, sums] : expected) {
        const auto columns = found.columns.find(weight);
        ASSERT_NE(columns, found.columns.end()) << weight;
        ASSERT_EQ(columns->second.size(), sums.squares.size()) << weight;
        // An input errs by at most so much, its square by twice that times the largest input.
        const double error = backend->capabilities().relative_error * sums.largest;
        for (size_t c = 0; c < sums.squares.size(); ++c)
          ASSERT_NEAR(static_cast<double>(columns->second[c]), sums.squares[c] / sums.rows,
                      2 * error * sums.largest)
              << name << " " << weight << " column " << c;
      }
    }
  }
}

TEST(Calibration, IsTheSameWhateverTheChunkAndTheThreads) {
  const TestModel model(testing::tiny_shakespeare);
  const std::vector<int32_t> tokens = random_tokens(model.config, 300);
  const Importance whole = engine::collect_importance(*model.backend(1), tokens, {.context = 200});
  // Rows are summed in order, wherever a step ends.
  EXPECT_EQ(
      engine::collect_importance(*model.backend(3), tokens, {.context = 200, .chunk = 37}).columns,
      whole.columns);
}

// Steps before and after are not the slower for it, and give the same bits.
TEST(Calibration, LeavesTheBackendAsItWas) {
  const TestModel model(testing::data_folder("g1-small"));
  const std::vector<int32_t> tokens = random_tokens(model.config, 20);
  const auto backend = model.backend(2);
  const auto logits = [&] {
    backend->reserve({1, 1, 20});
    std::vector<float> out(tokens.size() * static_cast<size_t>(model.config.vocabulary_size));
    const int32_t page = 0;
    const std::vector<int32_t> state_out(tokens.size(), backend::no_slot);
    backend::SequenceStep step;
    step.tokens = tokens;
    step.pages = {&page, 1};
    step.state_out = state_out;
    step.logits = out.data();
    backend::Batch batch;
    batch.sequences.push_back(step);
    backend->step(batch);
    return out;
  };
  const std::vector<float> before = logits();
  const Importance importance = engine::collect_importance(*backend, tokens, {.context = 20});
  EXPECT_FALSE(importance.columns.empty());
  EXPECT_EQ(logits(), before);
}

TEST(Calibration, QuantisedWeightsShowTheirInputsToo) {
  const TestModel model(testing::tiny_shakespeare);
  const std::vector<int32_t> tokens = random_tokens(model.config, 100);
  const Importance plain = engine::collect_importance(*model.backend(2), tokens, {.context = 100});
  const Importance rounded =
      engine::collect_importance(*model.backend(2, {DType::q8_0}), tokens, {.context = 100});
  const std::string weight = "model.layers.0.mlp.shared_expert.down_proj.weight";
  const std::vector<float>& a = plain.columns.at(weight);
  const std::vector<float>& b = rounded.columns.at(weight);
  ASSERT_EQ(a.size(), b.size());
  const float largest = *std::ranges::max_element(a);
  // Rounding to 8 bits leaves more than nine tenths of any column that matters.
  for (size_t c = 0; c < a.size(); ++c) EXPECT_NEAR(a[c], b[c], 0.1f * largest) << c;
}

}  // namespace
}  // namespace qnext
