// What a checkpoint's weights and a run's caches add up to, from shapes alone.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "app/model_files.h"
#include "app/options.h"

namespace qnext::app {

// What a weight is for: "experts", "attention", ...
std::string weight_group(const WeightSpec& spec);

// The weights of one purpose: "experts", "attention", ...
struct WeightGroup {
  std::string name;
  int64_t tensors = 0;
  int64_t parameters = 0;
  double active = 0;                      // parameters that one token uses
  size_t bytes = 0;                       // in the checkpoint, FP8 scales included
  size_t resident_bytes = 0;              // as this machine would hold them
  std::map<std::string, int64_t> dtypes;  // tensors of each dtype
};

struct Inventory {
  std::vector<WeightGroup> groups;  // in the order of the forward pass
  WeightGroup total;                // the MTP head is not in total.active
  // The block types that rows of one matrix mix, to the type that holds them, where --quantize has
  // not chosen one.
  std::map<std::string, std::string> held_as;
};

// "matrices that mix Q4_K and Q6_K are held as Q8_0"; empty where all are held as stored or as
// asked.
std::string held_text(const Inventory& inventory);

// `quantize` as --quantize; absent: as stored.
Inventory take_inventory(const ModelFiles& files, std::optional<DType> quantize);

struct MemoryNeeds {
  int64_t context = 0;
  size_t weights = 0;
  size_t state = 0;
  size_t kv = 0;
  size_t workspace = 0;
  int32_t slots = 0;
  int32_t prefill_chunk = 0;
  size_t total() const { return weights + state + kv + workspace; }
};

// Of one sequence on the CPU. Throws Error where the model's context is shorter.
MemoryNeeds memory_needs(const ModelFiles& files, const Inventory& inventory,
                         const MachineOptions& machine, const AnswerOptions& answer);

}  // namespace qnext::app
