// Writing safetensors piece by piece in constant memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "tensor/dtype.h"

namespace qnext {

struct TensorDeclaration {
  std::string name;
  DType dtype = DType::f32;
  std::vector<int64_t> shape;

  size_t bytes() const;
};

// All tensors are declared first, which fixes the header; then their bytes follow in the order of
// declaration, in pieces of any size. The file appears under its name when finish() is called;
// until then the data sit in a temporary file beside it, which the destructor removes.
// The data begin at a multiple of 64 bytes, so that a map of the file can feed kernels directly.
class SafetensorsWriter {
 public:
  // Throws Error where the file cannot be created or the header would exceed the format's 100 MB.
  SafetensorsWriter(std::string path, std::vector<TensorDeclaration> tensors,
                    const std::map<std::string, std::string>& metadata = {});
  ~SafetensorsWriter();
  SafetensorsWriter(const SafetensorsWriter&) = delete;
  SafetensorsWriter& operator=(const SafetensorsWriter&) = delete;

  // The next bytes of the tensor called `name`, which must be the first incomplete one.
  // Throws Error where the disk is full.
  void write(const std::string& name, std::span<const std::byte> piece);
  // Puts the file in its place. Every tensor must be complete.
  void finish();

 private:
  void write_bytes(const void* data, size_t bytes);
  void skip_complete_tensors();

  std::string path_;
  std::string temporary_;
  std::vector<TensorDeclaration> tensors_;
  size_t current_ = 0;  // the first incomplete tensor
  size_t written_ = 0;  // bytes of it
  int file_ = -1;
};

}  // namespace qnext
