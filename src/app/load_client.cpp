#include "app/load_client.h"

#include <algorithm>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <chrono>
#include <cmath>
#include <optional>
#include <random>
#include <utility>

#include "app/event_stream.h"
#include "app/load_connection.h"
#include "base/error.h"
#include "base/json.h"

namespace qnext::app {
namespace {

namespace asio = boost::asio;
using Clock = std::chrono::steady_clock;

double seconds_between(Clock::time_point from, Clock::time_point to) {
  return std::chrono::duration<double>(to - from).count();
}

// The text in one event of a stream, and what it says of the whole.
struct Piece {
  bool has_text = false;
  std::string text;  // of the first choice
};

int64_t integer_of(const json::Value* object, const char* name) {
  const json::Value* value = object ? object->find(name) : nullptr;
  return value && value->is_integer() ? value->as_integer() : 0;
}

Piece read_event(const std::string& data, LoadRecord& record) {
  const json::Value event = json::parse(data, "an event");
  if (const json::Value* error = event.find("error"); error && !error->is_null()) {
    const json::Value* code = error->find("code");
    throw Failure{"error event: " + (code && code->is_string() ? code->as_string() : "unnamed")};
  }
  if (const json::Value* usage = event.find("usage"); usage && usage->is_object()) {
    record.prompt_tokens = integer_of(usage, "prompt_tokens");
    record.completion_tokens = integer_of(usage, "completion_tokens");
    record.cached_tokens = integer_of(usage->find("prompt_tokens_details"), "cached_tokens");
  }
  Piece piece;
  const json::Value* choices = event.find("choices");
  if (!choices || !choices->is_array()) return piece;
  for (const json::Value& choice : choices->as_array()) {
    const json::Value* delta = choice.find("delta");
    const json::Value& from = delta ? *delta : choice;
    for (const char* name : {"content", "text", "reasoning_content"}) {
      const json::Value* text = from.find(name);
      if (!text || !text->is_string() || text->as_string().empty()) continue;
      piece.has_text = true;
      if (name != std::string_view("reasoning_content")) piece.text += text->as_string();
    }
    piece.has_text = piece.has_text || from.find("tool_calls");
  }
  return piece;
}

// The run as a whole: who is under way, what has ended.
class Run {
 public:
  Run(const LoadTarget& target, const LoadPlan& plan, ScenarioSource& source)
      : server_(target), plan_(plan), source_(source) {}

  LoadRun drive(const std::function<bool(const LoadProgress&)>& watch) {
    if (plan_.rate > 0) {
      asio::co_spawn(context_, arrivals(), asio::detached);
    } else {
      for (int64_t i = 0; i < plan_.concurrency; ++i)
        asio::co_spawn(context_, stay(), asio::detached);
    }
    bool go_on = true;
    while (go_on && !context_.stopped()) {
      context_.run_for(std::chrono::milliseconds(100));
      progress_.seconds = now();
      go_on = watch(progress_);
    }
    // Coroutines that still wait end with the context, before what they refer to.
    return {.records = std::move(records_), .seconds = now()};
  }

 private:
  double now() const { return seconds_between(start_, Clock::now()); }

  // Whether one more request may begin; it counts from here on.
  bool claim() {
    if (plan_.requests > 0 && begun_ >= plan_.requests) return false;
    if (plan_.duration > 0 && now() >= plan_.duration) return false;
    ++begun_;
    return true;
  }

  // Request i is cut off where the number of those to be cut reaches the next integer.
  bool is_cut() const {
    const auto count = static_cast<double>(begun_);
    return std::floor(count * plan_.cut) > std::floor((count - 1) * plan_.cut);
  }

  asio::awaitable<void> stay() {
    LoadConnection connection(context_, server_);
    while (co_await converse(connection)) {
    }
  }
  asio::awaitable<void> visit() {
    LoadConnection connection(context_, server_);
    co_await converse(connection);
  }

  asio::awaitable<void> arrivals() {
    std::mt19937_64 random(plan_.seed);
    std::exponential_distribution<double> gap(plan_.rate);
    asio::steady_timer timer(context_);
    double next = 0;
    while (may_begin()) {
      asio::co_spawn(context_, visit(), asio::detached);
      next += gap(random);
      timer.expires_at(start_ + std::chrono::duration_cast<Clock::duration>(
                                    std::chrono::duration<double>(next)));
      co_await timer.async_wait(asio::use_awaitable);
    }
  }
  bool may_begin() const {
    return (plan_.requests == 0 || begun_ < plan_.requests) &&
           (plan_.duration == 0 || now() < plan_.duration);
  }

  // One conversation to its end. False: no more may begin.
  asio::awaitable<bool> converse(LoadConnection& connection) {
    const std::unique_ptr<LoadConversation> conversation = source_.begin();
    while (auto request = conversation->next()) {
      if (!claim()) co_return false;
      LoadRecord record;
      std::string text;
      co_await ask(connection, *request, is_cut(), record, text);
      const bool whole = record.end == RequestEnd::finished;
      records_.push_back(std::move(record));
      // What was not answered to its end cannot be gone on from.
      if (!whole) break;
      conversation->answered(text);
    }
    co_return true;
  }

  asio::awaitable<void> ask(LoadConnection& connection, const LoadRequest& request, bool cut,
                            LoadRecord& record, std::string& text) {
    EventStream stream;
    int64_t pieces = 0;
    bool done = false;
    const int64_t most = cut ? std::max(request.generate / 2, int64_t{1}) : 0;
    const auto take = [&](int status, const std::string& bytes) {
      if (status != 200) return true;
      const double time = now();
      for (const std::string& data : stream.push(bytes)) {
        if (data == "[DONE]") {
          done = true;
          continue;
        }
        const Piece piece = read_event(data, record);
        if (!piece.has_text) continue;
        text += piece.text;
        if (pieces++ > 0) record.gaps.push_back(static_cast<float>(time - record.last_piece));
        if (pieces == 1) record.first_piece = time;
        record.last_piece = time;
        ++progress_.pieces;
        if (pieces == most) return false;
      }
      return true;
    };
    ++progress_.under_way;
    record.begin = now();
    try {
      const int status = co_await connection.exchange(plan_.path, request.body, take);
      if (status != 200) throw Failure{fmt::format("HTTP {}", status)};
      if (!done && !(cut && pieces == most)) throw Failure{"the stream had no end"};
      record.end = done ? RequestEnd::finished : RequestEnd::cut;
    } catch (const Failure& failure) {
      record.error = failure.what;
    } catch (const Error&) {
      record.error = "the stream is no JSON";
    }
    record.finish = now();
    if (record.completion_tokens == 0) record.completion_tokens = pieces;
    --progress_.under_way;
    ++progress_.ended;
    if (!record.error.empty()) {
      ++progress_.failed;
      // Users whom a server refuses would ask again at once, thousands of times a second.
      asio::steady_timer pause(context_, std::chrono::milliseconds(100));
      co_await pause.async_wait(asio::use_awaitable);
    }
  }

  LoadServer server_;
  const LoadPlan& plan_;
  ScenarioSource& source_;
  const Clock::time_point start_ = Clock::now();
  LoadProgress progress_;
  std::vector<LoadRecord> records_;
  int64_t begun_ = 0;
  asio::io_context context_{1};
};

}  // namespace

HttpAnswer request_once(const LoadTarget& target, const std::string& path,
                        const std::string& body) {
  asio::io_context context(1);
  LoadServer server(target);
  HttpAnswer answer;
  std::optional<std::string> problem;
  const auto ask = [&]() -> asio::awaitable<void> {
    LoadConnection connection(context, server);
    const auto take = [&](int, const std::string& bytes) {
      answer.body += bytes;
      return true;
    };
    try {
      answer.status = co_await connection.exchange(path, body, take);
    } catch (const Failure& failure) {
      problem = failure.what;
    }
  };
  asio::co_spawn(context, ask(), asio::detached);
  context.run();
  if (problem) fail("no answer from {}: {}", target.address.authority(), *problem);
  return answer;
}

LoadRun run_load(const LoadTarget& target, const LoadPlan& plan, ScenarioSource& source,
                 const std::function<bool(const LoadProgress&)>& watch) {
  return Run(target, plan, source).drive(watch);
}

}  // namespace qnext::app
