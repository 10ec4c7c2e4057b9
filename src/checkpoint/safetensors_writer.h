// Writing safetensors piece by piece in constant memory.
#pragma once

#include <cstddef>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "checkpoint/tensor_file.h"

namespace qnext {

// All tensors are declared first, which fixes the header; then their bytes follow in the order of
// declaration, in pieces of any size. The file appears under its name when finish() is called
// (see TensorFile).
// The data begin at a multiple of 64 bytes, so that a map of the file can feed kernels directly.
class SafetensorsWriter {
 public:
  // Throws Error where the file cannot be created or the header would exceed the format's 100 MB.
  SafetensorsWriter(const std::string& path, const std::vector<TensorDeclaration>& tensors,
                    const std::map<std::string, std::string>& metadata = {});

  // The next bytes of the tensor called `name`, which must be the first incomplete one.
  // Throws Error where the disk is full.
  void write(const std::string& name, std::span<const std::byte> piece) {
    file_.write(name, piece);
  }
  // Puts the file in its place. Every tensor must be complete.
  void finish() { file_.finish(); }

 private:
  TensorFile file_;
};

}  // namespace qnext
