#include "checkpoint/tensor_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "base/error.h"

namespace qnext {

size_t TensorDeclaration::bytes() const {
  size_t count = 1;
  for (const int64_t dimension : shape) {
    QNEXT_CHECK(dimension >= 0);
    count *= static_cast<size_t>(dimension);
  }
  return dtype_bytes(dtype, count);
}

TensorFile::TensorFile(std::string path, std::string_view head,
                       std::vector<TensorDeclaration> tensors, size_t alignment)
    : path_(std::move(path)),
      temporary_(fmt::format("{}.{}.tmp", path_, ::getpid())),
      tensors_(std::move(tensors)),
      alignment_(alignment) {
  QNEXT_CHECK(head.size() % alignment_ == 0, "a head of {} bytes", head.size());
  file_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (file_ < 0) fail("cannot write {}: {}", path_, std::strerror(errno));
  try {
    write_bytes(head.data(), head.size());
  } catch (...) {
    ::close(file_);
    ::unlink(temporary_.c_str());
    throw;
  }
  skip_complete_tensors();
}

TensorFile::~TensorFile() {
  if (file_ < 0) return;
  ::close(file_);
  ::unlink(temporary_.c_str());
}

void TensorFile::write(std::string_view name, std::span<const std::byte> piece) {
  if (piece.empty()) return;
  QNEXT_CHECK(current_ < tensors_.size(), "{} comes after the last declared tensor", name);
  const TensorDeclaration& tensor = tensors_[current_];
  QNEXT_CHECK(tensor.name == name, "{} is written where {} is due", name, tensor.name);
  QNEXT_CHECK(piece.size() <= tensor.bytes() - written_, "too many bytes for {}", name);
  write_bytes(piece.data(), piece.size());
  written_ += piece.size();
  if (written_ == tensor.bytes()) {
    const std::string padding((alignment_ - written_ % alignment_) % alignment_, '\0');
    write_bytes(padding.data(), padding.size());
  }
  skip_complete_tensors();
}

void TensorFile::finish() {
  QNEXT_CHECK(file_ >= 0, "finish() is called twice");
  QNEXT_CHECK(current_ == tensors_.size(), "tensor {} is not complete", tensors_[current_].name);
  const bool closed = ::close(file_) == 0;
  file_ = -1;
  if (!closed || std::rename(temporary_.c_str(), path_.c_str()) != 0) {
    const int reason = errno;
    ::unlink(temporary_.c_str());
    fail("cannot write {}: {}", path_, std::strerror(reason));
  }
}

void TensorFile::write_bytes(const void* data, size_t bytes) {
  const char* next = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t done = ::write(file_, next, bytes);
    if (done < 0 && errno == EINTR) continue;
    if (done < 0) fail("cannot write {}: {}", path_, std::strerror(errno));
    next += done;
    bytes -= static_cast<size_t>(done);
  }
}

void TensorFile::skip_complete_tensors() {
  while (current_ < tensors_.size() && written_ == tensors_[current_].bytes()) {
    ++current_;
    written_ = 0;
  }
}

}  // namespace qnext
