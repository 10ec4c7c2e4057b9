// Writing GGUF: metadata and a table of tensors, then their data piece by piece in constant memory.
// Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, version 3, little-endian.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/gguf_metadata.h"
#include "checkpoint/tensor_file.h"

namespace qnext {

// Values as a file holds them, one after the other.
class GgufBytes {
 public:
  template <typename Type>
  GgufBytes& number(Type value) {
    out_.append(reinterpret_cast<const char*>(&value), sizeof value);
    return *this;
  }
  GgufBytes& text(std::string_view value) {
    number(uint64_t{value.size()});
    return append(value);
  }
  GgufBytes& append(std::string_view bytes) {
    out_.append(bytes);
    return *this;
  }
  const std::string& bytes() const { return out_; }

 private:
  std::string out_;
};

// Metadata to be written, in the order in which they are added. Keys must differ.
class GgufPairs {
 public:
  // The bytes of a value, after the key and the number of its type.
  void add(std::string_view key, GgufType type, std::string_view value);
  void add(std::string_view key, uint32_t value);
  void add(std::string_view key, float value);
  void add(std::string_view key, bool value);
  void add(std::string_view key, std::string_view value);
  void add(std::string_view key, const char* value) { add(key, std::string_view(value)); }
  void add(std::string_view key, const std::vector<std::string>& texts);
  void add(std::string_view key, const std::vector<int32_t>& integers);
  void add(std::string_view key, const std::vector<bool>& booleans);
  // What stands before the items of an array.
  static GgufBytes array_head(GgufType type, size_t count);

  uint64_t count() const { return count_; }
  const std::string& bytes() const { return pairs_.bytes(); }

 private:
  uint64_t count_ = 0;
  GgufBytes pairs_;
};

// The entry of the table: sizes as the file has them, which is shapes turned round. The offset
// counts from the start of all data.
void append_gguf_tensor(GgufBytes& table, std::string_view name, uint32_t type,
                        const std::vector<int64_t>& sizes, uint64_t offset);

// All before the data, padded to the alignment.
std::string gguf_head(const GgufPairs& metadata, const GgufBytes& table, uint64_t tensors);

constexpr size_t gguf_alignment = 32;  // the published default

// The published number of a type. Throws Error where GGUF has none (FP8).
uint32_t gguf_type_number(DType dtype);

// All tensors are declared first; then their bytes follow in the order of declaration, in pieces of
// any size. The file appears under its name when finish() is called (see TensorFile).
class GgufWriter {
 public:
  // Throws Error where the file cannot be created, or where the format cannot hold a tensor: more
  // than 4 dimensions, a name of more than 63 bytes, a type that it does not have.
  GgufWriter(const std::string& path, const GgufPairs& metadata,
             const std::vector<TensorDeclaration>& tensors);

  void write(std::string_view name, std::span<const std::byte> piece) { file_.write(name, piece); }
  void finish() { file_.finish(); }

 private:
  TensorFile file_;
};

}  // namespace qnext
