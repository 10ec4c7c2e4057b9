// Memory of the GPU, and page-locked memory that it copies to and from at full speed.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <utility>

namespace qnext::backend::cuda {

// Move-only. Not zeroed.
class DeviceBuffer {
 public:
  DeviceBuffer() = default;
  // Throws Error saying how much `what` needs, how much is free and, after "; ", what `what`
  // advises.
  DeviceBuffer(size_t bytes, const char* what);
  ~DeviceBuffer() { cudaFree(data_); }
  DeviceBuffer(DeviceBuffer&& other) noexcept { swap(other); }
  DeviceBuffer& operator=(DeviceBuffer&& other) noexcept {
    DeviceBuffer old(std::move(*this));
    swap(other);
    return *this;
  }

  std::byte* data() const { return data_; }
  size_t size() const { return size_; }
  template <typename T>
  T* as() const {
    return reinterpret_cast<T*>(data_);
  }

 private:
  void swap(DeviceBuffer& other) {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
  }
  std::byte* data_ = nullptr;
  size_t size_ = 0;
};

// Zeroes device memory and waits for it: streams of ours do not wait for CUDA's own.
void zero_now(void* data, size_t bytes);

// Page-locked host memory. Move-only.
class PinnedBuffer {
 public:
  PinnedBuffer() = default;
  explicit PinnedBuffer(size_t bytes);
  ~PinnedBuffer() { cudaFreeHost(data_); }
  PinnedBuffer(PinnedBuffer&& other) noexcept { swap(other); }
  PinnedBuffer& operator=(PinnedBuffer&& other) noexcept {
    swap(other);
    return *this;
  }

  std::byte* data() const { return data_; }
  size_t size() const { return size_; }
  template <typename T>
  T* as() const {
    return reinterpret_cast<T*>(data_);
  }

 private:
  void swap(PinnedBuffer& other) {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
  }
  std::byte* data_ = nullptr;
  size_t size_ = 0;
};

// A queue of work on the GPU.
class Stream {
 public:
  Stream();
  ~Stream() { cudaStreamDestroy(stream_); }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  cudaStream_t get() const { return stream_; }
  // Waits for all that was queued. Throws Error if any of it failed.
  void wait() const;
  // Host memory that is not page-locked may change once the call returns.
  void copy_to_device(void* to, const void* from, size_t bytes) const;
  // The bytes are there after wait().
  void copy_to_host(void* to, const void* from, size_t bytes) const;

 private:
  cudaStream_t stream_ = nullptr;
};

// A place in a queue to wait for.
class Event {
 public:
  Event();
  ~Event() { cudaEventDestroy(event_); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;

  // Behind all that was queued so far.
  void record(const Stream& stream) const;
  // Until the stream has come to it; returns at once where it was never recorded.
  void wait() const;

 private:
  cudaEvent_t event_ = nullptr;
};

}  // namespace qnext::backend::cuda
