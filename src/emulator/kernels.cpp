// Registration: nvcc has each .cu file's static constructor report its fat binary and kernels.
#include "emulator/kernels.h"

#include <fmt/format.h>

#include <cstdio>
#include <map>
#include <memory>
#include <mutex>

#include "base/error.h"
#include "emulator/fat_binary.h"
#include "emulator/module.h"
#include "emulator/runtime_device.h"
#include "emulator/runtime_overlap.h"
#include "emulator/runtime_state.h"

namespace qnext::emulator {

struct FatBinary {
  const void* wrapper = nullptr;
  std::unique_ptr<Module> module;  // once one of its kernels is asked for
};

namespace {

struct Registry {
  std::map<FatBinary*, std::unique_ptr<FatBinary>> binaries;
  std::map<const void*, std::unique_ptr<Function>> functions;
};

Registry& registry() {
  static Registry& all = *new Registry;
  return all;
}

cudaError_t allow_shared(Function& function, int bytes) {
  const Kernel* kernel = kernel_of(function);
  if (!kernel) return cudaErrorInvalidPtx;
  if (bytes < 0 || static_cast<size_t>(bytes) + kernel->static_shared_bytes >
                       size_t{device::shared_of_block_at_most})
    return cudaErrorInvalidValue;
  function.dynamic_shared_allowed = static_cast<size_t>(bytes);
  return cudaSuccess;
}

cudaError_t set_attribute(Function& function, cudaFuncAttribute attribute, int value) {
  switch (attribute) {
    case cudaFuncAttributeMaxDynamicSharedMemorySize:
      return allow_shared(function, value);
    case cudaFuncAttributePreferredSharedMemoryCarveout:  // no cache to share it with here
      return value >= cudaSharedmemCarveoutDefault && value <= cudaSharedmemCarveoutMaxShared
                 ? cudaSuccess
                 : cudaErrorInvalidValue;
    case cudaFuncAttributeNonPortableClusterSizeAllowed:
      function.large_clusters = value != 0;
      return cudaSuccess;
    default:
      return cudaErrorNotSupported;
  }
}

}  // namespace

Function* find_function(const void* host_function) {
  const auto found = registry().functions.find(host_function);
  return found == registry().functions.end() ? nullptr : found->second.get();
}

bool is_function(const Function* function) {
  for (const auto& [host_function, known] : registry().functions)
    if (known.get() == function) return true;
  return false;
}

const Kernel* kernel_of(const Function& function) {
  try {
    if (!function.binary->module)
      function.binary->module = std::make_unique<Module>(ptx_of(function.binary->wrapper));
    return &function.binary->module->kernel(function.name);
  } catch (const Error& error) {
    fmt::print(stderr, "emulated GPU: {}\n", error.what());
    return nullptr;
  }
}

size_t dynamic_shared_allowed(const Function& function, const Kernel& kernel) {
  if (function.dynamic_shared_allowed) return *function.dynamic_shared_allowed;
  const size_t all = device::shared_of_block;
  return all - std::min(all, kernel.static_shared_bytes);
}

}  // namespace qnext::emulator

using namespace qnext::emulator;

// What nvcc's code calls has no header that a host's compiler may read.
extern "C" {

void** __cudaRegisterFatBinary(void* wrapper) {
  const std::lock_guard lock(runtime_mutex());
  auto binary = std::make_unique<FatBinary>();
  binary->wrapper = wrapper;
  FatBinary* handle = binary.get();
  registry().binaries[handle] = std::move(binary);
  return reinterpret_cast<void**>(handle);
}

void __cudaRegisterFatBinaryEnd(void**) {}

void __cudaUnregisterFatBinary(void** handle) {
  const std::lock_guard lock(runtime_mutex());
  finish_launches();
  auto* binary = reinterpret_cast<FatBinary*>(handle);
  std::erase_if(registry().functions,
                [&](const auto& entry) { return entry.second->binary == binary; });
  registry().binaries.erase(binary);
}

void __cudaRegisterFunction(void** handle, const char* host_function, char*, const char* name, int,
                            uint3*, uint3*, dim3*, dim3*, int*) {
  const std::lock_guard lock(runtime_mutex());
  auto function = std::make_unique<Function>();
  function->binary = reinterpret_cast<FatBinary*>(handle);
  function->name = name;
  registry().functions[host_function] = std::move(function);
}

cudaError_t __cudaGetKernel(cudaKernel_t* kernel, const void* host_function) {
  return call([&] {
    *kernel = reinterpret_cast<cudaKernel_t>(find_function(host_function));
    return *kernel ? cudaSuccess : cudaErrorInvalidDeviceFunction;
  });
}

cudaError_t cudaFuncSetAttribute(const void* host_function, cudaFuncAttribute attribute,
                                 int value) {
  return call([&] {
    Function* function = find_function(host_function);
    return function ? set_attribute(*function, attribute, value) : cudaErrorInvalidDeviceFunction;
  });
}

}  // extern "C"
