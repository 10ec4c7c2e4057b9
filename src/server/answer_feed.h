// What an answer has to say, on its way from the engine's thread to the connection that waits.
//
// The engine never waits for a reader: it adds to the feed and goes on. A reader takes everything
// that has come since it last looked, as one piece: so a slow one gets fewer and larger pieces. One
// that lets more than `limit_bytes` gather has lost its place: the engine ends its answer.
#pragma once

#include <cstddef>
#include <functional>
#include <limits>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/request.h"

namespace qnext::server {

struct FeedOptions {
  bool keep_tokens = false;  // tokens and their logprobs are news too; else text only
  bool whole = false;        // the reader is woken once, at the end
  // Most bytes that may wait for the reader.
  size_t limit_bytes = std::numeric_limits<size_t>::max();
};

struct AnswerNews {
  std::string text;
  std::vector<ops::SampledToken> tokens;  // stop tokens are not among them
  std::optional<engine::Finish> finish;   // set once, with the last news
};

// Safe between one writer and one reader.
class AnswerFeed {
 public:
  explicit AnswerFeed(const FeedOptions& options) : options_(options) {}

  // The writer's side. False: more waits than may.
  bool add_text(std::string_view piece);
  bool add_token(const ops::SampledToken& token);
  void finish(const engine::Finish& finish);

  // The reader's side: what has come since the last call; often nothing.
  AnswerNews take();
  // `wake` is called on the writer's thread when there is news, once until the next take(); at once
  // where there is some already. It must not call back into the feed. Null: nobody waits, and no
  // call is under way any more.
  void set_wake(std::function<void()> wake);

 private:
  bool grow(size_t bytes);
  void call_wake();

  const FeedOptions options_;
  std::mutex mutex_;
  AnswerNews news_;
  size_t waiting_bytes_ = 0;
  bool has_news_ = false;
  bool woken_ = false;
  std::function<void()> wake_;
};

}  // namespace qnext::server
