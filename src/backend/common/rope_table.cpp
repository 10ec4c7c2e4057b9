#include "backend/common/rope_table.h"

#include <optional>

namespace qnext::backend {

ops::RopeTable rope_table(const Config& config) {
  std::optional<ops::YarnParameters> yarn;
  if (const auto& from = config.rope.yarn) {
    yarn = ops::YarnParameters{
        from->factor,           static_cast<double>(from->original_max_position_embeddings),
        from->beta_fast,        from->beta_slow,
        from->attention_factor, from->truncate};
  }
  return ops::make_rope_table(config.rope.theta, config.rope.rotary_dims, yarn);
}

}  // namespace qnext::backend
