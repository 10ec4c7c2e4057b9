// Cutting one block of memory into the arrays of a workspace.
#pragma once

#include <cstddef>
#include <cstdint>

namespace qnext::backend {

// Hands out pieces of a block, aligned to 256 bytes as GPU kernels like them; with a null block it
// only adds up their sizes.
class Carver {
 public:
  explicit Carver(std::byte* base) : base_(base) {}
  size_t used() const { return used_; }

  template <typename T>
  void take(T*& pointer, int64_t count) {
    take_bytes(pointer, static_cast<size_t>(count) * sizeof(T));
  }
  template <typename T>
  void take_bytes(T*& pointer, size_t bytes) {
    pointer = base_ ? reinterpret_cast<T*>(base_ + used_) : nullptr;
    used_ += (bytes + 255) / 256 * 256;
  }

 private:
  std::byte* base_;
  size_t used_ = 0;
};

}  // namespace qnext::backend
