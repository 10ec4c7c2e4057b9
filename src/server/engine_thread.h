// The engine on a thread of its own, for callers on any other.
//
// Requests come through a bounded queue, answers go out through feeds (answer_feed.h), and nothing
// that a caller does makes the engine wait. Cancelling ends a request before the next step.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>
#include <unordered_map>
#include <vector>

#include "base/error.h"
#include "engine/engine.h"
#include "server/answer_feed.h"
#include "server/metrics.h"

namespace qnext::server {

class EngineThread;
class Ticket;

// Thrown by EngineThread::submit: no fault of the request, which may come again later.
class QueueFull : public Error {
 public:
  using Error::Error;
};

// One answer under way, the reader's side. Letting go of it cancels what has not ended.
// Not for two threads at a time; the EngineThread must outlive it.
class AnswerHandle {
 public:
  AnswerHandle(EngineThread& engine, std::shared_ptr<Ticket> ticket);
  ~AnswerHandle();
  AnswerHandle(AnswerHandle&&) noexcept = default;
  AnswerHandle& operator=(AnswerHandle&&) noexcept = delete;

  // As AnswerFeed's.
  AnswerNews take();
  void set_wake(std::function<void()> wake);

 private:
  EngineThread* engine_;
  std::shared_ptr<Ticket> ticket_;
};

struct ServerLoad {
  engine::EngineLoad engine;  // as it was after the last step
  int64_t unfinished = 0;     // requests accepted and not yet ended
};

class EngineThread {
 public:
  // `queue`: how many requests may wait beyond those that EngineOptions::max_sequences lets run.
  // While this lives, nobody else may call `engine` but for check(), options() and hidden_size().
  // Engine and metrics must outlive it.
  EngineThread(engine::Engine& engine, int32_t queue, Metrics& metrics);
  // Cancels what runs.
  ~EngineThread();
  EngineThread(const EngineThread&) = delete;
  EngineThread& operator=(const EngineThread&) = delete;

  // All of them or none. Throws Error where one could never run, QueueFull where there is no room
  // for all.
  std::vector<AnswerHandle> submit(std::vector<engine::GenerationRequest> requests,
                                   const FeedOptions& feed);
  // For requests that are many and small: where there is no room for all they come in turns, which
  // take half of the places at most. Throws QueueFull where there is no room for one, or where
  // `most_in_turns` wait so already.
  std::vector<AnswerHandle> submit_in_turns(std::vector<engine::GenerationRequest> requests,
                                            const FeedOptions& feed);
  static constexpr size_t most_in_turns = 4096;
  // Every request that has been accepted ends with FinishReason::cancelled.
  void cancel_all();

  ServerLoad load() const;
  const engine::EngineOptions& options() const { return engine_.options(); }
  // Of the model: the values of an embedding.
  int64_t hidden_size() const { return engine_.hidden_size(); }

 private:
  friend class AnswerHandle;
  friend class Ticket;

  void cancel(const std::shared_ptr<Ticket>& ticket);
  void run();
  bool take_commands(bool idle);
  std::vector<std::shared_ptr<Ticket>> make_tickets(std::vector<engine::GenerationRequest> requests,
                                                    const FeedOptions& feed);
  std::vector<AnswerHandle> handles_of(std::vector<std::shared_ptr<Ticket>> tickets);
  void take_turns();
  bool leave_turns(const std::shared_ptr<Ticket>& ticket);
  void start(const std::shared_ptr<Ticket>& ticket);
  void step();
  void end_all();
  void ended(Ticket& ticket);

  engine::Engine& engine_;
  Metrics& metrics_;
  const int64_t most_unfinished_;

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::shared_ptr<Ticket>> submitted_;
  std::vector<std::shared_ptr<Ticket>> cancelled_;
  std::deque<std::shared_ptr<Ticket>> in_turns_;  // not yet submitted, nor counted as unfinished
  int64_t turns_taken_ = 0;                       // unfinished ones that came in turns
  bool cancel_all_ = false;
  bool stopping_ = false;
  ServerLoad load_;

  // The thread's own.
  std::unordered_map<engine::RequestId, std::shared_ptr<Ticket>> running_;
  std::vector<std::shared_ptr<Ticket>> ended_;  // kept until no call of theirs is on the stack
  bool idle_ = true;
  std::thread thread_;
};

}  // namespace qnext::server
