#include "backend/cuda/weight_source.h"

#include <cmath>

#include "base/error.h"
#include "checkpoint/finite.h"

namespace qnext::backend::cuda {

namespace {

constexpr uint64_t random_seed = 1;

}  // namespace

WeightSource::WeightSource(const Config& config) {
  for (WeightSpec& spec : weight_schema(config)) {
    RandomTensor made_up;
    made_up.distribution = weight_distribution(config, spec);
    made_up.tensor.name = spec.name;
    made_up.tensor.dtype = DType::bf16;
    made_up.tensor.shape = std::move(spec.shape);
    size_t elements = 1;
    for (const int64_t size : made_up.tensor.shape) elements *= static_cast<size_t>(size);
    made_up.tensor.bytes = dtype_bytes(made_up.tensor.dtype, elements);
    made_up_.emplace(spec.name, std::move(made_up));
  }
}

const StoredTensor* WeightSource::find(const std::string& name) const {
  if (checkpoint_) return checkpoint_->find(name);
  const auto found = made_up_.find(name);
  return found == made_up_.end() ? nullptr : &found->second.tensor;
}

const StoredTensor& WeightSource::get(const std::string& name) const {
  if (checkpoint_) return checkpoint_->get(name);
  const StoredTensor* tensor = find(name);
  QNEXT_CHECK(tensor, "{}", name);
  return *tensor;
}

std::vector<float> WeightSource::vector(const std::string& name) const {
  const StoredTensor& tensor = get(name);
  std::vector<float> values(static_cast<size_t>(tensor.elements()));
  if (checkpoint_) {
    check_finite(tensor);
    convert_to_float(tensor.dtype, tensor.data, values.data(), values.size());
  } else {
    fill_random(UniformStream(random_seed, name), made_up_.at(name).distribution, DType::f32, 0,
                values.size(), values.data());
  }
  return values;
}

void WeightSource::fill(const StoredTensor& tensor, size_t first, size_t count, void* out) const {
  fill_random(UniformStream(random_seed, tensor.name), made_up_.at(tensor.name).distribution,
              tensor.dtype, first, count, out);
}

float WeightSource::deviation(const std::string& name) const {
  return made_up_.at(name).distribution.half_width / std::sqrt(3.0f);
}

void WeightSource::done_with(const StoredTensor& tensor) const {
  if (checkpoint_) checkpoint_->dont_need(tensor);
}

}  // namespace qnext::backend::cuda
