// Files: whole small ones, memory maps of large ones.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace qnext {

// The whole file. Throws Error naming the path and the system's reason.
std::string read_file(const std::string& path);
// Replaces the file in one step (a temporary beside it, then rename): a reader sees old or new.
void write_file(const std::string& path, std::string_view bytes);

// A whole file mapped read-only. Move-only; the bytes live as long as the object.
class MemoryMap {
 public:
  MemoryMap() = default;
  explicit MemoryMap(const std::string& path);
  ~MemoryMap();
  MemoryMap(MemoryMap&& other) noexcept;
  MemoryMap& operator=(MemoryMap&& other) noexcept;
  MemoryMap(const MemoryMap&) = delete;
  MemoryMap& operator=(const MemoryMap&) = delete;

  const std::byte* data() const { return data_; }
  size_t size() const { return size_; }

  // Tells the kernel that [offset, offset + length) will be read soon, or that its pages may leave
  // this process (they stay in the page cache; a later read maps them again).
  void will_need(size_t offset, size_t length) const;
  void dont_need(size_t offset, size_t length) const;

 private:
  std::byte* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace qnext
