#include "server/metrics.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/json.h"
#include "server/engine_thread.h"

namespace qnext::server {
namespace {

void append_head(std::string& out, std::string_view name, std::string_view help,
                 std::string_view kind) {
  out += fmt::format("# HELP {} {}\n# TYPE {} {}\n", name, help, name, kind);
}

void append_number(std::string& out, std::string_view name, std::string_view help,
                   std::string_view kind, int64_t value) {
  append_head(out, name, help, kind);
  out += fmt::format("{} {}\n", name, value);
}

}  // namespace

double Histogram::bound(size_t bucket) {
  return 0.001 * static_cast<double>(uint64_t{1} << bucket);
}

void Histogram::observe(double seconds) {
  size_t bucket = 0;
  while (bucket < buckets && seconds > bound(bucket)) ++bucket;
  counts_[bucket].fetch_add(1, std::memory_order_relaxed);
  sum_.store(sum_.load(std::memory_order_relaxed) + seconds, std::memory_order_relaxed);
}

void Histogram::append(std::string& out, std::string_view name, std::string_view help) const {
  append_head(out, name, help, "histogram");
  int64_t count = 0;
  for (size_t bucket = 0; bucket < buckets; ++bucket) {
    count += counts_[bucket].load(std::memory_order_relaxed);
    out +=
        fmt::format("{}_bucket{{le=\"{}\"}} {}\n", name, json::format_double(bound(bucket)), count);
  }
  count += counts_[buckets].load(std::memory_order_relaxed);
  out += fmt::format("{}_bucket{{le=\"+Inf\"}} {}\n", name, count);
  out +=
      fmt::format("{}_sum {}\n", name, json::format_double(sum_.load(std::memory_order_relaxed)));
  out += fmt::format("{}_count {}\n", name, count);
}

void Metrics::add_response(std::string_view route, int status) {
  const std::lock_guard lock(mutex_);
  ++responses_[{std::string(route), status}];
}

std::string Metrics::text(const ServerLoad& load) const {
  std::string out;
  append_head(out, "qnext_http_responses_total", "Responses by route and status.", "counter");
  {
    const std::lock_guard lock(mutex_);
    for (const auto& [key, count] : responses_)
      out += fmt::format("qnext_http_responses_total{{route=\"{}\",status=\"{}\"}} {}\n", key.first,
                         key.second, count);
  }
  append_head(out, "qnext_answers_total", "Answers by what ended them.", "counter");
  for (size_t i = 0; i < finished_.size(); ++i)
    out += fmt::format("qnext_answers_total{{reason=\"{}\"}} {}\n",
                       engine::finish_reason_name(static_cast<engine::FinishReason>(i)),
                       finished_[i].value());
  const auto counter = [&](std::string_view name, std::string_view help, const Counter& value) {
    append_number(out, name, help, "counter", value.value());
  };
  counter("qnext_abandoned_total", "Requests whose client went away.", abandoned);
  counter("qnext_prompt_tokens_total", "Tokens of prompts, when their answers ended.",
          prompt_tokens);
  counter("qnext_cached_tokens_total", "Those that an earlier request had computed.",
          cached_tokens);
  counter("qnext_generated_tokens_total", "Tokens of answers.", generated_tokens);
  counter("qnext_drafted_tokens_total", "Drafts that were verified.", drafted_tokens);
  counter("qnext_accepted_tokens_total", "Drafts that became part of an answer.", accepted_tokens);
  const auto gauge = [&](std::string_view name, std::string_view help, int64_t value) {
    append_number(out, name, help, "gauge", value);
  };
  gauge("qnext_running", "Answers in the batch.", load.engine.running);
  gauge("qnext_waiting", "Accepted requests that wait for a place.",
        std::max(load.unfinished - load.engine.running - load.engine.paused, int64_t{0}));
  gauge("qnext_paused", "Answers that made way for older ones and will go on.", load.engine.paused);
  gauge("qnext_swapped_bytes", "Host memory that those hold.",
        static_cast<int64_t>(load.engine.swapped_bytes));
  gauge("qnext_free_pages", "KV pages that nobody holds.", load.engine.free_pages);
  gauge("qnext_free_slots", "State slots that nobody holds.", load.engine.free_slots);
  gauge("qnext_cached_pages", "KV pages that the cache of prefixes holds.",
        load.engine.cached_pages);
  gauge("qnext_cached_bytes", "Bytes that the cache of prefixes holds.",
        static_cast<int64_t>(load.engine.cached_bytes));
  first_token_seconds.append(out, "qnext_first_token_seconds",
                             "Seconds from submission to the first token.");
  token_seconds.append(out, "qnext_token_seconds", "Seconds between tokens of an answer.");
  request_seconds.append(out, "qnext_request_seconds", "Seconds from submission to the end.");
  return out;
}

}  // namespace qnext::server
