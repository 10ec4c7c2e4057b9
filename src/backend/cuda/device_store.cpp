#include "backend/cuda/device_store.h"

#include <algorithm>
#include <cstring>

#include "base/cuda_error.h"

namespace qnext::backend::cuda {

DeviceStore::DeviceStore() {
  for (Staging& staging : staging_) {
    staging.memory = PinnedBuffer(staging_bytes);
    check_cuda(cudaEventCreateWithFlags(&staging.copied, cudaEventDisableTiming),
               "cudaEventCreate");
  }
}

DeviceStore::~DeviceStore() {
  for (const Staging& staging : staging_)
    if (staging.copied) cudaEventDestroy(staging.copied);
}

std::byte* DeviceStore::reserve(size_t bytes) {
  matrices_ = DeviceBuffer(bytes,
                           "the weights; take --quantize f8 or q4_0, leave --speculate out, or run "
                           "with --device cpu");
  return matrices_.data();
}

void DeviceStore::write(std::byte* to, const void* from, size_t bytes) {
  const auto* source = static_cast<const std::byte*>(from);
  const std::lock_guard lock(mutex_);
  for (size_t done = 0; done < bytes; done += staging_bytes) {
    const size_t piece = std::min(staging_bytes, bytes - done);
    const Staging& staging = staging_[next_++ % staging_.size()];
    check_cuda(cudaEventSynchronize(staging.copied), "loading weights");
    std::memcpy(staging.memory.data(), source + done, piece);
    stream_.copy_to_device(to + done, staging.memory.data(), piece);
    check_cuda(cudaEventRecord(staging.copied, stream_.get()), "loading weights");
  }
}

Vector DeviceStore::keep(Vector values) {
  const std::byte* kept = keep_bytes(values.data(), values.size_bytes());
  return {reinterpret_cast<const float*>(kept), values.size()};
}

std::byte* DeviceStore::keep_bytes(const void* from, size_t bytes) {
  const size_t room = (bytes + 255) / 256 * 256;
  if (small_.empty() || small_.back().size() - small_used_ < room) {
    small_.emplace_back(std::max(room, small_block), "vectors of the weights; use a smaller model");
    small_used_ = 0;
  }
  std::byte* to = small_.back().data() + small_used_;
  small_used_ += room;
  stream_.copy_to_device(to, from, bytes);
  return to;
}

void DeviceStore::finish() {
  stream_.wait();
  for (Staging& staging : staging_) staging.memory = {};
}

}  // namespace qnext::backend::cuda
