// Reading safetensors: names and shapes from a JSON header, tensors as views into a memory map.
// Format: an 8-byte little-endian header length, the header, then the data of all tensors without
// gaps (https://github.com/huggingface/safetensors#format).
#pragma once

#include <cstddef>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/file.h"
#include "checkpoint/stored_tensor.h"

namespace qnext {

struct SafetensorsHeader {
  std::vector<StoredTensor> tensors;  // in name order
  std::map<std::string, std::string> metadata;
};

// Checks and reads the header of a whole file given as bytes; the tensors' data point into `file`.
// Supports F32 F16 BF16 F8_E4M3 I32 I64 U8 BOOL. Throws one Error for each fault, naming `what` and
// the tensor: a length beyond the file or above 100 MB, bad JSON, missing or mistyped fields,
// repeated names, unsupported dtypes, dimensions that are negative or multiply beyond the file,
// offsets that leave the file, overlap, leave holes or disagree with dtype and shape.
SafetensorsHeader parse_safetensors_header(std::span<const std::byte> file, std::string_view what);

// One memory-mapped file. Move-only. Truncating the file while it is mapped ends the process
// (SIGBUS), as with any map.
class SafetensorsFile {
 public:
  explicit SafetensorsFile(const std::string& path);

  const std::string& path() const { return path_; }
  const std::vector<StoredTensor>& tensors() const { return header_.tensors; }
  const std::map<std::string, std::string>& metadata() const { return header_.metadata; }
  const StoredTensor* find(std::string_view name) const;  // null where absent
  const StoredTensor& get(std::string_view name) const;   // throws Error where absent
  const MemoryMap& map() const { return map_; }
  MemoryMap take_map() && { return std::move(map_); }  // the tensors go on pointing into it

 private:
  std::string path_;
  MemoryMap map_;
  SafetensorsHeader header_;
};

}  // namespace qnext
