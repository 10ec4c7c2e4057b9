#include "server/engine_thread.h"

#include <algorithm>
#include <chrono>
#include <utility>

namespace qnext::server {

using Clock = std::chrono::steady_clock;

namespace {

double seconds_between(Clock::time_point from, Clock::time_point to) {
  return std::chrono::duration<double>(to - from).count();
}

}  // namespace

// A request from submit() to its end. All but the feed is the engine's thread's, once submitted.
class Ticket : public engine::Listener {
 public:
  Ticket(EngineThread& owner, engine::GenerationRequest wanted, const FeedOptions& options)
      : request(std::move(wanted)),
        feed(options),
        owner_(owner),
        stop_tokens_(request.stop_tokens) {
    if (request.ignore_eos) return;
    const std::vector<int32_t>& more = *owner.options().stop_tokens;
    stop_tokens_.insert(stop_tokens_.end(), more.begin(), more.end());
  }

  void on_token(engine::RequestId, const ops::SampledToken& token) override {
    const auto now = Clock::now();
    Metrics& metrics = owner_.metrics_;
    if (tokens_++ == 0)
      metrics.first_token_seconds.observe(seconds_between(submitted_, now));
    else
      metrics.token_seconds.observe(seconds_between(last_token_, now));
    last_token_ = now;
    metrics.generated_tokens.add(1);
    if (std::find(stop_tokens_.begin(), stop_tokens_.end(), token.token) == stop_tokens_.end())
      keep(feed.add_token(token));
  }
  void on_text(engine::RequestId, std::string_view piece) override { keep(feed.add_text(piece)); }
  void on_finish(engine::RequestId, const engine::Finish& finish) override { end(finish); }

  void end(engine::Finish finish) {
    if (too_slow_) {
      finish.reason = engine::FinishReason::error;
      finish.error = "the answer was not read as fast as it came";
    }
    Metrics& metrics = owner_.metrics_;
    metrics.finished(finish.reason).add(1);
    metrics.prompt_tokens.add(finish.counts.prompt_tokens);
    metrics.cached_tokens.add(finish.counts.cached_tokens);
    metrics.drafted_tokens.add(finish.counts.drafted_tokens);
    metrics.accepted_tokens.add(finish.counts.accepted_tokens);
    metrics.request_seconds.observe(seconds_between(submitted_, Clock::now()));
    has_ended = true;
    // The place is free before the reader hears of it.
    owner_.ended(*this);
    feed.finish(finish);
  }

  engine::GenerationRequest request;
  AnswerFeed feed;
  engine::RequestId id = 0;  // 0: the engine does not know it yet
  bool has_ended = false;
  bool in_turns = false;
  bool is_submitted = true;  // false while it waits for its turn

 private:
  void keep(bool in_time) {
    if (in_time || too_slow_) return;
    too_slow_ = true;
    owner_.engine_.cancel(id);
  }

  EngineThread& owner_;
  std::vector<int32_t> stop_tokens_;
  Clock::time_point submitted_ = Clock::now();
  Clock::time_point last_token_;
  int64_t tokens_ = 0;
  bool too_slow_ = false;
};

AnswerHandle::AnswerHandle(EngineThread& engine, std::shared_ptr<Ticket> ticket)
    : engine_(&engine), ticket_(std::move(ticket)) {}

AnswerHandle::~AnswerHandle() {
  if (!ticket_) return;
  ticket_->feed.set_wake(nullptr);
  engine_->cancel(ticket_);
}

AnswerNews AnswerHandle::take() {
  return ticket_->feed.take();
}
void AnswerHandle::set_wake(std::function<void()> wake) {
  ticket_->feed.set_wake(std::move(wake));
}

EngineThread::EngineThread(engine::Engine& engine, int32_t queue, Metrics& metrics)
    : engine_(engine),
      metrics_(metrics),
      most_unfinished_(int64_t{engine.options().max_sequences} + queue) {
  load_.engine = engine.load();
  thread_ = std::thread([this] { run(); });
}

EngineThread::~EngineThread() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_one();
  thread_.join();
}

std::vector<AnswerHandle> EngineThread::submit(std::vector<engine::GenerationRequest> requests,
                                               const FeedOptions& feed) {
  std::vector<std::shared_ptr<Ticket>> tickets = make_tickets(std::move(requests), feed);
  {
    const std::lock_guard lock(mutex_);
    const int64_t unfinished = load_.unfinished + std::ssize(tickets);
    if (unfinished > most_unfinished_)
      throw QueueFull(fmt::format("{} answers were asked for, but {} of {} places are taken",
                                  tickets.size(), load_.unfinished, most_unfinished_));
    load_.unfinished = unfinished;
    submitted_.insert(submitted_.end(), tickets.begin(), tickets.end());
  }
  changed_.notify_one();
  return handles_of(std::move(tickets));
}

std::vector<AnswerHandle> EngineThread::submit_in_turns(
    std::vector<engine::GenerationRequest> requests, const FeedOptions& feed) {
  std::vector<std::shared_ptr<Ticket>> tickets = make_tickets(std::move(requests), feed);
  {
    const std::lock_guard lock(mutex_);
    if (load_.unfinished >= most_unfinished_ || in_turns_.size() >= most_in_turns)
      throw QueueFull(fmt::format("{} of {} places are taken, and {} requests wait for one",
                                  load_.unfinished, most_unfinished_, in_turns_.size()));
    for (const auto& ticket : tickets) {
      ticket->in_turns = true;
      ticket->is_submitted = false;
      in_turns_.push_back(ticket);
    }
    take_turns();
  }
  changed_.notify_one();
  return handles_of(std::move(tickets));
}

std::vector<std::shared_ptr<Ticket>> EngineThread::make_tickets(
    std::vector<engine::GenerationRequest> requests, const FeedOptions& feed) {
  for (const engine::GenerationRequest& request : requests) engine_.check(request);
  std::vector<std::shared_ptr<Ticket>> tickets;
  for (engine::GenerationRequest& request : requests)
    tickets.push_back(std::make_shared<Ticket>(*this, std::move(request), feed));
  return tickets;
}

std::vector<AnswerHandle> EngineThread::handles_of(std::vector<std::shared_ptr<Ticket>> tickets) {
  std::vector<AnswerHandle> handles;
  for (std::shared_ptr<Ticket>& ticket : tickets) handles.emplace_back(*this, std::move(ticket));
  return handles;
}

// Whose turn it is. The mutex is held.
void EngineThread::take_turns() {
  const int64_t most = std::max<int64_t>(most_unfinished_ / 2, 1);
  while (!in_turns_.empty() && turns_taken_ < most && load_.unfinished < most_unfinished_) {
    in_turns_.front()->is_submitted = true;
    submitted_.push_back(std::move(in_turns_.front()));
    in_turns_.pop_front();
    ++turns_taken_;
    ++load_.unfinished;
  }
}

// Whether it still waited for its turn, which it now does no more.
bool EngineThread::leave_turns(const std::shared_ptr<Ticket>& ticket) {
  const std::lock_guard lock(mutex_);
  return std::erase(in_turns_, ticket) > 0;
}

void EngineThread::cancel(const std::shared_ptr<Ticket>& ticket) {
  {
    const std::lock_guard lock(mutex_);
    cancelled_.push_back(ticket);
  }
  changed_.notify_one();
}

void EngineThread::cancel_all() {
  {
    const std::lock_guard lock(mutex_);
    cancel_all_ = true;
  }
  changed_.notify_one();
}

ServerLoad EngineThread::load() const {
  const std::lock_guard lock(mutex_);
  return load_;
}

void EngineThread::ended(Ticket& ticket) {
  if (const auto found = running_.find(ticket.id); found != running_.end()) {
    ended_.push_back(std::move(found->second));
    running_.erase(found);
  }
  const std::lock_guard lock(mutex_);
  if (!ticket.is_submitted) return;
  --load_.unfinished;
  if (ticket.in_turns) --turns_taken_;
  take_turns();
}

void EngineThread::start(const std::shared_ptr<Ticket>& ticket) {
  try {
    ticket->id = engine_.submit(std::move(ticket->request), *ticket);
    running_.emplace(ticket->id, ticket);
  } catch (const std::exception& problem) {
    ticket->end({.reason = engine::FinishReason::error, .error = problem.what()});
  }
}

void EngineThread::end_all() {
  std::deque<std::shared_ptr<Ticket>> waiting;
  {
    const std::lock_guard lock(mutex_);
    waiting.swap(in_turns_);
  }
  for (const auto& ticket : waiting) ticket->end({.reason = engine::FinishReason::cancelled});
  while (!running_.empty()) engine_.cancel(running_.begin()->first);
}

// Waits for work where there is none. False: the thread is to end.
bool EngineThread::take_commands(bool idle) {
  std::vector<std::shared_ptr<Ticket>> submitted;
  std::vector<std::shared_ptr<Ticket>> cancelled;
  bool everything = false;
  bool stopping = false;
  {
    std::unique_lock lock(mutex_);
    if (idle)
      changed_.wait(lock, [this] {
        return stopping_ || cancel_all_ || !submitted_.empty() || !cancelled_.empty();
      });
    submitted.swap(submitted_);
    cancelled.swap(cancelled_);
    stopping = stopping_;
    everything = std::exchange(cancel_all_, false) || stopping;
  }
  for (const auto& ticket : submitted) start(ticket);
  // First those that wait: the end of others would give them a turn.
  for (const auto& ticket : cancelled)
    if (leave_turns(ticket)) ticket->end({.reason = engine::FinishReason::cancelled});
  for (const auto& ticket : cancelled)
    if (!ticket->has_ended) engine_.cancel(ticket->id);
  if (everything) end_all();
  return !stopping;
}

void EngineThread::step() {
  try {
    idle_ = !engine_.step();
  } catch (const std::exception& problem) {
    // No request is to blame and none can go on: memory ran out between steps, say.
    fmt::print(stderr, "qnext: a step failed, {} requests end: {}\n", running_.size(),
               problem.what());
    end_all();
  }
}

void EngineThread::run() {
  while (take_commands(idle_ && !engine_.save_some())) {
    step();
    ended_.clear();
    const engine::EngineLoad engine = engine_.load();
    const std::lock_guard lock(mutex_);
    load_.engine = engine;
  }
  ended_.clear();
}

}  // namespace qnext::server
