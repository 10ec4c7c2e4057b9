// Launches: checked as a driver checks them, then started (runtime_overlap.h).
#include <array>
#include <cstring>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "emulator/kernels.h"
#include "emulator/runtime.h"
#include "emulator/runtime_device.h"
#include "emulator/runtime_overlap.h"
#include "emulator/runtime_state.h"
#include "emulator/runtime_streams.h"

namespace qnext::emulator {
namespace {

uint32_t base_seed = 0;
uint32_t launches = 0;
RaceCheck race_check = RaceCheck::none;

// Neighbouring seeds give minstd_rand neighbouring first numbers; these are far apart.
uint32_t next_seed() {
  return base_seed + 0x9E3779B9u * ++launches;
}

Size3 size_of(dim3 size) {
  return {size.x, size.y, size.z};
}

bool within(const Size3& size, const int (&most)[3]) {
  const std::array<uint32_t, 3> sizes{size.x, size.y, size.z};
  for (size_t i = 0; i < 3; ++i)
    if (sizes[i] == 0 || sizes[i] > static_cast<uint32_t>(most[i])) return false;
  return true;
}

cudaError_t check_cluster(const Launch& launch, const Function& function) {
  const Size3& cluster = launch.cluster;
  const auto& demanded = launch.kernel->cluster;
  if (demanded[0] != 0 && (static_cast<uint32_t>(demanded[0]) != cluster.x ||
                           static_cast<uint32_t>(demanded[1]) != cluster.y ||
                           static_cast<uint32_t>(demanded[2]) != cluster.z))
    return cudaErrorInvalidClusterSize;
  const int most =
      function.large_clusters ? device::blocks_of_cluster_at_most : device::blocks_of_cluster;
  if (cluster.count() == 0 || cluster.count() > static_cast<uint64_t>(most))
    return cudaErrorInvalidClusterSize;
  if (launch.grid.x % cluster.x || launch.grid.y % cluster.y || launch.grid.z % cluster.z)
    return cudaErrorInvalidClusterSize;
  return cudaSuccess;
}

cudaError_t check(const Launch& launch, const Function& function) {
  if (!within(launch.grid, device::grid) || !within(launch.block, device::block) ||
      launch.block.count() > device::threads_of_block)
    return cudaErrorInvalidConfiguration;
  if (launch.block.count() > static_cast<uint64_t>(launch.kernel->largest_block))
    return cudaErrorInvalidValue;
  if (launch.dynamic_shared_bytes > dynamic_shared_allowed(function, *launch.kernel))
    return cudaErrorInvalidValue;
  return check_cluster(launch, function);
}

// cudaErrorNotSupported for all but what a launch here can do or need not.
cudaError_t read_attributes(std::span<const cudaLaunchAttribute> attributes, Launch& launch,
                            bool& may_start_early) {
  for (const cudaLaunchAttribute& attribute : attributes) {
    switch (attribute.id) {
      case cudaLaunchAttributeIgnore:
        break;
      case cudaLaunchAttributeProgrammaticStreamSerialization:
        may_start_early = attribute.val.programmaticStreamSerializationAllowed != 0;
        break;
      case cudaLaunchAttributeClusterDimension:
        launch.cluster = {attribute.val.clusterDim.x, attribute.val.clusterDim.y,
                          attribute.val.clusterDim.z};
        break;
      default:
        return cudaErrorNotSupported;
    }
  }
  return cudaSuccess;
}

std::vector<std::byte> parameters_of(const Kernel& kernel, void** arguments) {
  std::vector<std::byte> bytes(kernel.parameter_bytes);
  for (size_t i = 0; i < kernel.parameters.size(); ++i) {
    const Parameter& parameter = kernel.parameters[i];
    std::memcpy(bytes.data() + parameter.offset, arguments[i], parameter.bytes);
  }
  return bytes;
}

cudaError_t launch(const Function* function, const cudaLaunchConfig_t& config, void** arguments) {
  if (!function) return cudaErrorInvalidDeviceFunction;
  const Kernel* kernel = kernel_of(*function);
  if (!kernel) return cudaErrorInvalidPtx;
  auto made = std::make_shared<Launch>();
  made->kernel = kernel;
  made->grid = size_of(config.gridDim);
  made->block = size_of(config.blockDim);
  made->dynamic_shared_bytes = config.dynamicSmemBytes;
  made->race_check = race_check;
  if (const auto& demanded = kernel->cluster; demanded[0] != 0)
    made->cluster = {static_cast<uint32_t>(demanded[0]), static_cast<uint32_t>(demanded[1]),
                     static_cast<uint32_t>(demanded[2])};
  bool early = false;
  cudaError_t code = read_attributes({config.attrs, config.numAttrs}, *made, early);
  if (code == cudaSuccess) code = check(*made, *function);
  if (code != cudaSuccess) return code;
  made->parameters = parameters_of(*kernel, arguments);
  return enqueue(config.stream, [made, stream = config.stream, early] {
    return start_launch(made, next_seed(), stream, early);
  });
}

cudaLaunchConfig_t configuration(dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t stream) {
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  return config;
}

// kernel<<<...>>> says how, then calls a function that asks for it.
thread_local std::vector<cudaLaunchConfig_t> pushed;

}  // namespace

void set_seed(uint32_t seed) {
  const std::lock_guard lock(runtime_mutex());
  base_seed = seed;
}

void check_races(RaceCheck check) {
  const std::lock_guard lock(runtime_mutex());
  race_check = check;
}

}  // namespace qnext::emulator

using namespace qnext::emulator;

extern "C" {

// 0: go on and call the kernel's function.
unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared_bytes,
                                     CUstream_st* stream) {
  pushed.push_back(configuration(grid, block, shared_bytes, stream));
  return 0;
}

cudaError_t __cudaPopCallConfiguration(dim3* grid, dim3* block, size_t* shared_bytes,
                                       void* stream) {
  if (pushed.empty()) return remember(cudaErrorInvalidConfiguration);
  const cudaLaunchConfig_t config = pushed.back();
  pushed.pop_back();
  *grid = config.gridDim;
  *block = config.blockDim;
  *shared_bytes = config.dynamicSmemBytes;
  *static_cast<cudaStream_t*>(stream) = config.stream;
  return cudaSuccess;
}

cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid, dim3 block, void** arguments,
                               size_t shared_bytes, cudaStream_t stream) {
  return call([&] {
    const auto* function = reinterpret_cast<const Function*>(kernel);
    if (!is_function(function)) function = nullptr;
    return launch(function, configuration(grid, block, shared_bytes, stream), arguments);
  });
}

cudaError_t __cudaLaunchKernel_ptsz(cudaKernel_t kernel, dim3 grid, dim3 block, void** arguments,
                                    size_t shared_bytes, cudaStream_t stream) {
  return __cudaLaunchKernel(kernel, grid, block, arguments, shared_bytes,
                            stream ? stream : cudaStreamPerThread);
}

cudaError_t cudaLaunchKernel(const void* host_function, dim3 grid, dim3 block, void** arguments,
                             size_t shared_bytes, cudaStream_t stream) {
  return call([&] {
    return launch(find_function(host_function), configuration(grid, block, shared_bytes, stream),
                  arguments);
  });
}

cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t* config, const void* host_function,
                                void** arguments) {
  return call([&] {
    return config ? launch(find_function(host_function), *config, arguments)
                  : cudaErrorInvalidValue;
  });
}

}  // extern "C"
