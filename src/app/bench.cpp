#include "app/bench.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <deque>
#include <fstream>
#include <utility>

#include "base/error.h"
#include "engine/engine.h"

namespace qnext::app {
namespace {

using Clock = std::chrono::steady_clock;

// A longer prompt warms nothing up that this one does not.
constexpr int64_t longest_warm_up = 8192;
// The bandwidth is measured before, between and after so many slices of the decoding.
constexpr int64_t most_slices = 8;

double median_of(std::vector<double> values) {
  std::ranges::sort(values);
  const size_t middle = values.size() / 2;
  return values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// Tokens spread over the vocabulary; the same in every run (a linear congruential generator).
std::vector<int32_t> random_prompt(uint64_t seed, int64_t count, int64_t vocabulary) {
  std::vector<int32_t> tokens;
  uint64_t state = seed;
  for (int64_t i = 0; i < count; ++i) {
    state = state * 6364136223846793005ULL + 1442695040888963407ULL;
    tokens.push_back(static_cast<int32_t>((state >> 33) % static_cast<uint64_t>(vocabulary)));
  }
  return tokens;
}

// Tokens that an answer at this point may have before the measurement ends: those drawn while the
// other prompts still run, and those that are counted. All but one token of a chunk of prompt may
// be lost to the places where prompts are cut.
int64_t answer_room(const BenchPoint& point, const engine::EngineOptions& options) {
  const int64_t lost = options.prefill_chunk < backend::prompt_cut ? 0 : backend::prompt_cut - 1;
  const int64_t prefill_steps =
      point.batch == 1 ? 0 : point.batch * point.context / (options.prefill_chunk - lost) + 1;
  return (prefill_steps + point.generate + 2) * (options.max_speculation + 1);
}

class Watch : public engine::Listener {
 public:
  void on_token(engine::RequestId, const ops::SampledToken&) override {
    if (tokens == 0) first = Clock::now();
    ++tokens;
  }
  void on_finish(engine::RequestId, const engine::Finish& end) override {
    if (!end.error.empty()) error = end.error;
    ended = true;
  }

  engine::RequestId id = 0;
  int64_t tokens = 0;
  Clock::time_point first;
  bool ended = false;
  std::string error;
};

// All sequences of one point, from their submission to their end.
class Answers {
 public:
  Answers(engine::Engine& engine, const Config& config, const BenchPoint& point,
          const BenchOptions& options)
      : engine_(engine), watches_(static_cast<size_t>(point.batch)) {
    std::vector<engine::GenerationRequest> requests;
    for (int32_t i = 0; i < point.batch; ++i) {
      auto& request = requests.emplace_back(options.answer.request(
          random_prompt(static_cast<uint64_t>(i) + 1, point.context, config.vocabulary_size), {}));
      request.max_tokens = std::nullopt;
      request.ignore_eos = true;
      request.force_accepted = options.force_acceptance;
    }
    start_ = Clock::now();
    for (size_t i = 0; i < requests.size(); ++i)
      watches_[i].id = engine_.submit(std::move(requests[i]), watches_[i]);
  }
  ~Answers() {
    for (const Watch& watch : watches_) engine_.cancel(watch.id);
  }
  Answers(const Answers&) = delete;
  Answers& operator=(const Answers&) = delete;

  // Until all sequences have a token. Returns the seconds since their submission.
  double prefill() {
    while (std::ranges::any_of(watches_, [](const Watch& one) { return one.tokens == 0; })) step();
    return seconds_since(start_);
  }
  double first_token() const {
    const auto first = std::ranges::min(watches_, {}, &Watch::first).first;
    return std::chrono::duration<double>(first - start_).count();
  }

  struct Decoded {
    double seconds = 0;
    int64_t tokens = 0;
    int64_t steps = 0;
  };
  // Until all together have drawn so many tokens more.
  Decoded decode(int64_t tokens) {
    const int64_t before = drawn();
    const auto start = Clock::now();
    Decoded decoded;
    while (decoded.tokens < tokens) {
      step();
      ++decoded.steps;
      decoded.tokens = drawn() - before;
    }
    decoded.seconds = seconds_since(start);
    return decoded;
  }

  int64_t steps() const { return steps_; }

 private:
  int64_t drawn() const {
    int64_t sum = 0;
    for (const Watch& watch : watches_) sum += watch.tokens;
    return sum;
  }

  void step() {
    engine_.step();
    ++steps_;
    for (const Watch& watch : watches_) {
      if (!watch.error.empty()) fail("{}", watch.error);
      QNEXT_CHECK(!watch.ended, "an answer ended while it was measured");
    }
  }

  engine::Engine& engine_;
  std::deque<Watch> watches_;
  Clock::time_point start_;
  int64_t steps_ = 0;
};

// What this process holds now.
size_t resident_now() {
  size_t total = 0, resident = 0;
  std::ifstream("/proc/self/statm") >> total >> resident;
  return resident * static_cast<size_t>(sysconf(_SC_PAGESIZE));
}

size_t resident_peak() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<size_t>(usage.ru_maxrss) * 1024;
}

class Bench {
 public:
  Bench(backend::Backend& backend, const BenchOptions& options)
      : backend_(backend), options_(options) {}

  BenchReport run() {
    for (const BenchPoint& point : options_.points) report_.lines.push_back(measure_point(point));
    return std::move(report_);
  }

 private:
  engine::EngineOptions engine_options(BenchPoint& point) const {
    engine::EngineOptions wanted = options_.answer.engine_options({});
    wanted.max_sequences = point.batch;
    wanted.adapt_speculation &= options_.force_acceptance < 0;
    const engine::EnginePlan plan =
        engine::plan_engine(backend_.config(), backend_.capabilities(), wanted);
    const int64_t room = answer_room(point, plan.options);
    const int64_t limit = plan.options.max_context;
    if (room >= limit)
      fail(
          "{} sequences of {} tokens need room for {} tokens of answer, but the model's context is "
          "{}: choose a smaller --batch or a larger --prefill-chunk",
          point.batch, point.context, room, limit);
    point.context = std::min(point.context, limit - room);
    wanted.max_context = point.context + room;
    return wanted;
  }

  BenchLine measure_point(BenchPoint point) {
    const int64_t context = point.context;
    const engine::EngineOptions wanted = engine_options(point);
    engine::Engine engine(backend_, nullptr, wanted);
    BenchPoint warm_up = point;
    warm_up.context = std::min(point.context, longest_warm_up);
    run(engine, warm_up);
    // The bandwidth's buffer counts in every later peak.
    const size_t resident = report_.lines.empty() ? resident_peak() : resident_now();
    report_.resident_bytes = std::max(report_.resident_bytes, resident);

    BenchLine line{
        .point = point, .shortened = point.context < context, .repeats = {}, .profile = {}};
    for (int i = 0; i < options_.repeat; ++i) line.repeats.push_back(measure_once(engine, point));
    if (options_.profile) line.profile = profile(engine, point);
    return line;
  }

  void run(engine::Engine& engine, const BenchPoint& point) const {
    Answers answers(engine, backend_.config(), point, options_);
    answers.prefill();
    answers.decode(point.generate * point.batch);
  }

  Measurement measure_once(engine::Engine& engine, const BenchPoint& point) const {
    Measurement out;
    Answers answers(engine, backend_.config(), point, options_);
    out.prefill = static_cast<double>(point.batch * point.context) / answers.prefill();
    out.first_token = answers.first_token();
    if (point.generate == 0)
      out.bandwidth = backend_.measure_read_bandwidth();
    else
      decode_in_slices(answers, point, out);
    return out;
  }

  void decode_in_slices(Answers& answers, const BenchPoint& point, Measurement& out) const {
    const int64_t slices = std::min(most_slices, point.generate);
    Answers::Decoded all;
    size_t bytes = 0;
    std::vector<double> bandwidths = {backend_.measure_read_bandwidth()};
    std::vector<double> shares;
    for (int64_t slice = 1; slice <= slices; ++slice) {
      const int64_t goal = point.generate * point.batch * slice / slices;
      if (goal <= all.tokens) continue;  // accepted drafts went beyond it
      const size_t moved_before = backend_.traffic().total();
      const Answers::Decoded decoded = answers.decode(goal - all.tokens);
      const size_t moved = backend_.traffic().total() - moved_before;
      bandwidths.push_back(backend_.measure_read_bandwidth());
      const double around = (bandwidths[bandwidths.size() - 2] + bandwidths.back()) / 2;
      shares.push_back(static_cast<double>(moved) / decoded.seconds / around);
      bytes += moved;
      all.seconds += decoded.seconds;
      all.tokens += decoded.tokens;
      all.steps += decoded.steps;
    }
    const auto tokens = static_cast<double>(all.tokens);
    out.bandwidth = median_of(std::move(bandwidths));
    out.decode = tokens / all.seconds;
    out.bytes_per_token = static_cast<double>(bytes) / tokens;
    out.tokens_per_step = tokens / static_cast<double>(all.steps * point.batch);
    out.share = median_of(std::move(shares));
  }

  std::vector<StageTable> profile(engine::Engine& engine, const BenchPoint& point) {
    report_.has_profile = backend_.start_profile();
    if (!report_.has_profile) return {};
    Answers answers(engine, backend_.config(), point, options_);
    answers.prefill();
    std::vector<StageTable> tables;
    tables.push_back(
        {.what = "prefill", .steps = answers.steps(), .stages = backend_.take_profile()});
    if (point.generate == 0) return tables;
    backend_.start_profile();
    const int64_t steps = answers.decode(point.generate * point.batch).steps;
    tables.push_back({.what = "decode", .steps = steps, .stages = backend_.take_profile()});
    return tables;
  }

  backend::Backend& backend_;
  const BenchOptions& options_;
  BenchReport report_;
};

}  // namespace

double StageTable::seconds() const {
  double sum = 0;
  for (const backend::StageTime& stage : stages) sum += stage.seconds;
  return sum;
}

double BenchLine::median(double Measurement::*field) const {
  std::vector<double> values;
  for (const Measurement& one : repeats) values.push_back(one.*field);
  return median_of(std::move(values));
}

double BenchLine::roofline() const {
  return median(&Measurement::bandwidth) / median(&Measurement::bytes_per_token);
}

BenchReport measure(backend::Backend& backend, const BenchOptions& options) {
  return Bench(backend, options).run();
}

}  // namespace qnext::app
