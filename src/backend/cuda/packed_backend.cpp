#include "backend/common/check_batch.h"
#include "backend/common/step_driver.h"
#include "backend/cuda/device_backend.h"
#include "backend/cuda/packed_forward.h"
#include "backend/cuda/packed_loader.h"
#include "backend/cuda/packed_shapes.h"
#include "backend/cuda/packed_workspace.h"

namespace qnext::backend::cuda {

namespace {

// fp32 caches are bf16 here: the kernels take nothing wider.
DType packed_kv(DType asked) {
  return asked == DType::f8_e4m3 ? DType::f8_e4m3 : DType::bf16;
}

ops::cuda::Activations packed_activations(DType asked) {
  return asked == DType::f8_e4m3 ? ops::cuda::Activations::f8 : ops::cuda::Activations::bf16;
}

class PackedBackend final : public DeviceBackend {
 public:
  PackedBackend(const WeightSource& source, const Config& config, const CudaOptions& options)
      : DeviceBackend(config, options),
        model_(load_packed(source, config_,
                           {.quantize = options.quantize,
                            .load_mtp = options.load_mtp,
                            .progress = options.progress},
                           store_, pool_)),
        forward_(config_, model_, store_,
                 packed_kv(options.kv_dtype) == DType::f8_e4m3 ? ops::cuda::KvFormat::f8
                                                               : ops::cuda::KvFormat::bf16,
                 packed_activations(options.activations), stream_),
        driver_(config_, forward_, pool_) {
    store_.finish();
    set_capabilities(model_.mtp.has_value(), packed_kv(options.kv_dtype), model_.bytes);
    capabilities_.prefill_chunk = 8192;
    capabilities_.relative_error = rounding_error(config_);
  }

  // A step that was queued ahead may still run.
  ~PackedBackend() override { cudaStreamSynchronize(stream_.get()); }
  PackedBackend(const PackedBackend&) = delete;
  PackedBackend& operator=(const PackedBackend&) = delete;

  std::vector<SequenceResult> step(const Batch& batch) override {
    check_batch(batch, config_, capabilities_,
                {pages_.count(), slots_.count(), static_cast<int32_t>(workspace_.rows)});
    return driver_.step(batch);
  }

  void observe(Observer* observer) override {
    forward_.observe(observer);
    driver_.observe(observer);
  }

  void copy_state(int32_t from, int32_t to) override {
    forward_.forget_ahead();
    DeviceBackend::copy_state(from, to);
  }
  void import_state(int32_t to, std::span<const std::byte> in) override {
    forward_.forget_ahead();
    DeviceBackend::import_state(to, in);
  }
  void import_page(int32_t page, std::span<const std::byte> in) override {
    forward_.forget_ahead();
    DeviceBackend::import_page(page, in);
  }

  // Which experts were read is known on the GPU alone.
  const Traffic& traffic() const override {
    forward_.forget_ahead();
    return forward_.traffic();
  }
  double measure_read_bandwidth() override {
    forward_.forget_ahead();
    return DeviceBackend::measure_read_bandwidth();
  }

  bool start_profile() override {
    forward_.timer().start();
    return true;
  }
  std::vector<StageTime> take_profile() override { return forward_.timer().take(stream_); }

 private:
  void drop_workspace() override { workspace_ = {}; }
  void make_workspace(const Reservation& reservation) override {
    workspace_ = PackedWorkspace(config_, reservation, capabilities_.has_mtp,
                                 packed_activations(options_.activations));
    forward_.attach(workspace_, pages_, slots_);
  }
  bool wants_spare_state() const override { return true; }
  size_t workspace_bytes(const Reservation& reservation) const override {
    return PackedWorkspace::bytes(config_, reservation, capabilities_.has_mtp,
                                  packed_activations(options_.activations));
  }

  PackedModel model_;
  mutable PackedForward forward_;
  StepDriver driver_;
  PackedWorkspace workspace_;
};

}  // namespace

std::unique_ptr<Backend> make_packed_backend(const Checkpoint* checkpoint, const Config& config,
                                             const CudaOptions& options) {
  const WeightSource source = checkpoint ? WeightSource(*checkpoint) : WeightSource(config);
  return std::make_unique<PackedBackend>(source, config, options);
}

}  // namespace qnext::backend::cuda
