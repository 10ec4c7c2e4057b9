// What both ways of running a model on the GPU share: the device, the caches, moving states.
#pragma once

#include <memory>

#include "backend/cuda/caches.h"
#include "backend/cuda/cuda_backend.h"
#include "backend/cuda/device_memory.h"
#include "backend/cuda/device_store.h"
#include "base/thread_pool.h"

namespace qnext::backend::cuda {

class DeviceBackend : public Backend {
 public:
  DeviceBackend(const Config& config, const CudaOptions& options)
      : config_(config), options_(options), pool_(options.threads) {}

  const Config& config() const override { return config_; }
  const Capabilities& capabilities() const override { return capabilities_; }

  void reserve(const Reservation& reservation) final;
  size_t reservation_bytes(const Reservation& reservation) const final;

  void copy_state(int32_t from, int32_t to) override;
  void export_state(int32_t from, std::span<std::byte> out) const override;
  void import_state(int32_t to, std::span<const std::byte> in) override;
  void export_page(int32_t page, std::span<std::byte> out) const override;
  void import_page(int32_t page, std::span<const std::byte> in) override;
  double measure_read_bandwidth() override;

 protected:
  // After the weights are there.
  void set_capabilities(bool has_mtp, DType kv_dtype, size_t weight_bytes);

  // The scratch memory: let go, made for a reservation together with the new caches, measured.
  virtual void drop_workspace() = 0;
  virtual void make_workspace(const Reservation& reservation) = 0;
  virtual size_t workspace_bytes(const Reservation& reservation) const = 0;
  // Whether StateSlots are to have a spare place.
  virtual bool wants_spare_state() const { return false; }

  Config config_;
  CudaOptions options_;
  ThreadPool pool_;
  Stream stream_;
  DeviceStore store_;
  Capabilities capabilities_;
  DType kv_dtype_ = DType::f32;
  KvPages pages_;
  StateSlots slots_;

 private:
  std::byte* slot(int32_t index) const;
};

// fp32 sums, a kernel an operation, weights as stored: what the other is judged by.
std::unique_ptr<Backend> make_eager_backend(const Checkpoint& checkpoint, const Config& config,
                                            const CudaOptions& options);

// Tensor cores, packed weights, graphs. A null checkpoint: random weights.
std::unique_ptr<Backend> make_packed_backend(const Checkpoint* checkpoint, const Config& config,
                                             const CudaOptions& options);

}  // namespace qnext::backend::cuda
