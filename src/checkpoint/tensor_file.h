// Writing a file of tensors piece by piece in constant memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tensor/dtype.h"

namespace qnext {

struct TensorDeclaration {
  std::string name;
  DType dtype = DType::f32;
  std::vector<int64_t> shape;  // row-major; rows are whole blocks

  size_t bytes() const;
};

// A head, then the bytes of the declared tensors in the order of declaration, each from a multiple
// of `alignment` on, with zeros between them. The file appears under its name when finish() is
// called; until then the data sit in a temporary file beside it, which the destructor removes.
class TensorFile {
 public:
  // Throws Error where the file cannot be created or the disk is full. The head's length is a
  // multiple of the alignment.
  TensorFile(std::string path, std::string_view head, std::vector<TensorDeclaration> tensors,
             size_t alignment);
  ~TensorFile();
  TensorFile(const TensorFile&) = delete;
  TensorFile& operator=(const TensorFile&) = delete;

  // The next bytes of the tensor called `name`, which must be the first incomplete one.
  // Throws Error where the disk is full.
  void write(std::string_view name, std::span<const std::byte> piece);
  // Puts the file in its place. Every tensor must be complete.
  void finish();

 private:
  void write_bytes(const void* data, size_t bytes);
  void skip_complete_tensors();

  std::string path_;
  std::string temporary_;
  std::vector<TensorDeclaration> tensors_;
  size_t alignment_ = 1;
  size_t current_ = 0;  // the first incomplete tensor
  size_t written_ = 0;  // bytes of it
  int file_ = -1;
};

}  // namespace qnext
