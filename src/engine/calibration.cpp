#include "engine/calibration.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "base/error.h"
#include "engine/text_windows.h"

namespace qnext::engine {
namespace {

// Sums squares of columns. Matrices that read the same rows share their sums.
class SquareSums final : public backend::InputObserver {
 public:
  void inputs(std::span<const std::string> weights, int64_t rows, int64_t columns,
              const float* x) override {
    Sums& sums = sums_[weights.front()];
    if (sums.weights.empty()) {
      sums.weights.assign(weights.begin(), weights.end());
      sums.squares.resize(static_cast<size_t>(columns));
    }
    sums.rows += rows;
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t c = 0; c < columns; ++c) {
        const auto value = static_cast<double>(x[r * columns + c]);
        sums.squares[static_cast<size_t>(c)] += value * value;
      }
  }

  Importance importance() const {
    Importance out;
    for (const auto& [first, sums] : sums_) {
      const auto rows = static_cast<double>(sums.rows);
      std::vector<float> means(sums.squares.size());
      std::ranges::transform(sums.squares, means.begin(),
                             [rows](double sum) { return static_cast<float>(sum / rows); });
      if (!std::ranges::all_of(means, [](float mean) { return std::isfinite(mean); }))
        fail("what {} reads of the calibration text is not a number everywhere", first);
      for (const std::string& weight : sums.weights) out.columns[weight] = means;
    }
    return out;
  }

 private:
  struct Sums {
    std::vector<std::string> weights;
    std::vector<double> squares;  // [columns]
    int64_t rows = 0;
  };
  std::map<std::string, Sums> sums_;  // by the first of the weights
};

// Shows a backend's inputs while it lives.
class Watch {
 public:
  Watch(backend::Backend& backend, backend::InputObserver& observer) : backend_(backend) {
    if (!backend.observe_inputs(&observer))
      fail("{} does not show what its matrices read; calibrate on the CPU: --device cpu",
           backend.capabilities().device);
  }
  ~Watch() { backend_.observe_inputs(nullptr); }
  Watch(const Watch&) = delete;
  Watch& operator=(const Watch&) = delete;

 private:
  backend::Backend& backend_;
};

}  // namespace

Importance collect_importance(backend::Backend& backend, std::span<const int32_t> tokens,
                              const CalibrationOptions& options) {
  SquareSums sums;
  const Watch watch(backend, sums);
  const int64_t chunk = options.chunk > 0 ? options.chunk : backend.capabilities().prefill_chunk;
  const StepLimits limits{chunk, chunk};
  const int64_t context = std::min<int64_t>(options.context, std::ssize(tokens));
  WindowReader reader(backend, context, limits, false);
  // A window does not read its last token, which the next one begins with.
  for (TextWindow window : text_windows(std::ssize(tokens), context, context - 1)) {
    window.first_scored = window.end;
    const auto window_tokens = tokens.subspan(static_cast<size_t>(window.first),
                                              static_cast<size_t>(window.end - window.first));
    for (const WindowStep& step : window_steps(window, limits)) {
      reader.read(window_tokens, step, backend.capabilities().has_mtp);
      if (options.progress)
        options.progress(window.first + step.first + step.rows, std::ssize(tokens) - 1);
    }
  }
  return sums.importance();
}

}  // namespace qnext::engine
