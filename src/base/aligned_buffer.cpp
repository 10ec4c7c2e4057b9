#include "base/aligned_buffer.h"

#include <sys/mman.h>

#include <cstdint>
#include <utility>

#include "base/error.h"

namespace qnext {

namespace {
constexpr size_t huge_page = size_t{2} << 20;
// Linux 6.1; older headers do not have it, and older kernels refuse it.
constexpr int collapse_advice = 25;
}  // namespace

AlignedBuffer::AlignedBuffer(size_t bytes, const char* what) : size_(bytes) {
  if (bytes == 0) return;
  // Small buffers keep to small pages: a huge page each would cost more than it brings.
  const bool huge = bytes >= huge_page;
  const size_t reserved = huge ? bytes + huge_page : bytes;
  void* address = reserved < bytes ? MAP_FAILED
                                   : ::mmap(nullptr, reserved, PROT_READ | PROT_WRITE,
                                            MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (address == MAP_FAILED) {
    size_ = 0;
    fail("cannot reserve {} MiB for {}", (bytes >> 20) + 1, what);
  }
  data_ = static_cast<std::byte*>(address);
  if (!huge) return;
  // Give back what lies before the aligned start and after the end.
  const uintptr_t start = reinterpret_cast<uintptr_t>(data_);
  const size_t before = (huge_page - start % huge_page) % huge_page;
  if (before) ::munmap(data_, before);
  data_ += before;
  const size_t kept = (bytes + 4095) / 4096 * 4096;
  const size_t after = reserved - before - kept;
  if (after) ::munmap(data_ + kept, after);
  ::madvise(data_, kept, MADV_HUGEPAGE);
}

void AlignedBuffer::collapse() {
  for (size_t at = 0; at + huge_page <= size_; at += huge_page)
    ::madvise(data_ + at, huge_page, collapse_advice);
}

AlignedBuffer::~AlignedBuffer() {
  if (data_) ::munmap(data_, size_);
}

AlignedBuffer::AlignedBuffer(AlignedBuffer&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

AlignedBuffer& AlignedBuffer::operator=(AlignedBuffer&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

}  // namespace qnext
