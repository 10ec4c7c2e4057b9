// What step.h promises of a backend: the same bits however work is cut, batched, threaded or
// drafted, and slots that undo what was rejected.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>

#include "tests/models.h"
#include "tests/shown.h"

namespace qnext {
namespace {

using backend::Backend;
using backend::Batch;
using backend::no_slot;
using backend::SequenceStep;
using testing::TestModel;

constexpr int32_t pages_each = 6;

// One sequence that a test drives by hand: its pages, its slots, the spans a step needs.
struct Drive {
  explicit Drive(int32_t index) : first_slot(index * 4) {
    pages.resize(pages_each);
    std::iota(pages.begin(), pages.end(), index * pages_each);
  }

  // The next rows; logits of all of them are kept. State goes to slot `to` after the last row.
  SequenceStep rows(std::span<const int32_t> tokens, int64_t vocabulary, int32_t to = 0) {
    state_out.assign(tokens.size(), no_slot);
    state_out.back() = first_slot + to;
    logits.assign(tokens.size() * static_cast<size_t>(vocabulary),
                  std::numeric_limits<float>::quiet_NaN());
    SequenceStep step;
    step.tokens = tokens;
    step.first_position = position;
    step.pages = pages;
    step.state_in = state;
    step.state_out = state_out;
    step.logits = logits.data();
    position += static_cast<int64_t>(tokens.size());
    state = first_slot + to;
    return step;
  }

  int32_t first_slot = 0;
  std::vector<int32_t> pages;
  std::vector<int32_t> state_out;
  std::vector<float> logits;
  int64_t position = 0;
  int32_t state = no_slot;
};

class StepContract : public ::testing::TestWithParam<testing::Way> {
 protected:
  static std::unique_ptr<Backend> make(const TestModel& model, int threads) {
    auto backend = model.backend(threads, GetParam());
    backend->reserve({4 * pages_each, 16, 1024});
    return backend;
  }
  std::vector<int32_t> random_tokens(size_t count) {
    std::uniform_int_distribution<int32_t> token(
        0, static_cast<int32_t>(model_.config.vocabulary_size) - 1);
    std::vector<int32_t> tokens(count);
    for (int32_t& t : tokens) t = token(random_);
    return tokens;
  }
  // Logits of all rows, the sequence fed in pieces of the given sizes.
  // answer: all but the first piece are rows of an answer.
  std::vector<float> run(Backend& backend, std::span<const int32_t> tokens,
                         std::span<const size_t> pieces, bool answer = false) {
    Drive drive(0);
    std::vector<float> all;
    size_t first = 0;
    for (size_t piece : pieces) {
      Batch batch;
      batch.sequences.push_back(
          drive.rows(tokens.subspan(first, piece), model_.config.vocabulary_size));
      batch.sequences[0].answer = answer && first > 0;
      backend.step(batch);
      all.insert(all.end(), drive.logits.begin(), drive.logits.end());
      first += piece;
    }
    return all;
  }
  std::vector<size_t> random_pieces(size_t total) {
    std::vector<size_t> pieces;
    while (total > 0) {
      const size_t piece =
          std::uniform_int_distribution<size_t>(1, std::min<size_t>(total, 70))(random_);
      pieces.push_back(piece);
      total -= piece;
    }
    return pieces;
  }

  TestModel model_{testing::tiny_shakespeare};
  std::mt19937 random_{7};
};

INSTANTIATE_TEST_SUITE_P(Ways, StepContract, ::testing::ValuesIn(testing::ways()),
                         [](const auto& test) { return test.param.name(); });

TEST_P(StepContract, SameBitsHoweverAPromptIsCut) {
  const auto backend = make(model_, 2);
  const std::vector<int32_t> tokens = random_tokens(200);
  const std::vector<float> whole = run(*backend, tokens, std::vector<size_t>{200});
  EXPECT_EQ(run(*backend, tokens, std::vector<size_t>(200, 1)), whole);
  for (int i = 0; i < 4; ++i) EXPECT_EQ(run(*backend, tokens, random_pieces(200)), whole);
}

TEST_P(StepContract, SameBitsOnAnyNumberOfThreads) {
  const std::vector<int32_t> tokens = random_tokens(90);
  const std::vector<size_t> pieces{80, 1, 9};
  const std::vector<float> one = run(*make(model_, 1), tokens, pieces);
  for (int threads : {2, 3, 5}) EXPECT_EQ(run(*make(model_, threads), tokens, pieces), one);
}

TEST_P(StepContract, SameBitsWhoeverElseIsInTheBatch) {
  const auto backend = make(model_, 2);
  const int64_t vocabulary = model_.config.vocabulary_size;
  std::vector<std::vector<int32_t>> tokens;
  std::vector<std::vector<float>> alone;
  for (size_t s = 0; s < 4; ++s) {
    tokens.push_back(random_tokens(std::vector<size_t>{5, 130, 64, 1}[s]));
    alone.push_back(run(*backend, tokens[s], std::vector<size_t>{tokens[s].size()}));
  }
  std::vector<Drive> drives{Drive(0), Drive(1), Drive(2), Drive(3)};
  Batch batch;
  for (size_t s = 0; s < 4; ++s) batch.sequences.push_back(drives[s].rows(tokens[s], vocabulary));
  backend->step(batch);
  for (size_t s = 0; s < 4; ++s) EXPECT_EQ(drives[s].logits, alone[s]) << "sequence " << s;
}

// The rows that the final norm gives, which the reference vectors judge, alone and in a crowd.
TEST_P(StepContract, HiddenRowsAreThoseOfTheFinalNorm) {
  const auto backend = make(model_, 2);
  const int64_t width = model_.config.hidden_size;
  const std::vector<int32_t> tokens = random_tokens(150);
  const int last = static_cast<int>(model_.config.layers.size());
  const std::vector<float> shown =
      testing::run(*backend, tokens, 150).all.at({backend::Observed::residual, last});
  ASSERT_EQ(shown.size(), tokens.size() * static_cast<size_t>(width));
  backend->reserve({4 * pages_each, 16, 1024});
  for (const size_t cut : {150, 64}) {
    const std::vector<int32_t> others = random_tokens(70);
    std::vector<float> hidden(shown.size(), std::numeric_limits<float>::quiet_NaN());
    Drive drive(1), before(0), behind(2);
    for (size_t first = 0; first < tokens.size(); first += cut) {
      const size_t rows = std::min(cut, tokens.size() - first);
      Batch batch;
      batch.sequences.push_back(
          drive.rows(std::span(tokens).subspan(first, rows), model_.config.vocabulary_size));
      batch.sequences[0].logits = nullptr;
      batch.sequences[0].hidden = hidden.data() + first * static_cast<size_t>(width);
      if (cut < tokens.size() && first == 0) {  // a crowd, which wants no hidden rows
        batch.sequences.insert(batch.sequences.begin(),
                               before.rows(others, model_.config.vocabulary_size));
        batch.sequences.push_back(behind.rows(others, model_.config.vocabulary_size));
      }
      backend->step(batch);
    }
    EXPECT_EQ(hidden, shown) << "in pieces of " << cut;
  }
}

// Rows of answers, one by one or several at once, in a crowd and beside a prompt.
TEST_P(StepContract, SameBitsForAnswersWhoeverElseIsInTheBatch) {
  const auto backend = make(model_, 2);
  const int64_t vocabulary = model_.config.vocabulary_size;
  const std::vector<int32_t> tokens = random_tokens(70);
  const std::vector<float> one_by_one =
      run(*backend, tokens, std::vector<size_t>{64, 1, 1, 1, 1, 1, 1}, true);
  EXPECT_EQ(run(*backend, tokens, std::vector<size_t>{64, 4, 2}, true), one_by_one);

  std::vector<Drive> drives{Drive(0), Drive(1), Drive(2), Drive(3)};
  const std::vector<int32_t> prompt = random_tokens(100);
  Batch batch;
  for (size_t s = 0; s < 3; ++s)
    batch.sequences.push_back(drives[s].rows(std::span(tokens).first(64), vocabulary));
  backend->step(batch);
  for (size_t s = 0; s < 3; ++s) {
    batch.sequences[s] = drives[s].rows(std::span(tokens).subspan(64, 2 + 2 * s), vocabulary);
    batch.sequences[s].answer = true;
  }
  batch.sequences.insert(batch.sequences.begin() + 1, drives[3].rows(prompt, vocabulary));
  backend->step(batch);
  for (size_t s = 0; s < 3; ++s)
    EXPECT_TRUE(std::equal(drives[s].logits.begin(), drives[s].logits.end(),
                           one_by_one.begin() + 64 * vocabulary))
        << "sequence " << s;
  EXPECT_EQ(drives[3].logits, run(*backend, prompt, std::vector<size_t>{100}));
}

// Rejected drafts leave no trace: the slot after the accepted ones continues as if they had never
// been there.
TEST_P(StepContract, RejectedDraftsAreUndoneBySlots) {
  const auto backend = make(model_, 2);
  const int64_t vocabulary = model_.config.vocabulary_size;
  const std::vector<int32_t> tokens = random_tokens(50);
  const std::vector<float> plain = run(*backend, tokens, std::vector<size_t>{40, 1, 1, 1, 7}, true);

  Drive drive(0);
  Batch batch;
  batch.sequences.push_back(drive.rows(std::span(tokens).first(40), vocabulary));
  backend->step(batch);
  // Two right drafts and two wrong ones behind the token at 40; a slot for every row.
  std::vector<int32_t> drafted(tokens.begin() + 40, tokens.begin() + 43);
  drafted.push_back((tokens[43] + 1) % static_cast<int32_t>(vocabulary));
  drafted.push_back(5);
  batch.sequences[0] = drive.rows(drafted, vocabulary, 1);
  const std::vector<int32_t> slots{1, 2, 3, 4, 5};
  batch.sequences[0].state_out = slots;
  batch.sequences[0].answer = true;
  backend->step(batch);
  const size_t row = static_cast<size_t>(vocabulary);
  EXPECT_TRUE(std::equal(drive.logits.begin(), drive.logits.begin() + 3 * vocabulary,
                         plain.begin() + 40 * vocabulary));
  drive.state = slots[2];
  drive.position = 43;
  batch.sequences[0] = drive.rows(std::span(tokens).subspan(43), vocabulary);
  batch.sequences[0].answer = true;
  backend->step(batch);
  EXPECT_TRUE(std::equal(drive.logits.begin(), drive.logits.end(), plain.begin() + 43 * row));
}

// For measurements: so many drafts are accepted whatever they are, and no more.
TEST_P(StepContract, AcceptanceCanBeForced) {
  const auto backend = make(model_, 1);
  const std::vector<int32_t> tokens = random_tokens(9);
  const ops::SamplingParameters greedy;
  const ops::TokenCounts counts;
  for (int32_t forced = 0; forced <= 3; ++forced) {
    Drive drive(0);
    backend->step({{drive.rows(std::span(tokens).first(5), model_.config.vocabulary_size)}});
    SequenceStep step = drive.rows(std::span(tokens).subspan(5), model_.config.vocabulary_size);
    step.drafts = 3;
    step.force_accepted = forced;
    step.draw = true;
    step.sampling = &greedy;
    step.counts = &counts;
    const auto results = backend->step({{step}});
    ASSERT_FALSE(results[0].error);
    ASSERT_EQ(results[0].accepted_drafts(), forced);
    for (size_t i = 0; i < static_cast<size_t>(forced); ++i)
      EXPECT_EQ(results[0].tokens[i].token, tokens[6 + i]);
  }
}

TEST_P(StepContract, StateCopiesAndTravels) {
  const auto backend = make(model_, 1);
  const int64_t vocabulary = model_.config.vocabulary_size;
  const std::vector<int32_t> tokens = random_tokens(30);
  const std::vector<float> plain = run(*backend, tokens, std::vector<size_t>{20, 10});
  for (const bool by_bytes : {false, true}) {
    Drive drive(0);
    Batch batch;
    batch.sequences.push_back(drive.rows(std::span(tokens).first(20), vocabulary));
    backend->step(batch);
    if (by_bytes) {
      std::vector<std::byte> bytes(backend->capabilities().slot_bytes);
      backend->export_state(0, bytes);
      backend->import_state(9, bytes);
    } else {
      backend->copy_state(0, 9);
    }
    drive.state = 9;
    batch.sequences[0] = drive.rows(std::span(tokens).subspan(20), vocabulary);
    backend->step(batch);
    EXPECT_TRUE(
        std::equal(drive.logits.begin(), drive.logits.end(), plain.begin() + 20 * vocabulary));
  }
}

// Where its pages go the sequence can follow.
TEST_P(StepContract, PagesTravel) {
  const auto backend = make(model_, 1);
  const int64_t vocabulary = model_.config.vocabulary_size;
  const std::vector<int32_t> tokens = random_tokens(100);
  const std::vector<float> plain = run(*backend, tokens, std::vector<size_t>{64, 36});
  Drive drive(0);
  Batch batch;
  batch.sequences.push_back(drive.rows(std::span(tokens).first(64), vocabulary));
  backend->step(batch);
  const int32_t from = drive.pages[0];
  const int32_t to = drive.pages.back() + 1;
  std::vector<std::byte> bytes(backend->capabilities().page_bytes);
  backend->export_page(from, bytes);
  backend->import_page(to, bytes);
  std::ranges::fill(bytes, std::byte(0xFF));  // no numbers: they would show
  backend->import_page(from, bytes);
  drive.pages[0] = to;
  batch.sequences[0] = drive.rows(std::span(tokens).subspan(64), vocabulary);
  backend->step(batch);
  EXPECT_TRUE(
      std::equal(drive.logits.begin(), drive.logits.end(), plain.begin() + 64 * vocabulary));
}

// What the MTP head proposes after a step depends on the sequence alone, not on how it was cut,
// and a proposal of n is the beginning of a proposal of n + 1.
TEST_P(StepContract, ProposalsDoNotDependOnTheCut) {
  const auto backend = make(model_, 2);
  const std::vector<int32_t> tokens = random_tokens(60);
  const ops::SamplingParameters greedy;
  const ops::TokenCounts counts;
  const auto propose = [&](std::span<const size_t> pieces, int32_t depth) {
    Drive drive(0);
    size_t first = 0;
    std::vector<backend::SequenceResult> results;
    for (size_t piece : pieces) {
      SequenceStep step =
          drive.rows(std::span(tokens).subspan(first, piece), model_.config.vocabulary_size);
      first += piece;
      step.mtp = true;
      step.sampling = &greedy;
      step.counts = &counts;
      step.draw = first == tokens.size();
      step.propose = step.draw ? depth : 0;
      if (!step.draw) step.next_token = tokens[first];
      results = backend->step({{step}});
    }
    EXPECT_EQ(results[0].tokens.size(), 1u);
    return results[0].proposed;
  };
  const std::vector<int32_t> five = propose(std::vector<size_t>{60}, 5);
  ASSERT_EQ(five.size(), 5u);
  EXPECT_EQ(propose(std::vector<size_t>(60, 1), 5), five);
  EXPECT_EQ(propose(std::vector<size_t>{13, 40, 7}, 5), five);
  const std::vector<int32_t> two = propose(std::vector<size_t>{60}, 2);
  EXPECT_TRUE(two.size() == 2 && std::equal(two.begin(), two.end(), five.begin()));
}

// Quantised weights stay near the stored ones, and the finer format nearer: on a text that the
// model knows, measured as Kullback-Leibler divergence of the next-token distributions.
TEST(QuantizedWeights, DivergenceShrinksWithTheFormat) {
  const TestModel model(testing::tiny_shakespeare);
  const std::vector<int32_t> tokens = testing::greedy_text();
  const auto vocabulary = static_cast<size_t>(model.config.vocabulary_size);
  const auto log_probabilities = [&](const testing::Way& way) {
    const auto backend = model.backend(2, way);
    backend->reserve({pages_each, 4, 128});
    Drive drive(0);
    backend->step({{drive.rows(tokens, model.config.vocabulary_size)}});
    std::vector<double> all(drive.logits.begin(), drive.logits.end());
    for (size_t row = 0; row < all.size(); row += vocabulary) {
      double sum = 0;
      for (size_t i = row; i < row + vocabulary; ++i) sum += std::exp(all[i]);
      for (size_t i = row; i < row + vocabulary; ++i) all[i] -= std::log(sum);
    }
    return all;
  };
  const std::vector<double> exact = log_probabilities({});
  const auto divergence = [&](const std::vector<double>& other) {
    double sum = 0;
    for (size_t i = 0; i < exact.size(); ++i) sum += std::exp(exact[i]) * (exact[i] - other[i]);
    return sum / static_cast<double>(tokens.size());
  };
  const std::optional<DType> finer = testing::on_cuda ? DType::f8_e4m3 : DType::q8_0;
  const double eight_bits = divergence(log_probabilities({finer, false}));
  const double four_bits = divergence(log_probabilities({DType::q4_0, false}));
  RecordProperty("eight_bits", std::to_string(eight_bits));
  RecordProperty("four_bits", std::to_string(four_bits));
  EXPECT_GT(eight_bits, 0);
  EXPECT_LT(eight_bits, 0.05);
  EXPECT_LT(5 * eight_bits, four_bits);
  EXPECT_LT(four_bits, 1.0);
}

}  // namespace
}  // namespace qnext
