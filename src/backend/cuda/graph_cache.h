// Captured graphs of passes, one for each shape: a pass of 300 kernels is then one launch.
#pragma once

#include <cuda_runtime_api.h>

#include <array>
#include <cstdint>
#include <map>

#include "backend/cuda/device_memory.h"

namespace qnext::backend::cuda {

class GraphCache {
 public:
  // All that a pass's launches depend on besides the memory that they read.
  using Key = std::array<int64_t, 7>;

  GraphCache() = default;
  ~GraphCache() { clear(); }
  GraphCache(const GraphCache&) = delete;
  GraphCache& operator=(const GraphCache&) = delete;

  // Runs what `work` queues on the stream: at the first time of a key captured, later replayed.
  template <typename Work>
  void run(const Stream& stream, const Key& key, Work&& work) {
    auto found = graphs_.find(key);
    if (found == graphs_.end()) {
      begin(stream);
      try {
        work();
      } catch (...) {
        abandon(stream);
        throw;
      }
      found = graphs_.emplace(key, end(stream)).first;
    }
    launch(stream, found->second);
  }
  void clear();

 private:
  static void begin(const Stream& stream);
  static void abandon(const Stream& stream);
  cudaGraphExec_t end(const Stream& stream);
  static void launch(const Stream& stream, cudaGraphExec_t graph);

  // A server's batches come in every size up to its limit; beyond so many shapes all are made anew.
  static constexpr size_t most_graphs = 512;
  std::map<Key, cudaGraphExec_t> graphs_;
};

}  // namespace qnext::backend::cuda
