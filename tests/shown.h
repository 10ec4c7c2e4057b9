// What a backend shows of one sequence, for tests that compare whole runs.
#pragma once

#include <algorithm>
#include <map>
#include <numeric>
#include <span>
#include <utility>
#include <vector>

#include "backend/step.h"

namespace qnext::testing {

// Everything shown of one sequence, by what and layer.
class Shown : public backend::Observer {
 public:
  void observe(backend::Observed what, int layer, int64_t rows, int64_t width,
               const float* data) override {
    if (layer < 0) return;  // of the MTP head's layer
    std::vector<float>& values = all[{what, layer}];
    values.insert(values.end(), data, data + rows * width);
  }
  std::map<std::pair<backend::Observed, int>, std::vector<float>> all;
};

// One sequence through the backend, `chunk` rows at a time.
inline Shown run(backend::Backend& backend, std::span<const int32_t> tokens, size_t chunk) {
  const int64_t page_tokens = backend.capabilities().page_tokens;
  std::vector<int32_t> pages((tokens.size() + static_cast<size_t>(page_tokens)) /
                             static_cast<size_t>(page_tokens));
  std::iota(pages.begin(), pages.end(), 0);
  backend.reserve({static_cast<int32_t>(pages.size()), 1, static_cast<int32_t>(chunk)});
  Shown shown;
  backend.observe(&shown);
  for (size_t first = 0; first < tokens.size(); first += chunk) {
    const size_t rows = std::min(chunk, tokens.size() - first);
    std::vector<int32_t> state_out(rows - 1, backend::no_slot);
    state_out.push_back(0);
    backend::SequenceStep step;
    step.tokens = tokens.subspan(first, rows);
    step.first_position = static_cast<int64_t>(first);
    step.pages = pages;
    step.state_in = first == 0 ? backend::no_slot : 0;
    step.state_out = state_out;
    step.mtp = backend.capabilities().has_mtp;
    step.next_token = first + rows < tokens.size() ? tokens[first + rows] : 0;
    backend.step({{step}});
  }
  backend.observe(nullptr);
  return shown;
}

}  // namespace qnext::testing
