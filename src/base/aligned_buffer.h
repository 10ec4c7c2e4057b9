// Zeroed memory for weights, caches and workspaces.
#pragma once

#include <cstddef>
#include <span>

namespace qnext {

// A block of zero bytes from the kernel, aligned to 2 MiB and backed by huge pages where the kernel
// grants them (random expert access misses the TLB otherwise). Pages cost memory once touched.
// Move-only.
class AlignedBuffer {
 public:
  AlignedBuffer() = default;
  // Throws Error("cannot reserve N MiB for WHAT") when memory is short.
  AlignedBuffer(size_t bytes, const char* what);
  ~AlignedBuffer();
  AlignedBuffer(AlignedBuffer&& other) noexcept;
  AlignedBuffer& operator=(AlignedBuffer&& other) noexcept;
  AlignedBuffer(const AlignedBuffer&) = delete;
  AlignedBuffer& operator=(const AlignedBuffer&) = delete;

  // Tries once more for huge pages where the kernel had none at the first touch, with memory full
  // of a file's pages, say. All pages should have been touched.
  void collapse();

  std::byte* data() { return data_; }
  const std::byte* data() const { return data_; }
  size_t size() const { return size_; }
  template <typename T>
  std::span<T> as() {
    return {reinterpret_cast<T*>(data_), size_ / sizeof(T)};
  }

 private:
  std::byte* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace qnext
