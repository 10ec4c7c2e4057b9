// What an InputObserver sees of a layer.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string_view>

#include "backend/common/weights.h"
#include "backend/step.h"
#include "base/thread_pool.h"
#include "ops/matmul/matmul.h"

namespace qnext::backend::cpu {

// x [rows, columns]: the input of these matrices of a layer ("self_attn.q_proj"); layer -1 is the
// MTP head's.
void show_inputs(InputObserver& observer, int layer,
                 std::initializer_list<std::string_view> matrices, const float* x, int64_t rows,
                 int64_t columns);

// The same for the experts of a layer: to each the rows that chose it, ids [x.rows, slots]. What
// their down projections read is inside gated_experts(), so it is computed once more here.
void show_expert_inputs(InputObserver& observer, ThreadPool& pool, int layer,
                        const MlpWeights& weights, const ops::Activations& x, const int32_t* ids,
                        int64_t slots);

}  // namespace qnext::backend::cpu
