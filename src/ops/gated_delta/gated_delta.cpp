#include "ops/gated_delta/gated_delta.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/cpu_features.h"
#include "ops/activation/activation.h"
#include "ops/gated_delta/gated_delta_kernels.h"

namespace qnext::ops {

namespace {

constexpr IsaTable<const DeltaKernels*> kernels{&delta_scalar, &delta_avx2, &delta_avx512};

// Normalises q and k of one key head of one row and turns a, b of its value heads into gates.
void prepare(const DeltaKernels& kernel, const GatedDeltaShape& shape,
             const GatedDeltaInputs& inputs, int64_t row, int64_t key_head) {
  float* q = inputs.qkv + row * inputs.qkv_stride + key_head * shape.key_dim;
  float* k = q + shape.key_heads * shape.key_dim;
  kernel.l2_normalize(q, shape.key_dim, 1.0f / std::sqrt(static_cast<float>(shape.key_dim)));
  kernel.l2_normalize(k, shape.key_dim, 1.0f);
  const int64_t group = shape.value_heads / shape.key_heads;
  for (int64_t head = key_head * group; head < (key_head + 1) * group; ++head) {
    float& a = inputs.a[row * inputs.ab_stride + head];
    float& b = inputs.b[row * inputs.ab_stride + head];
    a = std::exp(-std::exp(inputs.a_log[head]) * softplus(a + inputs.dt_bias[head]));
    b = sigmoid(b);
  }
}

// A slab of scratch for the calling thread, kept between calls.
float* thread_slab(int64_t key_dim) {
  constexpr size_t line = 64 / sizeof(float);
  thread_local std::vector<float> memory;
  const size_t needed = static_cast<size_t>(key_dim * delta_block) + line;
  if (memory.size() < needed) memory.resize(needed);
  const auto address = reinterpret_cast<uintptr_t>(memory.data());
  return memory.data() + (line - address / sizeof(float) % line) % line;
}

// A block of columns walks down the state in steps of a row, which no prefetcher follows at the
// memory's speed. So a head's lines are read in order first; the blocks then find them in the
// second-level cache.
void read_in_order(const float* values, int64_t count) {
  constexpr int64_t line = 64 / sizeof(float);
  for (int64_t i = 0; i < count; i += line)
    static_cast<void>(*static_cast<const volatile float*>(values + i));
}

}  // namespace

void gated_delta(ThreadPool& pool, const GatedDeltaShape& shape, const GatedDeltaInputs& inputs,
                 std::span<const DeltaSequence> sequences, float* out, int64_t out_stride) {
  const DeltaKernels& kernel = *kernels.choose();
  std::vector<int64_t> rows;
  for (const DeltaSequence& sequence : sequences)
    for (int64_t t = 0; t < sequence.rows; ++t) rows.push_back(sequence.first_row + t);
  pool.parallel_for(
      static_cast<int64_t>(rows.size()) * shape.key_heads, 8, [&](int64_t begin, int64_t end) {
        for (int64_t item = begin; item < end; ++item)
          prepare(kernel, shape, inputs, rows[static_cast<size_t>(item / shape.key_heads)],
                  item % shape.key_heads);
      });
  const int64_t blocks = (shape.value_dim + delta_block - 1) / delta_block;
  const int64_t per_sequence = shape.value_heads * blocks;
  const int64_t group = shape.value_heads / shape.key_heads;
  const int64_t key_width = shape.key_heads * shape.key_dim;
  // Neighbouring blocks share pages of the state, so a worker takes a head's blocks together.
  pool.parallel_for(
      per_sequence * static_cast<int64_t>(sequences.size()), blocks,
      [&](int64_t begin, int64_t end) {
        float* slab = thread_slab(shape.key_dim);
        for (int64_t item = begin; item < end; ++item) {
          const DeltaSequence& sequence = sequences[static_cast<size_t>(item / per_sequence)];
          const int64_t head = item % per_sequence / blocks;
          const int64_t column = item % blocks * delta_block;
          if (column == 0 && sequence.state_in) {
            const int64_t head_size = shape.key_dim * shape.value_dim;
            read_in_order(sequence.state_in + head * head_size, head_size);
          }
          const float* qkv = inputs.qkv + sequence.first_row * inputs.qkv_stride;
          DeltaBlock block;
          block.q = qkv + head / group * shape.key_dim;
          block.k = block.q + key_width;
          block.v = qkv + 2 * key_width + head * shape.value_dim + column;
          block.qkv_stride = inputs.qkv_stride;
          block.decay = inputs.a + sequence.first_row * inputs.ab_stride + head;
          block.beta = inputs.b + sequence.first_row * inputs.ab_stride + head;
          block.ab_stride = inputs.ab_stride;
          block.rows = sequence.rows;
          block.key_dim = shape.key_dim;
          block.columns = std::min(delta_block, shape.value_dim - column);
          block.state_offset = head * shape.key_dim * shape.value_dim + column;
          block.state_stride = shape.value_dim;
          block.state_in = sequence.state_in ? sequence.state_in + block.state_offset : nullptr;
          block.state_out = sequence.state_out;
          block.slab = slab;
          block.out = out + sequence.first_row * out_stride + head * shape.value_dim + column;
          block.out_stride = out_stride;
          kernel.advance(block);
        }
      });
}

}  // namespace qnext::ops
