#include "base/file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>
#include <utility>

#include "base/error.h"

namespace qnext {

namespace {

struct Descriptor {
  int value = -1;
  ~Descriptor() {
    if (value >= 0) ::close(value);
  }
};

void open_to_read(Descriptor& file, struct stat& status, const std::string& path) {
  file.value = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file.value < 0 || ::fstat(file.value, &status) != 0)
    fail("cannot open {}: {}", path, std::strerror(errno));
  if (S_ISDIR(status.st_mode)) fail("cannot read {}: it is a folder", path);
}

size_t page_size() {
  static const size_t size = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  return size;
}

}  // namespace

std::string read_file(const std::string& path) {
  Descriptor file;
  struct stat status {};
  open_to_read(file, status, path);
  // The size is only a hint: pipes and /proc files report 0.
  std::string text;
  text.reserve(static_cast<size_t>(status.st_size));
  char buffer[1 << 16];
  for (;;) {
    const ssize_t got = ::read(file.value, buffer, sizeof buffer);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) fail("cannot read {}: {}", path, std::strerror(errno));
    if (got == 0) return text;
    text.append(buffer, static_cast<size_t>(got));
  }
}

void write_file(const std::string& path, std::string_view bytes) {
  const std::string temporary = fmt::format("{}.{}.tmp", path, ::getpid());
  std::FILE* file = std::fopen(temporary.c_str(), "wbe");
  if (!file) fail("cannot write {}: {}", path, std::strerror(errno));
  const bool written = std::fwrite(bytes.data(), 1, bytes.size(), file) == bytes.size();
  if (std::fclose(file) != 0 || !written || std::rename(temporary.c_str(), path.c_str()) != 0) {
    const int reason = errno;
    ::unlink(temporary.c_str());
    fail("cannot write {}: {}", path, std::strerror(reason));
  }
}

MemoryMap::MemoryMap(const std::string& path) {
  Descriptor file;
  struct stat status {};
  open_to_read(file, status, path);
  size_ = static_cast<size_t>(status.st_size);
  if (size_ == 0) return;
  void* address = ::mmap(nullptr, size_, PROT_READ, MAP_SHARED, file.value, 0);
  if (address == MAP_FAILED) fail("cannot map {}: {}", path, std::strerror(errno));
  data_ = static_cast<std::byte*>(address);
}

MemoryMap::~MemoryMap() {
  if (data_) ::munmap(data_, size_);
}

MemoryMap::MemoryMap(MemoryMap&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

MemoryMap& MemoryMap::operator=(MemoryMap&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

void MemoryMap::will_need(size_t offset, size_t length) const {
  const size_t begin = offset / page_size() * page_size();
  ::madvise(data_ + begin, length + (offset - begin), MADV_WILLNEED);
}

void MemoryMap::dont_need(size_t offset, size_t length) const {
  // Only whole pages inside the range: the neighbours may still be in use.
  const size_t begin = (offset + page_size() - 1) / page_size() * page_size();
  const size_t end = (offset + length) / page_size() * page_size();
  if (begin < end) ::madvise(data_ + begin, end - begin, MADV_DONTNEED);
}

}  // namespace qnext
