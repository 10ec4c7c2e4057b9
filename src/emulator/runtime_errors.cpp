// Errors of the runtime: the last one of a thread, the one that stays, and their texts.
#include <array>
#include <utility>

#include "emulator/runtime.h"
#include "emulator/runtime_overlap.h"
#include "emulator/runtime_state.h"

namespace qnext::emulator {
namespace {

cudaError_t fault = cudaSuccess;
thread_local cudaError_t last_error = cudaSuccess;

constexpr std::array<std::pair<cudaError_t, const char*>, 29> texts = {{
    {cudaSuccess, "no error"},
    {cudaErrorInvalidValue, "invalid argument"},
    {cudaErrorMemoryAllocation, "out of memory"},
    {cudaErrorInvalidConfiguration, "invalid configuration argument"},
    {cudaErrorInvalidMemcpyDirection, "invalid copy direction for memcpy"},
    {cudaErrorInvalidDeviceFunction, "invalid device function"},
    {cudaErrorNoDevice, "no CUDA-capable device is detected"},
    {cudaErrorInvalidDevice, "invalid device ordinal"},
    {cudaErrorInvalidKernelImage, "device kernel image is invalid"},
    {cudaErrorInvalidPtx, "a PTX JIT compilation failed"},
    {cudaErrorInvalidResourceHandle, "invalid resource handle"},
    {cudaErrorIllegalState, "the operation cannot be performed in the present state"},
    {cudaErrorSymbolNotFound, "named symbol not found"},
    {cudaErrorNotReady, "device not ready"},
    {cudaErrorIllegalAddress, "an illegal memory access was encountered"},
    {cudaErrorLaunchOutOfResources, "too many resources requested for launch"},
    {cudaErrorMisalignedAddress, "misaligned address"},
    {cudaErrorLaunchFailure, "unspecified launch failure"},
    {cudaErrorNotSupported, "operation not supported"},
    {cudaErrorStreamCaptureUnsupported, "operation not permitted when stream is capturing"},
    {cudaErrorStreamCaptureInvalidated, "operation failed due to a previous error during capture"},
    {cudaErrorStreamCaptureMerge, "operation would result in a merge of separate captures"},
    {cudaErrorStreamCaptureUnmatched, "capture was not ended in the same stream as it began"},
    {cudaErrorStreamCaptureUnjoined, "capturing stream has unjoined work"},
    {cudaErrorStreamCaptureIsolation, "dependency created on uncaptured work in another stream"},
    {cudaErrorStreamCaptureImplicit,
     "operation would make the legacy stream depend on a capturing blocking stream"},
    {cudaErrorCapturedEvent, "operation not permitted on an event last recorded in a capture"},
    {cudaErrorStreamCaptureWrongThread, "capture was ended by another thread than began it"},
    {cudaErrorInvalidClusterSize, "invalid cluster size"},
}};

}  // namespace

std::mutex& runtime_mutex() {
  static std::mutex& mutex = *new std::mutex;
  return mutex;
}

cudaError_t fault_so_far() {
  return fault;
}

void set_fault(cudaError_t code) {
  fault = code;
}

cudaError_t remember(cudaError_t code) {
  if (code != cudaSuccess) last_error = code;
  return code;
}

void forget_fault() {
  const std::lock_guard lock(runtime_mutex());
  drop_launches();
  fault = cudaSuccess;
  last_error = cudaSuccess;
}

}  // namespace qnext::emulator

using namespace qnext::emulator;

extern "C" {

cudaError_t cudaPeekAtLastError() {
  const std::lock_guard lock(runtime_mutex());
  return fault_so_far() != cudaSuccess ? fault_so_far() : last_error;
}

cudaError_t cudaGetLastError() {
  const cudaError_t code = cudaPeekAtLastError();
  last_error = cudaSuccess;
  return code;
}

const char* cudaGetErrorString(cudaError_t code) {
  for (const auto& [known, text] : texts)
    if (known == code) return text;
  return "unrecognized error code";
}

}  // extern "C"
