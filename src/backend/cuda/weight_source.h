// Where packed weights come from: a checkpoint, or made up on the spot for timing a model whose
// checkpoint is not at hand.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "model/random_weights.h"
#include "model/weight_schema.h"

namespace qnext::backend::cuda {

class WeightSource {
 public:
  // `checkpoint` must outlive this.
  explicit WeightSource(const Checkpoint& checkpoint) : checkpoint_(&checkpoint) {}
  // Random values of the distributions of model/random_weights.h. Tensors have names and shapes
  // but no data.
  explicit WeightSource(const Config& config);

  bool random() const { return checkpoint_ == nullptr; }
  const StoredTensor* find(const std::string& name) const;  // null where absent
  const StoredTensor& get(const std::string& name) const;
  // A small tensor widened to fp32. Throws Error naming it if a value is not finite.
  std::vector<float> vector(const std::string& name) const;
  // Random values [first, first + count) of a tensor in its type.
  void fill(const StoredTensor& tensor, size_t first, size_t count, void* out) const;
  // Standard deviation of a random matrix.
  float deviation(const std::string& name) const;
  // The bytes of this tensor will not be wanted again.
  void done_with(const StoredTensor& tensor) const;

 private:
  struct RandomTensor {
    StoredTensor tensor;
    Distribution distribution;
  };
  const Checkpoint* checkpoint_ = nullptr;
  std::map<std::string, RandomTensor> made_up_;
};

}  // namespace qnext::backend::cuda
