// The client side of a load test: many streamed requests at once, each with the times at which its
// parts came. One thread drives all of them.
//
// Arrivals are closed (so many users, each with one request at a time, the next when the last has
// ended) or open (new users come at random moments, Poisson, however busy the server is).
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "app/load_scenario.h"
#include "app/server_address.h"

namespace qnext::app {

struct LoadTarget {
  ServerAddress address;
  std::string api_key;    // empty: none is sent
  bool insecure = false;  // TLS: any certificate will do
  double timeout = 600;   // seconds without a byte, or to connect
};

struct HttpAnswer {
  int status = 0;
  std::string body;
};

// One request, waited for. `path` stands behind the address's base; without a body it is a GET.
// Throws Error where there is no response.
HttpAnswer request_once(const LoadTarget& target, const std::string& path,
                        const std::string& body = {});

enum class RequestEnd { finished, cut, failed };

// Times are seconds since the run began.
struct LoadRecord {
  RequestEnd end = RequestEnd::failed;
  std::string error;  // of one that failed, what is the same for all of its kind: "HTTP 429"
  double begin = 0;
  double first_piece = 0;  // of text; 0: none came
  double last_piece = 0;
  double finish = 0;
  std::vector<float> gaps;    // seconds between pieces of text
  int64_t prompt_tokens = 0;  // as the server counts; 0 where it does not
  int64_t cached_tokens = 0;
  int64_t completion_tokens = 0;  // pieces, where the server does not count
};

struct LoadPlan {
  int64_t concurrency = 16;  // closed: users
  double rate = 0;           // open: conversations a second; 0: closed
  int64_t requests = 0;      // 0: until the time is over
  double duration = 0;       // seconds in which requests begin; 0: until all were sent
  double cut = 0;            // share of requests cut off after half of their tokens
  std::string path;          // behind the address's base
  uint64_t seed = 0;         // of arrivals
};

struct LoadProgress {
  double seconds = 0;
  int64_t under_way = 0;
  int64_t ended = 0;
  int64_t failed = 0;
  int64_t pieces = 0;
};

struct LoadRun {
  std::vector<LoadRecord> records;  // in the order of their ends
  double seconds = 0;
};

// `watch` is called about ten times a second and ends the run by false: what is under way then is
// not recorded. Throws Error where the server's name is not known.
LoadRun run_load(const LoadTarget& target, const LoadPlan& plan, ScenarioSource& source,
                 const std::function<bool(const LoadProgress&)>& watch);

}  // namespace qnext::app
