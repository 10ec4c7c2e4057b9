// The bytes that packed passes move, from shapes and, for experts, from the device's own count.
#include <algorithm>

#include "backend/cuda/packed_forward.h"

namespace qnext::backend::cuda {

// What a pass moves besides experts, from shapes.
void PackedForward::count_traffic(const PassPlan& plan, const PassEnds& ends) {
  const auto add = [&](const PackedMatrix& matrix) {
    traffic_.weights += static_cast<size_t>(matrix.bytes()) +
                        static_cast<size_t>(matrix.scale_count()) * sizeof(float);
  };
  const auto add_layer = [&](const PackedLayer& layer) {
    if (const auto* attention = std::get_if<PackedAttention>(&layer.mixer)) {
      for (const PackedMatrix* matrix :
           {&attention->q, &attention->k, &attention->v, &attention->o})
        add(*matrix);
      count_kv(plan);
    } else {
      const auto& delta = std::get<PackedDelta>(layer.mixer);
      for (const PackedMatrix* matrix : {&delta.qkvz, &delta.ba, &delta.out}) add(*matrix);
      count_state(plan);
    }
    if (layer.mlp.router) add(*layer.mlp.router);
    if (layer.mlp.shared_gate) add(*layer.mlp.shared_gate);
  };
  if (ends.mtp) {
    add(model_.mtp->fc);
    const auto& attention = std::get<PackedAttention>(model_.mtp->layer.mixer);
    if (ends.hidden_out)
      add_layer(model_.mtp->layer);
    else
      for (const PackedMatrix* matrix : {&attention.q, &attention.k, &attention.v}) add(*matrix);
  } else {
    for (const PackedLayer& layer : model_.layers) add_layer(layer);
  }
}

void PackedForward::count_kv(const PassPlan& plan) {
  const auto page_bytes = static_cast<size_t>(ops::cuda::paged_page_bytes(paged_shape_));
  for (const PassSequence& s : plan.sequences) {
    const auto positions = static_cast<size_t>(s.rows.first_position + s.rows.rows);
    traffic_.kv += positions * page_bytes / static_cast<size_t>(page_tokens);
  }
}

void PackedForward::count_state(const PassPlan& plan) {
  for (const PassSequence& s : plan.sequences) {
    const auto writes = static_cast<size_t>(
        std::ranges::count_if(s.rows.state_out, [](int32_t slot) { return slot >= 0; }));
    traffic_.state += slots_->layer_bytes() * (writes + (s.rows.state_in == no_slot ? 0 : 1));
  }
}

const Traffic& PackedForward::traffic() {
  const size_t experts = expert_traffic_.bytes(stream_);
  traffic_.weights += experts - counted_experts_;
  counted_experts_ = experts;
  return traffic_;
}

}  // namespace qnext::backend::cuda
