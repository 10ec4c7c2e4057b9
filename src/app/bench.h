// Measuring a backend through the engine, as a caller meets it: what qnext bench reports.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "app/options.h"
#include "backend/step.h"

namespace qnext::app {

// `batch` sequences, each with a prompt of `context` tokens, that prefill and then decode together.
struct BenchPoint {
  int32_t batch = 1;
  int64_t context = 512;
  int64_t generate = 64;  // tokens of each sequence, on average; 0: prefill alone

  const char* what() const { return generate == 0 ? "prefill" : "decode"; }
};

struct BenchOptions {
  std::vector<BenchPoint> points;
  AnswerOptions answer;  // speculate, prefill_chunk
  int32_t force_acceptance = -1;
  int repeat = 3;
  bool profile = false;
};

// One repetition.
struct Measurement {
  double bandwidth = 0;    // bytes read a second by a plain loop over memory: median
  double prefill = 0;      // prompt tokens a second, until every sequence has its first token
  double first_token = 0;  // seconds to the first token of all
  // From then on, when all sequences decode:
  double decode = 0;           // tokens a second, of all sequences together
  double bytes_per_token = 0;  // moved by the steps, from shapes
  double tokens_per_step = 0;  // of one sequence
  // Bytes moved a second over the bandwidth measured right before and after: the median over
  // slices of the decoding, as shared machines change from one second to the next.
  double share = 0;
};

// Where the time of `steps` steps went.
struct StageTable {
  std::string what;  // "prefill", "decode"
  int64_t steps = 0;
  std::vector<backend::StageTime> stages;

  double seconds() const;
};

struct BenchLine {
  BenchPoint point;        // as it ran
  bool shortened = false;  // its context, so that the answers fit behind it
  std::vector<Measurement> repeats;
  std::vector<StageTable> profile;  // of one repetition more

  double median(double Measurement::*field) const;
  // Tokens a second that the measured bandwidth allows.
  double roofline() const;
};

struct BenchReport {
  std::vector<BenchLine> lines;
  size_t resident_bytes = 0;  // the most that this process held, the bandwidth's buffer apart
  bool has_profile = false;
};

// Prefill comes first, then slices of decoding and measurements of the bandwidth by turns, so that
// both see the same machine; all after one repetition that is not counted. Prompts are random
// tokens, answers greedy. Reserves what each point needs of the backend. Throws Error where a point
// cannot run.
BenchReport measure(backend::Backend& backend, const BenchOptions& options);

}  // namespace qnext::app
