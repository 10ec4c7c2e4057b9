// Reading safetensors: names and shapes from a JSON header, tensors as views into a memory map.
// Format: an 8-byte little-endian header length, the header, then the data of all tensors without
// gaps (https://github.com/huggingface/safetensors#format).
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/file.h"
#include "tensor/dtype.h"

namespace qnext {

// One tensor of a mapped file, row-major. The bytes live as long as the file that was asked for
// them. `data` need not be aligned: the format allows any header length.
struct StoredTensor {
  std::string name;
  DType dtype = DType::f32;
  std::vector<int64_t> shape;
  const std::byte* data = nullptr;
  size_t bytes = 0;
  size_t file = 0;    // Checkpoint::files() index
  size_t offset = 0;  // of the data from the start of that file

  int64_t elements() const;
};

// "[151936, 2048]"
std::string shape_text(std::span<const int64_t> shape);

// A name from a file, fit for a one-line error: control characters escaped, cut after 200 bytes.
std::string printable(std::string_view name);

// Look-up in a list in name order; null where absent.
const StoredTensor* find_by_name(const std::vector<StoredTensor>& tensors, std::string_view name);

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

 private:
  std::string path_;
  MemoryMap map_;
  SafetensorsHeader header_;
};

// The tensors of one model: a folder with model.safetensors, or with model.safetensors.index.json
// and the shards that it names, or one .safetensors file given directly. Move-only.
class Checkpoint {
 public:
  // Throws Error: nothing there, a shard missing or outside the folder, a tensor that the index
  // lists and its shard lacks, and every fault of parse_safetensors_header.
  explicit Checkpoint(const std::string& path);

  const std::string& path() const { return path_; }
  const std::vector<SafetensorsFile>& files() const { return files_; }
  // In name order. With an index, exactly the tensors that the index lists.
  const std::vector<StoredTensor>& tensors() const { return tensors_; }
  const StoredTensor* find(std::string_view name) const;  // null where absent
  const StoredTensor& get(std::string_view name) const;   // throws Error where absent

  // Hints for the kernel about the pages of one tensor (see MemoryMap).
  void will_need(const StoredTensor& tensor) const;
  void dont_need(const StoredTensor& tensor) const;

 private:
  void open_shards(const std::string& folder, const std::string& index_path);

  std::string path_;
  std::vector<SafetensorsFile> files_;
  std::vector<StoredTensor> tensors_;
};

}  // namespace qnext
