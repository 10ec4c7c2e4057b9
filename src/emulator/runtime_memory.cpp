// Memory, copies and fills of the runtime. Copies look their addresses up, as the driver does.
#include <cstdlib>
#include <cstring>
#include <map>

#include "emulator/alignment.h"
#include "emulator/device_memory.h"
#include "emulator/runtime_overlap.h"
#include "emulator/runtime_state.h"
#include "emulator/runtime_streams.h"

namespace qnext::emulator {
namespace {

std::map<uint64_t, size_t>& page_locked() {
  static auto& ranges = *new std::map<uint64_t, size_t>;
  return ranges;
}

uint64_t address_of(const void* pointer) {
  return reinterpret_cast<uint64_t>(pointer);
}

bool is_known(const void* pointer, size_t bytes) {
  return device_memory().find(address_of(pointer), bytes).has_value();
}

// Memory of the GPU only: what the host must not touch.
bool is_device(const void* pointer) {
  const auto range = device_memory().find(address_of(pointer), 1);
  return range && !page_locked().contains(address_of(range->begin));
}

bool fits_host(const void* pointer, size_t bytes) {
  if (is_device(pointer)) return false;
  // Page-locked memory has a known end.
  return !device_memory().find(address_of(pointer), 1) || is_known(pointer, bytes);
}

cudaError_t check_copy(const void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  bool fits = false;
  switch (kind) {
    case cudaMemcpyHostToHost:
      fits = fits_host(to, bytes) && fits_host(from, bytes);
      break;
    case cudaMemcpyHostToDevice:
      fits = is_known(to, bytes) && fits_host(from, bytes);
      break;
    case cudaMemcpyDeviceToHost:
      fits = fits_host(to, bytes) && is_known(from, bytes);
      break;
    case cudaMemcpyDeviceToDevice:
      fits = is_known(to, bytes) && is_known(from, bytes);
      break;
    case cudaMemcpyDefault:
      fits = (is_known(to, bytes) || fits_host(to, bytes)) &&
             (is_known(from, bytes) || fits_host(from, bytes));
      break;
    default:
      return cudaErrorInvalidMemcpyDirection;
  }
  return fits && to && from ? cudaSuccess : cudaErrorInvalidValue;
}

cudaError_t copy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                 cudaStream_t stream) {
  if (bytes == 0) return cudaSuccess;
  if (const cudaError_t code = check_copy(to, from, bytes, kind); code != cudaSuccess) return code;
  return enqueue(stream, [=] {
    // Again: a graph may live longer than what it copies.
    cudaError_t code = finish_launches();
    if (code == cudaSuccess) code = check_copy(to, from, bytes, kind);
    if (code == cudaSuccess) std::memmove(to, from, bytes);
    return code;
  });
}

cudaError_t fill(void* to, int value, size_t bytes, cudaStream_t stream) {
  if (bytes == 0) return cudaSuccess;
  if (!is_known(to, bytes)) return cudaErrorInvalidValue;
  return enqueue(stream, [=] {
    if (const cudaError_t code = finish_launches(); code != cudaSuccess) return code;
    if (!is_known(to, bytes)) return cudaErrorInvalidValue;
    std::memset(to, value, bytes);
    return cudaSuccess;
  });
}

// Page-locked memory: the host's, which kernels may use as well.
cudaError_t allocate_host(void** pointer, size_t bytes) {
  if (!pointer) return cudaErrorInvalidValue;
  *pointer = nullptr;
  if (const cudaError_t code = refuse_in_capture(); code != cudaSuccess) return code;
  if (bytes == 0) return cudaSuccess;
  constexpr size_t page = 4096;
  void* made = std::aligned_alloc(page, round_up(bytes, page));
  if (!made) return cudaErrorMemoryAllocation;
  page_locked()[address_of(made)] = bytes;
  device_memory().add(static_cast<std::byte*>(made), bytes);
  *pointer = made;
  return cudaSuccess;
}

cudaError_t allocate(void** pointer, size_t bytes) {
  if (!pointer) return cudaErrorInvalidValue;
  *pointer = nullptr;
  if (const cudaError_t code = refuse_in_capture(); code != cudaSuccess) return code;
  if (bytes == 0) return cudaSuccess;
  if (bytes > total_memory - device_memory().used()) return cudaErrorMemoryAllocation;
  *pointer = device_memory().allocate(bytes);
  return *pointer ? cudaSuccess : cudaErrorMemoryAllocation;
}

}  // namespace
}  // namespace qnext::emulator

using namespace qnext::emulator;

extern "C" {

cudaError_t cudaMalloc(void** pointer, size_t bytes) {
  return call([&] { return allocate(pointer, bytes); });
}

cudaError_t cudaMallocHost(void** pointer, size_t bytes) {
  return call([&] { return allocate_host(pointer, bytes); });
}

cudaError_t cudaFree(void* pointer) {
  return release_call([&] {
    if (!pointer) return cudaSuccess;
    if (const cudaError_t code = refuse_in_capture(); code != cudaSuccess) return code;
    if (page_locked().contains(address_of(pointer))) return cudaErrorInvalidValue;
    finish_launches();
    return device_memory().release(pointer) ? cudaSuccess : cudaErrorInvalidValue;
  });
}

cudaError_t cudaFreeHost(void* pointer) {
  return release_call([&] {
    if (!pointer) return cudaSuccess;
    if (const cudaError_t code = refuse_in_capture(); code != cudaSuccess) return code;
    if (page_locked().erase(address_of(pointer)) == 0) return cudaErrorInvalidValue;
    finish_launches();
    device_memory().release(pointer);
    std::free(pointer);
    return cudaSuccess;
  });
}

cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  return call([&] {
    const cudaError_t code = refuse_in_capture();
    return code != cudaSuccess ? code : copy(to, from, bytes, kind, cudaStreamLegacy);
  });
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
  return call([&] { return copy(to, from, bytes, kind, stream); });
}

cudaError_t cudaMemset(void* to, int value, size_t bytes) {
  return call([&] {
    const cudaError_t code = refuse_in_capture();
    return code != cudaSuccess ? code : fill(to, value, bytes, cudaStreamLegacy);
  });
}

cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t stream) {
  return call([&] { return fill(to, value, bytes, stream); });
}

cudaError_t cudaMemGetInfo(size_t* available, size_t* total) {
  return call([&] {
    if (!available || !total) return cudaErrorInvalidValue;
    *total = total_memory;
    *available = total_memory - device_memory().used();
    return cudaSuccess;
  });
}

}  // extern "C"
