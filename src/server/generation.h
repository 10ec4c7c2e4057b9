// A response that is still being made: answers under way, and how an endpoint writes them.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "server/api_error.h"
#include "server/engine_thread.h"

namespace qnext::server {

struct Usage {
  // Of each prompt once, however many choices it has.
  int64_t prompt_tokens = 0;
  int64_t cached_tokens = 0;  // of those, what an earlier request had computed
  int64_t completion_tokens = 0;
  int64_t drafted_tokens = 0;   // drafts that were verified
  int64_t accepted_tokens = 0;  // and those that became part of an answer
  json::Object object() const;
};

// One server-sent event; with a name where the protocol has one ("message_start").
std::string event(const json::Value& data);
std::string named_event(std::string_view name, const json::Value& data);
// What ends the events of completions.
constexpr std::string_view done_event = "data: [DONE]\n\n";

// How an endpoint writes answers: as events while they come, or as one body at the end. Each call
// returns what the response's body goes on with.
class ResponseWriter {
 public:
  virtual ~ResponseWriter() = default;
  virtual std::string begin() { return {}; }
  virtual std::string news(size_t choice, const AnswerNews& news) = 0;
  virtual std::string end(const Usage& usage) = 0;
  // The answer failed: nothing follows. As completions tell it unless a protocol has its own way.
  virtual std::string fail(const ApiError& error, bool streamed);
};

// Letting go of it cancels the answers. For one thread at a time.
class Generation {
 public:
  // `choices` answers belong to each prompt.
  Generation(std::vector<AnswerHandle> answers, std::unique_ptr<ResponseWriter> writer,
             bool streamed, int32_t choices);

  struct Output {
    std::string body;  // to be sent on; of a whole answer all at the end
    bool done = false;
  };
  // What has come since the last call.
  Output take();
  // Ends it with an error, as the writer tells it.
  Output give_up(const ApiError& error);
  // `wake` is called on the engine's thread when take() has something to say; see AnswerFeed.
  void set_wake(const std::function<void()>& wake);

  // What the response's head tells beside the answer.
  void set_notes(std::vector<std::string> notes) { notes_ = std::move(notes); }
  const std::vector<std::string>& notes() const { return notes_; }

  bool streamed() const { return streamed_; }
  // Of a whole answer, once done: 200, or that of the error that the body tells.
  int status() const { return status_; }
  const Usage& usage() const { return usage_; }
  std::string_view finish_reason() const { return finish_reason_; }

 private:
  void fail(Output& output, const ApiError& error);

  std::vector<AnswerHandle> answers_;
  std::vector<bool> ended_;
  std::unique_ptr<ResponseWriter> writer_;
  bool streamed_;
  size_t choices_;
  bool begun_ = false;
  bool done_ = false;
  int status_ = 200;
  Usage usage_;
  std::string finish_reason_;
  std::vector<std::string> notes_;
};

}  // namespace qnext::server
