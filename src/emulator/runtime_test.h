// What tests of the runtime share: kernels registered as nvcc's code does it.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <vector>

// As nvcc's code calls them.
extern "C" {
void** __cudaRegisterFatBinary(void* wrapper);
void __cudaUnregisterFatBinary(void** handle);
void __cudaRegisterFunction(void** handle, const char* host_function, char*, const char* name, int,
                            uint3*, uint3*, dim3*, dim3*, int*);
unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared_bytes,
                                     CUstream_st* stream);
cudaError_t __cudaPopCallConfiguration(dim3* grid, dim3* block, size_t* shared_bytes, void* stream);
cudaError_t __cudaGetKernel(cudaKernel_t* kernel, const void* host_function);
cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid, dim3 block, void** arguments,
                               size_t shared_bytes, cudaStream_t stream);
}

namespace qnext::emulator {

// As nvcc writes it: a header, machine code (here: none that anybody reads), PTX.
inline std::vector<std::byte> fat_binary_of(std::string_view payload, uint64_t flags,
                                            uint64_t text_bytes) {
  const size_t padded = (payload.size() + 7) / 8 * 8;
  constexpr size_t header_bytes = 64, code_bytes = 24;
  std::vector<std::byte> bytes(16 + header_bytes + code_bytes + header_bytes + padded);
  const auto put = [&](size_t at, uint64_t value, size_t count) {
    std::memcpy(bytes.data() + at, &value, count);
  };
  put(0, 0xba55ed50, 4);
  put(4, 1, 2);
  put(6, 16, 2);
  put(8, bytes.size() - 16, 8);
  put(16, 2, 2);
  put(20, header_bytes, 4);
  put(24, code_bytes, 8);
  const size_t entry = 16 + header_bytes + code_bytes;
  put(entry, 1, 2);
  put(entry + 4, header_bytes, 4);
  put(entry + 8, padded, 8);
  if (flags) put(entry + 16, payload.size(), 4);
  put(entry + 40, flags, 8);
  put(entry + 56, text_bytes, 8);
  std::memcpy(bytes.data() + entry + header_bytes, payload.data(), payload.size());
  return bytes;
}

inline const void* host(void (*function)()) {
  return reinterpret_cast<const void*>(function);
}

}  // namespace qnext::emulator
