// Text from the bundled model through tokenizer, engine and backend.
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "base/json.h"
#include "engine/collector.h"
#include "engine/engine.h"
#include "tests/models.h"
#include "text/tokenizer.h"

namespace qnext {
namespace {

using engine::Collector;
using engine::Engine;
using engine::GenerationRequest;
using testing::TestModel;

class Generation : public ::testing::TestWithParam<testing::Way> {
 protected:
  static void SetUpTestSuite() {
    model_ = new TestModel(testing::tiny_shakespeare);
    tokenizer_ = new Tokenizer(Tokenizer::load(testing::tiny_shakespeare));
  }
  static void TearDownTestSuite() {
    delete tokenizer_;
    delete model_;
  }

  static std::vector<std::string> prompts() {
    std::vector<std::string> all;
    const json::Value references = expected();
    for (const json::Value& entry : references.as_array())
      all.push_back(entry.find("prompt")->as_string());
    return all;
  }
  static json::Value expected() {
    return json::parse_file(testing::tiny_shakespeare + "/expected.json");
  }
  static GenerationRequest request(const std::string& prompt, int64_t tokens) {
    GenerationRequest request;
    request.prompt = tokenizer_->encode(prompt);
    request.max_tokens = tokens;
    return request;
  }
  // The answers of all requests run together.
  static std::vector<Collector> run(backend::Backend& backend,
                                    const std::vector<GenerationRequest>& requests,
                                    int32_t prefill_chunk = 512, int64_t context = 512) {
    Engine engine(backend, tokenizer_,
                  {.max_context = context,
                   .max_sequences = static_cast<int32_t>(requests.size()),
                   .prefill_chunk = prefill_chunk,
                   .max_speculation = 4,
                   .adapt_speculation = false});
    std::vector<Collector> answers(requests.size());
    for (size_t i = 0; i < requests.size(); ++i) engine.submit(requests[i], answers[i]);
    engine.run();
    return answers;
  }

  // Roundings to bf16 take the text elsewhere at the first near tie, and what is said of the
  // reference's text holds no more.
  static bool writes_the_references_text() { return GetParam().eager; }

  static inline TestModel* model_ = nullptr;
  static inline Tokenizer* tokenizer_ = nullptr;
};

INSTANTIATE_TEST_SUITE_P(Ways, Generation, ::testing::ValuesIn(testing::exact_ways()),
                         [](const auto& test) { return test.param.name(); });

TEST_P(Generation, GreedyTextIsTheReferences) {
  if (!writes_the_references_text()) GTEST_SKIP() << "its activations are rounded to bf16";
  const auto backend = model_->backend(2, GetParam());
  const json::Value references = expected();
  for (const json::Value& reference : references.as_array()) {
    const std::string& prompt = reference.find("prompt")->as_string();
    for (int32_t speculate : {0, 3}) {
      GenerationRequest greedy = request(prompt, 64);
      greedy.speculate = speculate;
      EXPECT_EQ(prompt + run(*backend, {greedy})[0].text,
                reference.find("greedy_text")->as_string());
    }
  }
}

// The share of one-step drafts accepted is what the reference measured for the same head. It
// counted every position; a verify step counts those reached, so prompts whose drafts come in
// streaks differ by a few tokens of 64.
TEST_P(Generation, DraftsAreAcceptedAsOftenAsTheHeadIsRight) {
  if (!writes_the_references_text()) GTEST_SKIP() << "its activations are rounded to bf16";
  const auto backend = model_->backend(2, GetParam());
  const json::Value references = expected();
  double accepted = 0, drafted = 0, share = 0;
  for (const json::Value& reference : references.as_array()) {
    GenerationRequest greedy = request(reference.find("prompt")->as_string(), 64);
    greedy.speculate = 1;
    const auto counts = run(*backend, {greedy})[0].finish->counts;
    accepted += static_cast<double>(counts.accepted_tokens);
    drafted += static_cast<double>(counts.drafted_tokens);
    share += reference.find("mtp_1_acceptance")->as_double() / 4;
  }
  ASSERT_GT(drafted, 100);
  EXPECT_NEAR(accepted / drafted, share, 0.1);
}

// Alone, or with 31 others where memory is short, behind cached prefixes or not, with drafts or
// not.
TEST_P(Generation, SameGreedyTextInAFullBatch) {
  const auto backend = model_->backend(2, GetParam());
  const std::vector<std::string> openings = prompts();
  std::vector<GenerationRequest> requests;
  std::vector<std::string> alone;
  for (size_t i = 0; i < 32; ++i) {
    std::string prompt = openings[i % openings.size()];
    for (size_t more = i / openings.size(); more > 0; --more) prompt += "\nAnd so it goes on:";
    requests.push_back(request(prompt, 150));
    requests.back().ignore_eos = true;
    alone.push_back(run(*backend, {requests.back()})[0].text);
  }
  for (const bool all : {false, true}) {
    SCOPED_TRACE(all ? "cache and drafts" : "neither cache nor drafts");
    // A new one each time: it learns how long answers are. Drafts by the clock would make the
    // number of pauses a matter of luck.
    Engine engine(*backend, tokenizer_,
                  {.max_context = 512,
                   .max_sequences = 32,
                   .max_speculation = 3,
                   .adapt_speculation = false,
                   .pages = 64,
                   .likely_answer = 0,
                   .cache_bytes = all ? size_t{64} << 20 : 0});
    std::vector<Collector> together(requests.size());
    for (size_t i = 0; i < requests.size(); ++i) {
      requests[i].speculate = all ? 3 : 0;
      engine.submit(requests[i], together[i]);
    }
    engine.run();
    int64_t pauses = 0;
    for (size_t i = 0; i < requests.size(); ++i) {
      EXPECT_EQ(together[i].text, alone[i]) << i;
      pauses += together[i].finish->counts.pauses;
    }
    EXPECT_GT(pauses, 0) << "memory was not short";
  }
}

TEST_P(Generation, SameSeedSameTextWhateverElse) {
  std::vector<GenerationRequest> requests;
  for (const std::string& prompt : prompts()) {
    GenerationRequest sampled = request(prompt, 40);
    sampled.sampling.temperature = 0.9f;
    sampled.sampling.top_p = 0.95f;
    sampled.sampling.repetition_penalty = 1.1f;
    sampled.sampling.presence_penalty = 0.2f;
    sampled.sampling.frequency_penalty = 0.1f;
    sampled.sampling.seed = 1234 + requests.size();
    requests.push_back(sampled);
  }
  std::vector<std::string> alone;
  const auto one_thread = model_->backend(1, GetParam());
  for (const GenerationRequest& request : requests)
    alone.push_back(run(*one_thread, {request})[0].text);

  const auto check = [&](backend::Backend& backend, int32_t chunk, int32_t speculate) {
    for (GenerationRequest& request : requests) request.speculate = speculate;
    const std::vector<Collector> together = run(backend, requests, chunk);
    for (size_t i = 0; i < requests.size(); ++i)
      EXPECT_EQ(together[i].text, alone[i]) << "chunk " << chunk << ", speculate " << speculate;
  };
  const auto three_threads = model_->backend(3, GetParam());
  check(*one_thread, 512, 0);
  check(*three_threads, 3, 0);
  check(*three_threads, 512, 1);
  check(*three_threads, 5, 4);
  EXPECT_NE(alone[0], alone[1]);
}

// Tokens drawn while drafts are verified follow the model's distribution: the second token of many
// seeds, with and without drafts, against the exact mixture over first tokens.
TEST_P(Generation, SameTextBehindACachedPrefix) {
  const auto backend = model_->backend(2, GetParam());
  for (const int32_t drafts : {0, 2}) {
    SCOPED_TRACE(drafts);
    std::vector<Collector> afresh;
    std::vector<GenerationRequest> turns;
    GenerationRequest turn = request(prompts()[0], 100);
    turn.sampling.temperature = 0.7f;
    turn.sampling.seed = 5;
    turn.speculate = drafts;
    for (int i = 0; i < 4; ++i) {
      turns.push_back(turn);
      afresh.push_back(std::move(run(*backend, {turn}, 512, 1024)[0]));
      for (const ops::SampledToken& token : afresh.back().tokens)
        turn.prompt.push_back(token.token);
      for (const int32_t token : tokenizer_->encode("\n\nJULIET:\n")) turn.prompt.push_back(token);
    }
    Engine engine(*backend, tokenizer_,
                  {.max_context = 1024, .max_speculation = 2, .cache_bytes = 1 << 28});
    for (size_t i = 0; i < turns.size(); ++i) {
      SCOPED_TRACE(i);
      Collector answer;
      engine.submit(turns[i], answer);
      engine.run();
      EXPECT_EQ(answer.text, afresh[i].text);
      if (i > 0) {
        EXPECT_GE(answer.finish->counts.cached_tokens, std::ssize(turns[i - 1].prompt) - 64);
      }
      if (i > 0 && backend->capabilities().answers_like_prompts) {
        EXPECT_GE(answer.finish->counts.cached_tokens, std::ssize(turns[i - 1].prompt) + 100 - 65);
      }
    }
  }
}

TEST_P(Generation, SpeculationLeavesTheDistributionUnchanged) {
  const auto backend = model_->backend(2, GetParam());
  constexpr int samples = 1500;
  std::map<int32_t, int> plain, drafted;
  for (int32_t speculate : {0, 2}) {
    std::vector<GenerationRequest> requests;
    for (int i = 0; i < samples; ++i) {
      GenerationRequest sampled = request("ROMEO:\nBut soft,", 3);
      sampled.sampling.temperature = 1.0f;
      // Different seeds: agreement must come from the distribution, not from shared draws.
      sampled.sampling.seed = static_cast<uint64_t>(i + speculate * samples);
      sampled.speculate = speculate;
      requests.push_back(sampled);
    }
    Engine engine(
        *backend, tokenizer_,
        {.max_context = 64, .max_sequences = 16, .max_speculation = 4, .adapt_speculation = false});
    std::vector<Collector> answers(requests.size());
    for (size_t i = 0; i < requests.size(); ++i) engine.submit(requests[i], answers[i]);
    engine.run();
    for (const Collector& answer : answers)
      if (answer.tokens.size() > 2) ++(speculate ? drafted : plain)[answer.tokens[2].token];
  }
  // Chi-square of two samples over the tokens seen often enough, the rest as one class.
  double statistic = 0;
  int degrees = -1;
  double rest_plain = 0, rest_drafted = 0;
  std::map<int32_t, int> all = plain;
  for (const auto& [token, count] : drafted) all[token] += count;
  const auto term = [&](double a, double b) {
    if (a + b == 0) return;
    statistic += (a - b) * (a - b) / (a + b);
    ++degrees;
  };
  for (const auto& [token, count] : all) {
    const double a = plain[token], b = drafted[token];
    if (count >= 20) {
      term(a, b);
    } else {
      rest_plain += a;
      rest_drafted += b;
    }
  }
  term(rest_plain, rest_drafted);
  ASSERT_GT(degrees, 5);
  // Seeds are fixed, so this either always passes or never; the bound is four deviations of a
  // chi-square.
  EXPECT_LT(statistic, degrees + 4 * std::sqrt(2.0 * degrees));
}

TEST_P(Generation, StopStringsLogprobsAndLimits) {
  if (!writes_the_references_text()) GTEST_SKIP() << "its activations are rounded to bf16";
  const auto backend = model_->backend(2, GetParam());
  GenerationRequest stopped = request("ROMEO:\nBut soft, what light", 64);
  stopped.stop_strings = {"rapier"};
  stopped.sampling.logprobs = 3;
  GenerationRequest limited = request("To be, or not to be", 1000);
  const std::vector<Collector> answers = run(*backend, {stopped, limited});
  EXPECT_EQ(answers[0].finish->reason, engine::FinishReason::stop_string);
  EXPECT_EQ(answers[0].text, "s have I punish'd with my ");
  for (const ops::SampledToken& token : answers[0].tokens) {
    ASSERT_EQ(token.top.size(), 3u);
    EXPECT_EQ(token.top[0].token, token.token);  // greedy
    EXPECT_EQ(token.top[0].logprob, token.logprob);
    EXPECT_LE(token.logprob, 0);
  }
  EXPECT_EQ(answers[1].finish->reason, engine::FinishReason::context);
  EXPECT_EQ(answers[1].finish->counts.prompt_tokens + answers[1].finish->counts.generated_tokens,
            512);
}

}  // namespace
}  // namespace qnext
