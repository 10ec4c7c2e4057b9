// What a load test found, as a table and as JSON.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "app/load_client.h"

namespace qnext::app {

// Of a set of values. The percentile p is the smallest value that at least p percent of them do not
// exceed (nearest rank); all are 0 where there are no values.
struct Distribution {
  size_t count = 0;
  double mean = 0;
  double p50 = 0;
  double p90 = 0;
  double p99 = 0;
  double most = 0;
};

Distribution distribution(std::vector<double> values);

struct LoadSummary {
  int64_t finished = 0;
  int64_t cut = 0;
  int64_t failed = 0;
  std::map<std::string, int64_t> errors;  // by kind
  double seconds = 0;

  // Of those that finished, but for the tokens: these are all that came.
  Distribution first_token;  // seconds from the request to its first text
  Distribution token;        // seconds a token after the first
  Distribution gap;          // seconds between pieces of text
  Distribution whole;        // seconds from the request to its end
  int64_t prompt_tokens = 0;
  int64_t cached_tokens = 0;
  int64_t completion_tokens = 0;

  double requests_per_second() const;  // that finished
  double tokens_per_second() const;    // of answers
  double cached_share() const;         // of the prompts' tokens
};

LoadSummary summarize(const LoadRun& run);

std::string load_text(const LoadSummary& summary);
std::string load_json(const LoadSummary& summary);

}  // namespace qnext::app
