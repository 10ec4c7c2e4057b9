// Reading GGUF: metadata and a table of tensors, whose data are views into a memory map.
// Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, version 3, little-endian;
// version 2 differs in nothing that is read here.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/file.h"
#include "checkpoint/gguf_metadata.h"
#include "checkpoint/stored_tensor.h"

namespace qnext {

struct GgufHeader {
  GgufMetadata metadata;
  std::vector<StoredTensor> tensors;  // in name order, shapes row-major: the file's turned round
};

// Checks and reads the head of a whole file given as bytes; metadata and the tensors' data point
// into `file`. Supports the types F32 F16 BF16 and the quantised ones of DType. Throws one Error
// for each fault, naming `what` and the key or the tensor: another magic or version, counts and
// lengths beyond the file, unknown types, repeated keys and names, more than 4 dimensions, rows
// that are no whole blocks, sizes that overflow, an alignment that is no power of two, data that
// are not aligned, leave the file or overlap.
GgufHeader parse_gguf_header(std::span<const std::byte> file, std::string_view what);

// One GGUF file, or all parts of a split one (x-00001-of-00003.gguf), which lie side by side.
// Move-only.
class GgufFiles {
 public:
  // `path` is the file, or the first part. Throws Error: a part that is missing or is another one,
  // a tensor in two parts, and every fault of parse_gguf_header.
  explicit GgufFiles(const std::string& path);

  const std::string& path() const { return path_; }
  const GgufMetadata& metadata() const { return metadata_; }             // of the first part
  const std::vector<StoredTensor>& tensors() const { return tensors_; }  // of all, in name order
  const StoredTensor* find(std::string_view name) const;                 // null where absent
  const std::vector<std::shared_ptr<const MemoryMap>>& maps() const { return maps_; }

 private:
  GgufHeader open(const std::string& path);
  void open_part(const std::string& path, int64_t number, int64_t count);

  std::string path_;
  std::vector<std::shared_ptr<const MemoryMap>> maps_;
  GgufMetadata metadata_;
  std::vector<StoredTensor> tensors_;
};

}  // namespace qnext
