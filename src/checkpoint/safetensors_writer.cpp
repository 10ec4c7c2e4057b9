#include "checkpoint/safetensors_writer.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <set>

#include "base/error.h"
#include "base/json.h"

namespace qnext {

namespace {

constexpr size_t data_alignment = 64;
constexpr size_t maximum_header_bytes = 100'000'000;

// Written as text directly: a json::Value of a large header would hold every piece twice.
std::string header_text(const std::vector<TensorDeclaration>& tensors,
                        const std::map<std::string, std::string>& metadata) {
  std::string text = "{";
  if (!metadata.empty()) {
    json::Object object;
    for (const auto& [key, value] : metadata) object.set(key, value);
    text += "\"__metadata__\":" + json::write(object) + ",";
  }
  size_t offset = 0;
  std::set<std::string_view> names;
  for (const TensorDeclaration& tensor : tensors) {
    QNEXT_CHECK(names.insert(tensor.name).second, "tensor {} is declared twice", tensor.name);
    const size_t end = offset + tensor.bytes();
    json::append_string(text, tensor.name);
    text += fmt::format(R"(:{{"dtype":"{}","shape":[{}],"data_offsets":[{},{}]}},)",
                        dtype_name(tensor.dtype), fmt::join(tensor.shape, ","), offset, end);
    offset = end;
  }
  if (text.back() == ',') text.pop_back();
  text += '}';
  text.append((data_alignment - (8 + text.size()) % data_alignment) % data_alignment, ' ');
  return text;
}

}  // namespace

size_t TensorDeclaration::bytes() const {
  QNEXT_CHECK(!is_block_quantized(dtype), "safetensors cannot hold {}", dtype_name(dtype));
  size_t count = 1;
  for (int64_t dimension : shape) {
    QNEXT_CHECK(dimension >= 0);
    count *= static_cast<size_t>(dimension);
  }
  return dtype_bytes(dtype, count);
}

SafetensorsWriter::SafetensorsWriter(std::string path, std::vector<TensorDeclaration> tensors,
                                     const std::map<std::string, std::string>& metadata)
    : path_(std::move(path)),
      temporary_(fmt::format("{}.{}.tmp", path_, ::getpid())),
      tensors_(std::move(tensors)) {
  const std::string header = header_text(tensors_, metadata);
  if (header.size() > maximum_header_bytes)
    fail("cannot write {}: {} tensors need a header of {} bytes; spread them over more files",
         path_, tensors_.size(), header.size());
  file_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (file_ < 0) fail("cannot write {}: {}", path_, std::strerror(errno));
  try {
    std::byte length[8];
    for (size_t i = 0; i < 8; ++i) length[i] = static_cast<std::byte>(header.size() >> (8 * i));
    write_bytes(length, sizeof length);
    write_bytes(header.data(), header.size());
  } catch (...) {
    ::close(file_);
    ::unlink(temporary_.c_str());
    throw;
  }
  skip_complete_tensors();
}

SafetensorsWriter::~SafetensorsWriter() {
  if (file_ < 0) return;
  ::close(file_);
  ::unlink(temporary_.c_str());
}

void SafetensorsWriter::write(const std::string& name, std::span<const std::byte> piece) {
  if (piece.empty()) return;
  QNEXT_CHECK(current_ < tensors_.size(), "{} comes after the last declared tensor", name);
  const TensorDeclaration& tensor = tensors_[current_];
  QNEXT_CHECK(tensor.name == name, "{} is written where {} is due", name, tensor.name);
  QNEXT_CHECK(piece.size() <= tensor.bytes() - written_, "too many bytes for {}", name);
  write_bytes(piece.data(), piece.size());
  written_ += piece.size();
  skip_complete_tensors();
}

void SafetensorsWriter::finish() {
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

void SafetensorsWriter::write_bytes(const void* data, size_t bytes) {
  const char* next = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t done = ::write(file_, next, bytes);
    if (done < 0 && errno == EINTR) continue;
    if (done < 0) fail("cannot write {}: {}", path_, std::strerror(errno));
    next += done;
    bytes -= static_cast<size_t>(done);
  }
}

void SafetensorsWriter::skip_complete_tensors() {
  while (current_ < tensors_.size() && written_ == tensors_[current_].bytes()) {
    ++current_;
    written_ = 0;
  }
}

}  // namespace qnext
