#include "backend/cuda/cuda_backend.h"

#include "backend/cuda/device_backend.h"
#include "backend/cuda/packed_shapes.h"
#include "base/cuda_error.h"
#include "base/error.h"

namespace qnext::backend {

namespace {

// The architecture whose own instructions this build may use; such code runs nowhere else.
constexpr int architecture_major = 9, architecture_minor = 0;

void check_packed(const Config& config, const CudaOptions& options) {
  if (const auto reason = cuda::why_not_packed(config))
    fail("the tensor cores do not take this model: {}; use --backend-path eager", *reason);
  if (options.state_dtype != DType::f32 && !cuda::has_fast_delta(config))
    fail("--state bf16 needs linear attention heads of 64 or 128; use --state f32");
}

void require_cuda() {
  if (const auto reason = why_no_cuda()) fail("{}; run with --device cpu", *reason);
}

}  // namespace

std::optional<std::string> why_no_cuda() {
  int count = 0;
  const cudaError_t code = cudaGetDeviceCount(&count);
  if (code != cudaSuccess) {
    cudaGetLastError();
    return fmt::format("this machine has no usable GPU ({})", cudaGetErrorString(code));
  }
  if (count == 0) return "this machine has no GPU";
  cudaDeviceProp properties;
  check_cuda(cudaGetDeviceProperties(&properties, 0), "cudaGetDeviceProperties");
  if (properties.major != architecture_major || properties.minor != architecture_minor) {
    return fmt::format("{} has compute capability {}.{}, and this build is for {}.{}",
                       properties.name, properties.major, properties.minor, architecture_major,
                       architecture_minor);
  }
  return std::nullopt;
}

std::unique_ptr<Backend> make_cuda_backend(const Checkpoint& checkpoint, const Config& config,
                                           const CudaOptions& options) {
  require_cuda();
  if (options.path == CudaOptions::Path::eager) {
    if (options.state_dtype != DType::f32) fail("--state bf16 needs --backend-path graph");
    if (options.kv_dtype == DType::f8_e4m3) fail("--kv f8 needs --backend-path graph");
    if (options.activations != DType::bf16) fail("--activations f8 needs --backend-path graph");
    if (options.quantize) fail("--quantize on the GPU needs --backend-path graph");
    return cuda::make_eager_backend(checkpoint, config, options);
  }
  check_packed(config, options);
  return cuda::make_packed_backend(&checkpoint, config, options);
}

std::unique_ptr<Backend> make_random_cuda_backend(const Config& config,
                                                  const CudaOptions& options) {
  require_cuda();
  check_packed(config, options);
  return cuda::make_packed_backend(nullptr, config, options);
}

}  // namespace qnext::backend
