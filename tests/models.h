// The checkpoints that come with the project, opened for a test.
#pragma once

#include <memory>
#include <string>

#include "backend/cpu/cpu_backend.h"
#include "checkpoint/safetensors.h"
#include "model/config.h"
#include "model/weight_schema.h"

namespace qnext::testing {

inline std::string data_folder(const std::string& name) {
  return std::string(QNEXT_SOURCE_DIR "/tests/data/") + name;
}
inline const std::string tiny_shakespeare = QNEXT_SOURCE_DIR "/models/tiny-shakespeare";

// A checkpoint and backends over it; backends must not outlive it.
struct TestModel {
  explicit TestModel(const std::string& folder) : config(load_config(folder)), checkpoint(folder) {
    check_weights(config, checkpoint);
  }
  std::unique_ptr<backend::Backend> cpu(const backend::CpuOptions& options) const {
    return backend::make_cpu_backend(checkpoint, config, options);
  }

  Config config;
  Checkpoint checkpoint;
};

}  // namespace qnext::testing
