#include "backend/cuda/device_backend.h"

#include "backend/common/capabilities.h"
#include "backend/cuda/bandwidth.h"
#include "base/cuda_error.h"
#include "base/error.h"

namespace qnext::backend::cuda {

void DeviceBackend::set_capabilities(bool has_mtp, DType kv_dtype, size_t weight_bytes) {
  cudaDeviceProp properties;
  check_cuda(cudaGetDeviceProperties(&properties, 0), "cudaGetDeviceProperties");
  kv_dtype_ = kv_dtype;
  capabilities_ = make_capabilities(
      fmt::format("cuda, {}, {:.0f} GiB", properties.name,
                  static_cast<double>(properties.totalGlobalMem) / (size_t{1} << 30)),
      config_, has_mtp, kv_dtype, options_.state_dtype, page_tokens, weight_bytes);
}

void DeviceBackend::reserve(const Reservation& reservation) {
  QNEXT_CHECK(reservation.pages > 0 && reservation.slots > 0 && reservation.rows > 0);
  // The old memory goes first: both together may not fit.
  stream_.wait();
  pages_ = {};
  slots_ = {};
  drop_workspace();
  pages_ = KvPages(kv_layers(config_, capabilities_.has_mtp), capabilities_.page_bytes, kv_dtype_,
                   reservation.pages);
  slots_ = StateSlots(config_, options_.state_dtype, reservation.slots, wants_spare_state());
  make_workspace(reservation);
}

size_t DeviceBackend::reservation_bytes(const Reservation& reservation) const {
  return cache_bytes(capabilities_, reservation) + workspace_bytes(reservation) +
         (wants_spare_state() ? capabilities_.slot_bytes : 0);
}

void DeviceBackend::copy_state(int32_t from, int32_t to) {
  if (capabilities_.slot_bytes == 0) return;
  check_cuda(cudaMemcpyAsync(slot(to), slot(from), capabilities_.slot_bytes,
                             cudaMemcpyDeviceToDevice, stream_.get()),
             "a copy on the GPU");
}

void DeviceBackend::export_state(int32_t from, std::span<std::byte> out) const {
  QNEXT_CHECK(out.size() == capabilities_.slot_bytes);
  stream_.copy_to_host(out.data(), slot(from), out.size());
  stream_.wait();
}

void DeviceBackend::import_state(int32_t to, std::span<const std::byte> in) {
  QNEXT_CHECK(in.size() == capabilities_.slot_bytes);
  stream_.copy_to_device(slot(to), in.data(), in.size());
  stream_.wait();
}

// Layer after layer.
void DeviceBackend::export_page(int32_t page, std::span<std::byte> out) const {
  QNEXT_CHECK(out.size() == capabilities_.page_bytes && page >= 0 && page < pages_.count());
  const size_t bytes = pages_.layer_page_bytes();
  for (int64_t layer = 0; !out.empty(); ++layer, out = out.subspan(bytes))
    stream_.copy_to_host(out.data(), pages_.page(layer, page), bytes);
  stream_.wait();
}

void DeviceBackend::import_page(int32_t page, std::span<const std::byte> in) {
  QNEXT_CHECK(in.size() == capabilities_.page_bytes && page >= 0 && page < pages_.count());
  const size_t bytes = pages_.layer_page_bytes();
  for (int64_t layer = 0; !in.empty(); ++layer, in = in.subspan(bytes))
    stream_.copy_to_device(pages_.page(layer, page), in.data(), bytes);
  stream_.wait();
}

double DeviceBackend::measure_read_bandwidth() {
  return cuda::measure_read_bandwidth(stream_.get());
}

std::byte* DeviceBackend::slot(int32_t index) const {
  QNEXT_CHECK(index >= 0 && index < slots_.count(), "slot {}", index);
  return slots_.bytes(index);
}

}  // namespace qnext::backend::cuda
