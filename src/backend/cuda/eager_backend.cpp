#include "backend/common/check_batch.h"
#include "backend/common/step_driver.h"
#include "backend/common/weights.h"
#include "backend/cuda/device_backend.h"
#include "backend/cuda/eager_forward.h"
#include "backend/cuda/eager_workspace.h"

namespace qnext::backend::cuda {

namespace {

class EagerBackend final : public DeviceBackend {
 public:
  EagerBackend(const Checkpoint& checkpoint, const Config& config, const CudaOptions& options)
      : DeviceBackend(config, options),
        weights_(checkpoint, config_,
                 {.quantize = std::nullopt,
                  .load_mtp = options.load_mtp,
                  .progress = options.progress,
                  .store = &store_},
                 pool_),
        forward_(config_, weights_.model(), store_, stream_),
        driver_(config_, forward_, pool_) {
    store_.finish();
    set_capabilities(weights_.model().mtp.has_value(), options.kv_dtype, weights_.bytes());
  }

  std::vector<SequenceResult> step(const Batch& batch) override {
    check_batch(batch, config_, capabilities_,
                {pages_.count(), slots_.count(), static_cast<int32_t>(workspace_.rows)});
    return driver_.step(batch);
  }

  void observe(Observer* observer) override {
    forward_.observe(observer);
    driver_.observe(observer);
  }

  const Traffic& traffic() const override { return forward_.traffic(); }

 private:
  void drop_workspace() override { workspace_ = {}; }
  void make_workspace(const Reservation& reservation) override {
    workspace_ = EagerWorkspace(config_, reservation.rows, capabilities_.has_mtp);
    forward_.attach(workspace_, pages_, slots_);
  }
  size_t workspace_bytes(const Reservation& reservation) const override {
    return EagerWorkspace::bytes(config_, reservation.rows, capabilities_.has_mtp);
  }

  ResidentWeights weights_;
  EagerForward forward_;
  StepDriver driver_;
  EagerWorkspace workspace_;
};

}  // namespace

std::unique_ptr<Backend> make_eager_backend(const Checkpoint& checkpoint, const Config& config,
                                            const CudaOptions& options) {
  return std::make_unique<EagerBackend>(checkpoint, config, options);
}

}  // namespace qnext::backend::cuda
