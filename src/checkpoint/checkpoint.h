// The tensors of one model under the names of Hugging Face, whatever files hold them.
#pragma once

#include <deque>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/file.h"
#include "checkpoint/stored_tensor.h"

namespace qnext {

// Move-only. Tensors point into memory maps, which it keeps, and into values that it was given.
class Checkpoint {
 public:
  using Maps = std::vector<std::shared_ptr<const MemoryMap>>;

  // Safetensors: a folder with model.safetensors, or with model.safetensors.index.json and the
  // shards that it names, or one .safetensors file given directly. With an index, exactly the
  // tensors that the index lists.
  // Throws Error: nothing there, a shard missing or outside the folder, a tensor that the index
  // lists and its shard lacks, and every fault of parse_safetensors_header.
  explicit Checkpoint(const std::string& path);

  // Tensors that somebody else has named (model/gguf_weights.h), in any order, over these maps and
  // over `values`, whose tensors have no_file.
  Checkpoint(std::string path, Maps maps, std::vector<StoredTensor> tensors,
             std::deque<std::vector<float>> values);

  Checkpoint(Checkpoint&&) noexcept = default;
  Checkpoint& operator=(Checkpoint&&) noexcept = default;

  const std::string& path() const { return path_; }
  const Maps& maps() const { return maps_; }
  const std::vector<StoredTensor>& tensors() const { return tensors_; }  // in name order
  const StoredTensor* find(std::string_view name) const;                 // null where absent
  const StoredTensor& get(std::string_view name) const;  // throws Error where absent

  // Hints for the kernel about the pages of one tensor (see MemoryMap).
  void will_need(const StoredTensor& tensor) const;
  void dont_need(const StoredTensor& tensor) const;

 private:
  void open_shards(const std::string& folder, const std::string& index_path);

  std::string path_;
  Maps maps_;
  std::vector<StoredTensor> tensors_;
  std::deque<std::vector<float>> values_;  // a deque keeps them in place
};

}  // namespace qnext
