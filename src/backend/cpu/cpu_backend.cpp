#include "backend/cpu/cpu_backend.h"

#include <algorithm>
#include <cstring>

#include "backend/common/capabilities.h"
#include "backend/common/check_batch.h"
#include "backend/common/step_driver.h"
#include "backend/common/weights.h"
#include "backend/cpu/caches.h"
#include "backend/cpu/forward.h"
#include "backend/cpu/workspace.h"
#include "base/bandwidth.h"
#include "base/cpu_features.h"
#include "base/error.h"

namespace qnext::backend {

namespace {

using namespace cpu;

class CpuBackend final : public Backend {
 public:
  CpuBackend(const Checkpoint& checkpoint, const Config& config, const CpuOptions& options)
      : config_(config),
        options_(options),
        pool_(options.threads),
        weights_(checkpoint, config_, {options.quantize, options.load_mtp, options.progress},
                 pool_),
        forward_(config_, weights_.model(), pool_),
        driver_(config_, forward_, pool_) {
    capabilities_ =
        make_capabilities(fmt::format("cpu, {} thread{}, {}", pool_.size(),
                                      pool_.size() == 1 ? "" : "s", isa_name(selected_isa())),
                          config_, weights_.model().mtp.has_value(), options.kv_dtype, DType::f32,
                          page_tokens, weights_.bytes());
    capabilities_.relative_error +=
        cache_rounding_error(config_, capabilities_.has_mtp, options.kv_dtype);
    capabilities_.answers_like_prompts = true;
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
    std::vector<SequenceResult> results = driver_.step(batch);
    forward_.clock().stage({});
    return results;
  }

  void copy_state(int32_t from, int32_t to) override {
    std::memcpy(slot(to), slot(from), capabilities_.slot_bytes);
  }
  void export_state(int32_t from, std::span<std::byte> out) const override {
    QNEXT_CHECK(out.size() == capabilities_.slot_bytes);
    std::memcpy(out.data(), slot(from), out.size());
  }
  void import_state(int32_t to, std::span<const std::byte> in) override {
    QNEXT_CHECK(in.size() == capabilities_.slot_bytes);
    std::memcpy(slot(to), in.data(), in.size());
  }

  // Layer after layer.
  void export_page(int32_t page, std::span<std::byte> out) const override {
    QNEXT_CHECK(out.size() == capabilities_.page_bytes);
    for (int64_t layer = 0; !out.empty(); ++layer) {
      const std::span<std::byte> from = const_cast<KvPages&>(pages_).page(layer, page);
      std::memcpy(out.data(), from.data(), from.size());
      out = out.subspan(from.size());
    }
  }
  void import_page(int32_t page, std::span<const std::byte> in) override {
    QNEXT_CHECK(in.size() == capabilities_.page_bytes);
    for (int64_t layer = 0; !in.empty(); ++layer) {
      const std::span<std::byte> to = pages_.page(layer, page);
      std::memcpy(to.data(), in.data(), to.size());
      in = in.subspan(to.size());
    }
  }

  void observe(Observer* observer) override {
    forward_.observe(observer);
    driver_.observe(observer);
  }

  bool observe_inputs(InputObserver* observer) override {
    forward_.observe_inputs(observer);
    return true;
  }

  const Traffic& traffic() const override { return forward_.traffic(); }

  bool start_profile() override {
    forward_.clock().start();
    return true;
  }
  std::vector<StageTime> take_profile() override { return forward_.clock().take(); }

  double measure_read_bandwidth() override {
    return qnext::measure_read_bandwidth(pool_, size_t{1} << 30);
  }

 private:
  std::byte* slot(int32_t index) const {
    QNEXT_CHECK(index >= 0 && index < slots_.count(), "slot {}", index);
    return const_cast<StateSlots&>(slots_).bytes(index);
  }

  Config config_;
  CpuOptions options_;
  ThreadPool pool_;
  ResidentWeights weights_;
  Forward forward_;
  StepDriver driver_;
  Capabilities capabilities_;
  KvPages pages_;
  StateSlots slots_;
  Workspace workspace_;
};

}  // namespace

std::unique_ptr<Backend> make_cpu_backend(const Checkpoint& checkpoint, const Config& config,
                                          const CpuOptions& options) {
  check_kv_dtype(config, options.kv_dtype);  // before weights are read
  return std::make_unique<CpuBackend>(checkpoint, config, options);
}

}  // namespace qnext::backend
