// The one device: what an H200 says of itself, as far as anybody asks.
#include "emulator/runtime_device.h"

#include <array>
#include <cstdio>
#include <utility>

#include "emulator/runtime_state.h"

namespace qnext::emulator {
namespace {

using Attribute = std::pair<cudaDeviceAttr, int>;

constexpr std::array attributes = {
    Attribute{cudaDevAttrMaxThreadsPerBlock, device::threads_of_block},
    Attribute{cudaDevAttrMaxBlockDimX, device::block[0]},
    Attribute{cudaDevAttrMaxBlockDimY, device::block[1]},
    Attribute{cudaDevAttrMaxBlockDimZ, device::block[2]},
    Attribute{cudaDevAttrMaxGridDimX, device::grid[0]},
    Attribute{cudaDevAttrMaxGridDimY, device::grid[1]},
    Attribute{cudaDevAttrMaxGridDimZ, device::grid[2]},
    Attribute{cudaDevAttrMaxSharedMemoryPerBlock, device::shared_of_block},
    Attribute{cudaDevAttrMaxSharedMemoryPerBlockOptin, device::shared_of_block_at_most},
    Attribute{cudaDevAttrMaxSharedMemoryPerMultiprocessor, device::shared_of_multiprocessor},
    Attribute{cudaDevAttrReservedSharedMemoryPerBlock, device::reserved_shared},
    Attribute{cudaDevAttrMultiProcessorCount, device::multiprocessors},
    Attribute{cudaDevAttrMaxThreadsPerMultiProcessor, device::threads_of_multiprocessor},
    Attribute{cudaDevAttrMaxRegistersPerBlock, device::registers},
    Attribute{cudaDevAttrMaxRegistersPerMultiprocessor, device::registers},
    Attribute{cudaDevAttrWarpSize, 32},
    Attribute{cudaDevAttrComputeCapabilityMajor, device::major},
    Attribute{cudaDevAttrComputeCapabilityMinor, device::minor},
    Attribute{cudaDevAttrL2CacheSize, device::l2_cache},
    Attribute{cudaDevAttrUnifiedAddressing, 1},
    Attribute{cudaDevAttrClusterLaunch, 1},
};

cudaError_t find_attribute(int* value, cudaDeviceAttr wanted) {
  for (const auto& [known, found] : attributes) {
    if (known != wanted) continue;
    *value = found;
    return cudaSuccess;
  }
  return cudaErrorNotSupported;
}

// The rest stays 0.
cudaDeviceProp properties() {
  cudaDeviceProp all{};
  std::snprintf(all.name, sizeof all.name, "emulated GPU");
  all.totalGlobalMem = total_memory;
  all.major = device::major;
  all.minor = device::minor;
  all.multiProcessorCount = device::multiprocessors;
  all.warpSize = 32;
  all.maxThreadsPerBlock = device::threads_of_block;
  all.maxThreadsPerMultiProcessor = device::threads_of_multiprocessor;
  for (size_t i = 0; i < 3; ++i) {
    all.maxThreadsDim[i] = device::block[i];
    all.maxGridSize[i] = device::grid[i];
  }
  all.sharedMemPerBlock = device::shared_of_block;
  all.sharedMemPerBlockOptin = device::shared_of_block_at_most;
  all.sharedMemPerMultiprocessor = device::shared_of_multiprocessor;
  all.reservedSharedMemPerBlock = device::reserved_shared;
  all.regsPerBlock = device::registers;
  all.regsPerMultiprocessor = device::registers;
  all.l2CacheSize = device::l2_cache;
  all.unifiedAddressing = 1;
  all.clusterLaunch = 1;
  return all;
}

}  // namespace
}  // namespace qnext::emulator

using namespace qnext::emulator;

extern "C" {

cudaError_t cudaGetDeviceCount(int* count) {
  return call([&] {
    if (!count) return cudaErrorInvalidValue;
    *count = 1;
    return cudaSuccess;
  });
}

cudaError_t cudaGetDevice(int* number) {
  return call([&] {
    if (!number) return cudaErrorInvalidValue;
    *number = 0;
    return cudaSuccess;
  });
}

cudaError_t cudaSetDevice(int number) {
  return call([&] { return number == 0 ? cudaSuccess : cudaErrorInvalidDevice; });
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* found, int number) {
  return call([&] {
    if (!found) return cudaErrorInvalidValue;
    if (number != 0) return cudaErrorInvalidDevice;
    *found = properties();
    return cudaSuccess;
  });
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int number) {
  return call([&] {
    if (!value) return cudaErrorInvalidValue;
    if (number != 0) return cudaErrorInvalidDevice;
    return find_attribute(value, attribute);
  });
}

}  // extern "C"
