// What an observer is to see of a step whose rows ran in several passes: collected, then shown as
// if they had run together.
#pragma once

#include <span>
#include <vector>

#include "backend/cuda/pass_plan.h"
#include "backend/step.h"

namespace qnext::backend::cuda {

class ShownRows {
 public:
  // values [plan.rows, width].
  void add(const PassPlan& plan, Observed what, int layer, int64_t width,
           std::span<const float> values);
  // Shows everything in the order in which it first came, and forgets it.
  void deliver(int64_t rows, Observer& observer);

 private:
  struct Item {
    Observed what;
    int layer;
    int64_t width;
    std::vector<float> values;  // [rows so far, width]
  };
  std::vector<Item> items_;
};

}  // namespace qnext::backend::cuda
