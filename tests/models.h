// The checkpoints that come with the project, opened for a test, and the backend that it judges:
// the CPU, or in a program built with QNEXT_TEST_CUDA the GPU.
#pragma once

#include <cstdlib>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#ifdef QNEXT_TEST_CUDA
#include "backend/cuda/cuda_backend.h"
#else
#include "backend/cpu/cpu_backend.h"
#endif
#include "base/error.h"
#include "checkpoint/safetensors.h"
#include "model/config.h"
#include "model/weight_schema.h"

namespace qnext::testing {

#ifdef QNEXT_TEST_CUDA
constexpr bool on_cuda = true;
#else
constexpr bool on_cuda = false;
#endif

// Where the program was built, unless the environment says that it was carried elsewhere.
inline std::string source_folder() {
  const char* moved = std::getenv("QNEXT_SOURCE_DIR");
  return moved ? moved : QNEXT_SOURCE_DIR;
}
inline std::string data_folder(const std::string& name) {
  return source_folder() + "/tests/data/" + name;
}
inline const std::string tiny_shakespeare = source_folder() + "/models/tiny-shakespeare";

// In which a backend may hold weights; none: as stored.
inline std::vector<std::optional<DType>> weight_formats() {
  if (on_cuda) return {std::nullopt};
  return {std::nullopt, DType::q8_0, DType::q4_0};
}

// A checkpoint and backends over it; backends must not outlive it.
struct TestModel {
  explicit TestModel(const std::string& folder) : config(load_config(folder)), checkpoint(folder) {
    check_weights(config, checkpoint);
  }
  std::unique_ptr<backend::Backend> backend(int threads, std::optional<DType> quantize = {}) const {
#ifdef QNEXT_TEST_CUDA
    QNEXT_CHECK(!quantize);
    return backend::make_cuda_backend(checkpoint, config, {.threads = threads});
#else
    return backend::make_cpu_backend(checkpoint, config,
                                     {.threads = threads, .quantize = quantize});
#endif
  }

  Config config;
  Checkpoint checkpoint;
};

}  // namespace qnext::testing
