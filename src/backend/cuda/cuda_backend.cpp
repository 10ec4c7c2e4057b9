#include "backend/cuda/cuda_backend.h"

#include "backend/common/capabilities.h"
#include "backend/common/check_batch.h"
#include "backend/common/step_driver.h"
#include "backend/common/weights.h"
#include "backend/cuda/bandwidth.h"
#include "backend/cuda/caches.h"
#include "backend/cuda/device_memory.h"
#include "backend/cuda/device_store.h"
#include "backend/cuda/forward.h"
#include "backend/cuda/workspace.h"
#include "base/cuda_error.h"
#include "base/error.h"
#include "base/thread_pool.h"

namespace qnext::backend {

namespace {

using namespace cuda;

// The architecture whose own instructions this build may use; such code runs nowhere else.
constexpr int architecture_major = 9, architecture_minor = 0;

cudaDeviceProp device_properties() {
  cudaDeviceProp properties;
  check_cuda(cudaGetDeviceProperties(&properties, 0), "cudaGetDeviceProperties");
  return properties;
}

class CudaBackend final : public Backend {
 public:
  CudaBackend(const Checkpoint& checkpoint, const Config& config, const CudaOptions& options)
      : config_(config),
        options_(options),
        pool_(options.threads),
        weights_(checkpoint, config_,
                 {.quantize = std::nullopt,
                  .load_mtp = options.load_mtp,
                  .progress = options.progress,
                  .store = &store_},
                 pool_),
        forward_(config_, weights_.model(), store_, stream_),
        driver_(config_, forward_, pool_) {
    store_.finish();
    const cudaDeviceProp properties = device_properties();
    capabilities_ = make_capabilities(
        fmt::format("cuda, {}, {:.0f} GiB", properties.name,
                    static_cast<double>(properties.totalGlobalMem) / (size_t{1} << 30)),
        config_, weights_.model().mtp.has_value(), options.kv_dtype, page_tokens, weights_.bytes());
  }

  const Config& config() const override { return config_; }
  const Capabilities& capabilities() const override { return capabilities_; }

  void reserve(const Reservation& reservation) override {
    QNEXT_CHECK(reservation.pages > 0 && reservation.slots > 0 && reservation.rows > 0);
    // The old memory goes first: both together may not fit.
    pages_ = {};
    slots_ = {};
    workspace_ = {};
    pages_ = KvPages(config_, capabilities_.has_mtp, options_.kv_dtype, reservation.pages);
    slots_ = StateSlots(config_, reservation.slots);
    workspace_ = Workspace(config_, reservation.rows, capabilities_.has_mtp);
    forward_.attach(workspace_, pages_, slots_);
  }

  size_t reservation_bytes(const Reservation& reservation) const override {
    return cache_bytes(capabilities_, reservation) +
           Workspace::bytes(config_, reservation.rows, capabilities_.has_mtp);
  }

  std::vector<SequenceResult> step(const Batch& batch) override {
    check_batch(batch, config_, capabilities_,
                {pages_.count(), slots_.count(), static_cast<int32_t>(workspace_.rows)});
    return driver_.step(batch);
  }

  void copy_state(int32_t from, int32_t to) override {
    if (capabilities_.slot_bytes == 0) return;
    check_cuda(cudaMemcpyAsync(slot(to), slot(from), capabilities_.slot_bytes,
                               cudaMemcpyDeviceToDevice, stream_.get()),
               "a copy on the GPU");
  }
  void export_state(int32_t from, std::span<std::byte> out) const override {
    QNEXT_CHECK(out.size() == capabilities_.slot_bytes);
    stream_.copy_to_host(out.data(), slot(from), out.size());
    stream_.wait();
  }
  void import_state(int32_t to, std::span<const std::byte> in) override {
    QNEXT_CHECK(in.size() == capabilities_.slot_bytes);
    stream_.copy_to_device(slot(to), in.data(), in.size());
    stream_.wait();
  }

  void observe(Observer* observer) override {
    forward_.observe(observer);
    driver_.observe(observer);
  }

  const Traffic& traffic() const override { return forward_.traffic(); }

  double measure_read_bandwidth() override { return cuda::measure_read_bandwidth(stream_.get()); }

 private:
  std::byte* slot(int32_t index) const {
    QNEXT_CHECK(index >= 0 && index < slots_.count(), "slot {}", index);
    return slots_.bytes(index);
  }

  Config config_;
  CudaOptions options_;
  ThreadPool pool_;
  Stream stream_;
  DeviceStore store_;
  ResidentWeights weights_;
  Forward forward_;
  StepDriver driver_;
  Capabilities capabilities_;
  KvPages pages_;
  StateSlots slots_;
  Workspace workspace_;
};

}  // namespace

std::optional<std::string> why_no_cuda() {
  int count = 0;
  const cudaError_t code = cudaGetDeviceCount(&count);
  if (code != cudaSuccess) {
    cudaGetLastError();
    return fmt::format("this machine has no usable GPU ({})", cudaGetErrorString(code));
  }
  if (count == 0) return "this machine has no GPU";
  const cudaDeviceProp properties = device_properties();
  if (properties.major != architecture_major || properties.minor != architecture_minor) {
    return fmt::format("{} has compute capability {}.{}, and this build is for {}.{}",
                       properties.name, properties.major, properties.minor, architecture_major,
                       architecture_minor);
  }
  return std::nullopt;
}

std::unique_ptr<Backend> make_cuda_backend(const Checkpoint& checkpoint, const Config& config,
                                           const CudaOptions& options) {
  if (const auto reason = why_no_cuda()) fail("{}; run with --device cpu", *reason);
  return std::make_unique<CudaBackend>(checkpoint, config, options);
}

}  // namespace qnext::backend
