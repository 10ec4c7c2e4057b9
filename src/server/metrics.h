// What the server counts, as Prometheus reads it (text exposition format 0.0.4).
//
// Numbers of our own, a few atomics, in place of prometheus-cpp: they are written on the engine's
// thread between tokens, where no lock may be, and the format is lines of text.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>

#include "engine/request.h"

namespace qnext::server {

struct ServerLoad;

class Counter {
 public:
  void add(int64_t amount) { value_.fetch_add(amount, std::memory_order_relaxed); }
  int64_t value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<int64_t> value_ = 0;
};

// Seconds, by powers of two from a millisecond to about two minutes. One writer at a time.
class Histogram {
 public:
  static constexpr size_t buckets = 18;
  static double bound(size_t bucket);  // the upper one
  void observe(double seconds);
  void append(std::string& out, std::string_view name, std::string_view help) const;

 private:
  std::array<std::atomic<int64_t>, buckets + 1> counts_ = {};  // the last: above all bounds
  std::atomic<double> sum_ = 0;
};

class Metrics {
 public:
  // Written by the engine's thread.
  Counter prompt_tokens;
  Counter cached_tokens;
  Counter generated_tokens;
  Counter drafted_tokens;
  Counter accepted_tokens;
  Histogram first_token_seconds;  // from submission
  Histogram token_seconds;        // between tokens of an answer
  Histogram request_seconds;      // from submission to the end
  Counter& finished(engine::FinishReason reason) { return finished_[static_cast<size_t>(reason)]; }

  // Written by any thread.
  Counter abandoned;  // answers whose client had gone
  // `route` is one of the server's own; `status` what was answered.
  void add_response(std::string_view route, int status);

  std::string text(const ServerLoad& load) const;

 private:
  std::array<Counter, engine::finish_reasons> finished_;
  mutable std::mutex mutex_;
  std::map<std::pair<std::string, int>, int64_t> responses_;
};

}  // namespace qnext::server
