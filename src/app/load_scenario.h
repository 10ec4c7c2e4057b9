// Who asks what in a load test: simulated users, and the requests that they send.
//
// Prompts are made of common English words, drawn at random from a seed. How many words make so
// many tokens depends on the server's tokenizer: `words_per_token` says it, measured before.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <random>
#include <string>

#include "base/json.h"

namespace qnext::app {

// A number, or any of a range with equal probability.
struct LengthRange {
  int64_t least = 0;
  int64_t most = 0;
  int64_t draw(std::mt19937_64& random) const;
};

// "128" or "64:256", both of at least `least`. Throws Error naming `option`.
LengthRange parse_length_range(const std::string& text, const std::string& option, int64_t least);

enum class Scenario { random, shared_prefix, multi_turn };

struct ScenarioOptions {
  Scenario scenario = Scenario::random;
  bool chat = true;  // or completions
  std::string model;
  LengthRange prompt_tokens{128, 128};  // of a message; without the common beginning
  LengthRange generate{64, 64};
  int64_t prefix_tokens = 1024;  // of the beginning that all requests share, in shared_prefix
  int64_t turns = 5;             // of a conversation, in multi_turn
  bool ignore_eos = false;       // answers have their full length; no field of OpenAI's
  double words_per_token = 1;
  uint64_t seed = 0;
};

struct LoadRequest {
  std::string body;
  int64_t generate = 0;  // tokens asked for
};

// One simulated user: what is asked, turn by turn.
class LoadConversation {
 public:
  // Nothing: the conversation is over.
  std::optional<LoadRequest> next();
  // What the request that came last was answered.
  void answered(const std::string& text);

 private:
  friend class ScenarioSource;
  LoadConversation(const ScenarioOptions& options, uint64_t number, std::string begin);
  std::string words(int64_t tokens);

  const ScenarioOptions& options_;
  std::mt19937_64 random_;
  json::Array messages_;
  std::string text_;  // for completions
  int64_t turns_;
};

// Must outlive its conversations. Number n is the same, whichever server answers.
class ScenarioSource {
 public:
  explicit ScenarioSource(ScenarioOptions options);
  std::unique_ptr<LoadConversation> begin();

 private:
  const ScenarioOptions options_;
  std::string prefix_;
  uint64_t next_ = 1;
};

// `count` words from this source of chance, with spaces between them.
std::string random_words(std::mt19937_64& random, int64_t count);

// The request that measures how many tokens words make: so many random words, one token of answer.
std::string probe_body(const ScenarioOptions& options, int64_t words);

}  // namespace qnext::app
