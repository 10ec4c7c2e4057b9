// What the files of the runtime share: the lock around each call, and errors.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <mutex>

namespace qnext::emulator {

// Of the H200.
constexpr size_t total_memory = 150'110'011'392;

// Held for the length of each call, launches included.
std::mutex& runtime_mutex();

// The fault that a kernel has left behind, or cudaSuccess.
cudaError_t fault_so_far();
void set_fault(cudaError_t code);

// What cudaGetLastError() will say in this thread; gives the code back.
cudaError_t remember(cudaError_t code);

// One call of the runtime.
template <typename Act>
cudaError_t call(Act&& act) {
  const std::lock_guard lock(runtime_mutex());
  const cudaError_t fault = fault_so_far();
  return remember(fault != cudaSuccess ? fault : act());
}

// One that gives something back, which it does after a fault as well.
template <typename Act>
cudaError_t release_call(Act&& act) {
  const std::lock_guard lock(runtime_mutex());
  const cudaError_t code = act();
  const cudaError_t fault = fault_so_far();
  return remember(fault != cudaSuccess ? fault : code);
}

}  // namespace qnext::emulator
