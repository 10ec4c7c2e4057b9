// Whatever runs beside it, however short memory is, each request gets the answer that it would get
// alone, one token at a time.
#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "checkpoint/temporary_folder.h"
#include "engine/collector.h"
#include "engine/engine.h"
#include "engine/testing/fake_backend.h"
#include "engine/testing/hash_constraint.h"
#include "engine/testing/reference_answer.h"
#include "engine/testing/tiny_tokenizer.h"

namespace qnext::engine {
namespace {

using testing::FakeBackend;
using testing::FakeOptions;
using testing::reference_answer;
using testing::ReferenceAnswer;
using testing::ReferenceSettings;

// Checks the order of events as they come.
class Watching : public Collector {
 public:
  void on_token(RequestId id, const ops::SampledToken& token) override {
    EXPECT_FALSE(finish) << "a token after the end of request " << id;
    Collector::on_token(id, token);
  }
  void on_text(RequestId id, std::string_view piece) override {
    EXPECT_FALSE(finish) << "text after the end of request " << id;
    EXPECT_FALSE(tokens.empty());
    EXPECT_FALSE(piece.empty());
    Collector::on_text(id, piece);
  }
  void on_finish(RequestId id, const Finish& end) override {
    EXPECT_FALSE(finish) << "request " << id << " ended twice";
    Collector::on_finish(id, end);
  }
};

class Random {
 public:
  explicit Random(uint64_t seed) : engine_(seed) {}
  int64_t between(int64_t low, int64_t high) {
    return std::uniform_int_distribution<int64_t>(low, high)(engine_);
  }
  int32_t small(int32_t low, int32_t high) { return static_cast<int32_t>(between(low, high)); }
  bool one_in(int64_t n) { return between(1, n) == 1; }

 private:
  std::mt19937_64 engine_;
};

struct Running {
  GenerationRequest request;
  Watching listener;
  RequestId id = 0;
  bool cancelled = false;
};

int64_t pauses(const std::deque<Running>& all) {
  int64_t count = 0;
  for (const Running& running : all) count += running.listener.finish->counts.pauses;
  return count;
}

void expect_counts(const Running& running) {
  const GenerationCounts& counts = running.listener.finish->counts;
  EXPECT_EQ(counts.prompt_tokens, std::ssize(running.request.prompt));
  EXPECT_EQ(counts.generated_tokens, std::ssize(running.listener.tokens));
  EXPECT_LE(counts.accepted_tokens, counts.drafted_tokens);
  if (counts.generated_tokens == 0) return;
  // Each decode step gave one token beside the drafts it accepted, except that the end of the
  // answer may have been an accepted draft.
  const int64_t explained = 1 + counts.decode_steps + counts.accepted_tokens;
  EXPECT_TRUE(counts.generated_tokens == explained || counts.generated_tokens == explained - 1);
  EXPECT_TRUE(running.request.speculate > 0 || counts.drafted_tokens == 0);
}

void expect_answer(const Running& running, const ReferenceSettings& settings) {
  ASSERT_TRUE(running.listener.finish);
  const Finish& finish = *running.listener.finish;
  const ReferenceAnswer expected = reference_answer(running.request, settings);
  std::vector<int32_t> tokens;
  for (const ops::SampledToken& token : running.listener.tokens) tokens.push_back(token.token);
  if (finish.reason == FinishReason::cancelled) {
    EXPECT_TRUE(running.cancelled);
    ASSERT_LE(tokens.size(), expected.tokens.size());
    EXPECT_TRUE(std::equal(tokens.begin(), tokens.end(), expected.tokens.begin()));
    EXPECT_TRUE(expected.text.starts_with(running.listener.text));
  } else {
    EXPECT_EQ(tokens, expected.tokens);
    EXPECT_EQ(running.listener.text, expected.text);
    EXPECT_EQ(finish_reason_name(finish.reason), finish_reason_name(expected.reason));
    EXPECT_EQ(finish.stop_string, expected.stop_string);
  }
  expect_counts(running);
}

// Often it begins as an earlier one did, or goes on from its answer.
std::vector<int32_t> random_prompt(Random& random, int64_t longest, int32_t vocabulary,
                                   const std::deque<Running>& earlier) {
  std::vector<int32_t> prompt;
  if (!earlier.empty() && random.one_in(2)) {
    const Running& one = earlier[static_cast<size_t>(random.between(0, std::ssize(earlier) - 1))];
    prompt = one.request.prompt;
    for (const ops::SampledToken& token : one.listener.tokens) prompt.push_back(token.token);
    prompt.resize(static_cast<size_t>(random.between(0, std::ssize(prompt))));
  }
  const int64_t length = random.between(1, std::max<int64_t>(longest, 1));
  while (std::ssize(prompt) < length) prompt.push_back(random.small(0, vocabulary - 1));
  prompt.resize(static_cast<size_t>(length));
  return prompt;
}

GenerationRequest random_request(Random& random, const EngineOptions& options, int32_t vocabulary,
                                 const std::deque<Running>& earlier) {
  GenerationRequest request;
  const int64_t longest = random.one_in(4) ? options.max_context - 1 : options.max_context / 2;
  request.prompt = random_prompt(random, longest, vocabulary, earlier);
  if (!random.one_in(3)) request.max_tokens = random.between(1, 30);
  if (random.one_in(3)) request.stop_tokens.push_back(random.small(0, vocabulary - 1));
  request.ignore_eos = random.one_in(3);
  request.user = std::string(static_cast<size_t>(random.small(0, 3)), 'u');
  for (int i = random.small(0, 4); i > 0; --i)
    request.boundaries.push_back(random.between(0, std::ssize(request.prompt)));
  std::ranges::sort(request.boundaries);
  request.speculate = random.small(0, options.max_speculation);
  if (random.one_in(2)) {
    request.sampling.temperature = 1;
    request.sampling.seed = static_cast<uint64_t>(random.between(0, 5));
  }
  if (random.one_in(3)) request.sampling.presence_penalty = 0.5f;
  if (random.one_in(3))
    request.constraint = testing::hash_constraint(vocabulary, random.small(0, 100));
  return request;
}

void add_stop_strings(Random& random, GenerationRequest& request) {
  const std::vector<std::string> some = {"ab",  "bca", "c a", "cc",     "b<call>",
                                         "aaa", "bbc", "  ",  "\u20AC", "\u20ACa"};
  for (int i = random.small(0, 3); i > 0; --i)
    request.stop_strings.push_back(
        some[static_cast<size_t>(random.between(0, std::ssize(some) - 1))]);
}

// With a tokenizer the answers have text and stop strings.
// Returns how often sequences had to make way.
int64_t check_random_mix(uint64_t seed, const Tokenizer* tokenizer) {
  Random random(seed);
  FakeOptions fake{.vocabulary = tokenizer ? testing::tiny_vocabulary : random.small(10, 200),
                   .page_tokens = random.between(1, 9),
                   .context = random.between(10, 120),
                   .eos_token_ids = {testing::tiny_special},
                   .answers_like_prompts = !random.one_in(4),
                   .acceptance = static_cast<double>(random.small(-10, 10)) / 10};
  fake.seconds = [&random](const backend::Batch&) { return random.small(1, 100) * 0.1; };
  FakeBackend backend(fake);
  EngineOptions options{.max_sequences = random.small(1, 6),
                        .prefill_chunk = random.small(1, 40),
                        .max_speculation = random.small(0, 5),
                        .adapt_speculation = random.one_in(2),
                        .clock = [&backend] { return backend.clock; }};
  if (random.one_in(2))
    options.pages = random.small(static_cast<int32_t>(10 / fake.page_tokens) + 1, 40);
  options.likely_answer = random.small(0, 40);
  options.swap_bytes =
      random.one_in(2) ? size_t{1} << 30 : static_cast<size_t>(random.small(0, 2000));
  if (random.one_in(2)) options.slots = options.max_speculation + random.small(1, 5);
  if (random.one_in(2)) options.cache_bytes = static_cast<size_t>(random.between(100, 20000));
  std::optional<TemporaryFolder> folder;
  if (options.cache_bytes > 0 && random.one_in(10)) options.cache_folder = folder.emplace().path();
  Engine engine(backend, tokenizer, options);
  ReferenceSettings settings{.vocabulary = fake.vocabulary,
                             .context = engine.options().max_context,
                             .eos_tokens = {testing::tiny_special},
                             .tokenizer = tokenizer};

  std::deque<Running> all;
  int64_t to_come = random.between(1, 15);
  bool busy = true;
  while (busy || to_come > 0) {
    while (to_come > 0 && random.one_in(2)) {
      Running& next = all.emplace_back();
      next.request = random_request(random, engine.options(), fake.vocabulary, all);
      if (tokenizer) add_stop_strings(random, next.request);
      next.id = engine.submit(next.request, next.listener);
      --to_come;
    }
    if (!all.empty() && random.one_in(20)) {
      Running& unlucky = all[static_cast<size_t>(random.between(0, std::ssize(all) - 1))];
      unlucky.cancelled = true;
      engine.cancel(unlucky.id);
      EXPECT_TRUE(unlucky.listener.finish);
    }
    busy = engine.step();
  }
  for (const Running& running : all) expect_answer(running, settings);
  const EngineLoad load = engine.load();
  EXPECT_EQ(load.running + load.waiting + load.paused, 0);
  EXPECT_EQ(load.swapped_bytes, 0u);
  EXPECT_EQ(load.free_pages + load.cached_pages, engine.options().pages);
  EXPECT_LE(load.cached_bytes, engine.options().cache_bytes);
  EXPECT_EQ(load.free_slots, engine.options().slots);
  return pauses(all);
}

TEST(EngineProperties, AnswersDependOnTheRequestAlone) {
  int64_t pauses = 0;
  for (uint64_t seed = 0; seed < 2000 && !HasFailure(); ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    pauses += check_random_mix(seed, nullptr);
  }
  EXPECT_GT(pauses, 100) << "memory was never short";
}

TEST(EngineProperties, TextToo) {
  const Tokenizer tokenizer = testing::tiny_tokenizer();
  for (uint64_t seed = 0; seed < 2000 && !HasFailure(); ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    check_random_mix(seed, &tokenizer);
  }
}

}  // namespace
}  // namespace qnext::engine
