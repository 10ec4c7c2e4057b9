// The checkpoints that come with the project, opened for a test, and the backend that it judges:
// the CPU, or in a program built with QNEXT_TEST_CUDA the GPU.
#pragma once

#include <cstdlib>
#include <cstring>
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
#include "checkpoint/checkpoint.h"
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

// Text of tiny-shakespeare's own making, on which it is sure of most tokens.
inline std::vector<int32_t> greedy_text() {
  const SafetensorsFile vectors(tiny_shakespeare + "/vectors.safetensors");
  const StoredTensor& stored = vectors.get("2.greedy");
  std::vector<int32_t> text(static_cast<size_t>(stored.elements()));
  std::memcpy(text.data(), stored.data, stored.bytes);
  return text;
}

// A way to run a model that a test judges.
struct Way {
  std::optional<DType> quantize;  // none: weights as stored
  bool eager = true;              // the GPU's plain kernels; else its tensor cores and graphs
  DType kv = DType::f32;          // the CPU's cache
  std::string name() const {
    std::string text = quantize ? std::string(dtype_name(*quantize)) : "AsStored";
    if (kv != DType::f32) text += "CacheIn" + std::string(dtype_name(kv));
    return on_cuda && !eager ? text + "OnTensorCores" : text;
  }
};
inline std::vector<Way> ways() {
  if (on_cuda)
    return {{std::nullopt}, {std::nullopt, false}, {DType::f8_e4m3, false}, {DType::q4_0, false}};
  return {{std::nullopt}, {DType::q8_0}, {DType::q4_0}, {std::nullopt, true, DType::q8_0}};
}
// Those that hold weights and cache as exactly as they can.
inline std::vector<Way> exact_ways() {
  std::vector<Way> all = ways();
  std::erase_if(all,
                [](const Way& way) { return way.quantize.has_value() || way.kv != DType::f32; });
  return all;
}

// A checkpoint and backends over it; backends must not outlive it.
struct TestModel {
  explicit TestModel(const std::string& folder) : config(load_config(folder)), checkpoint(folder) {
    check_weights(config, checkpoint);
  }
  std::unique_ptr<backend::Backend> backend(int threads, const Way& way = {}) const {
#ifdef QNEXT_TEST_CUDA
    using Path = backend::CudaOptions::Path;
    return backend::make_cuda_backend(checkpoint, config,
                                      {.threads = threads,
                                       .quantize = way.quantize,
                                       .path = way.eager ? Path::eager : Path::graph});
#else
    return backend::make_cpu_backend(
        checkpoint, config, {.threads = threads, .quantize = way.quantize, .kv_dtype = way.kv});
#endif
  }

  Config config;
  Checkpoint checkpoint;
};

}  // namespace qnext::testing
