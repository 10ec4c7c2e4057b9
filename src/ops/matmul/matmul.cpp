#include "ops/matmul/matmul.h"

#include <algorithm>
#include <atomic>
#include <vector>

#include "base/error.h"
#include "ops/matmul/kernel_tables.h"
#include "ops/matmul/layout.h"

namespace qnext::ops {

#define QNEXT_TILE_KERNEL(type)                                                 \
  case DType::type:                                                             \
    return IsaTable<TileKernel>{scalar::multiply_##type, avx2::multiply_##type, \
                                avx512::multiply_##type}                        \
        .choose();

TileKernel tile_kernel(DType dtype) {
  switch (dtype) {
    QNEXT_TILE_KERNEL(f32)
    QNEXT_TILE_KERNEL(f16)
    QNEXT_TILE_KERNEL(bf16)
    QNEXT_TILE_KERNEL(f8_e4m3)
    QNEXT_TILE_KERNEL(q8_0)
    QNEXT_TILE_KERNEL(q4_0)
    QNEXT_TILE_KERNEL(q4_1)
    QNEXT_TILE_KERNEL(q5_0)
    QNEXT_TILE_KERNEL(q5_1)
    QNEXT_TILE_KERNEL(iq4_nl)
    QNEXT_TILE_KERNEL(q2_k)
    QNEXT_TILE_KERNEL(q3_k)
    QNEXT_TILE_KERNEL(q4_k)
    QNEXT_TILE_KERNEL(q5_k)
    QNEXT_TILE_KERNEL(q6_k)
    QNEXT_TILE_KERNEL(iq4_xs)
    default:
      QNEXT_CHECK(false, "no product with {} weights", dtype_name(dtype));
  }
  return nullptr;
}
#undef QNEXT_TILE_KERNEL

QuantizeKernel quantize_kernel() {
  return IsaTable<QuantizeKernel>{scalar::quantize, avx2::quantize, avx512::quantize}.choose();
}

size_t weight_bytes(const WeightMatrix& weight) {
  if (is_block_quantized(weight.dtype))
    return packed_bytes(weight.dtype, weight.rows, weight.columns);
  return dtype_bytes(weight.dtype, static_cast<size_t>(weight.rows * weight.columns));
}

size_t quantized_activation_bytes(int64_t rows, int64_t columns) {
  return static_cast<size_t>(rows * layout::activation_row_bytes(columns));
}

Activations quantize_activations(ThreadPool& pool, const Activations& x, void* workspace) {
  QNEXT_CHECK(x.columns % layout::block == 0, "{} columns", x.columns);
  const QuantizeKernel quantize = quantize_kernel();
  pool.parallel_for(x.rows, 4, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      std::byte* out =
          static_cast<std::byte*>(workspace) + row * layout::activation_row_bytes(x.columns);
      quantize(x.values + row * x.stride, x.columns / layout::block,
               reinterpret_cast<layout::ActivationBlock*>(out));
    }
  });
  Activations result = x;
  result.quantized = workspace;
  return result;
}

const void* activation_row(const Activations& x, DType weight, int64_t row) {
  if (!is_block_quantized(weight)) return x.values + row * x.stride;
  return static_cast<const std::byte*>(x.quantized) + row * layout::activation_row_bytes(x.columns);
}

Activations rows_of(const Activations& x, int64_t first, int64_t count) {
  Activations rows = x;
  rows.rows = count;
  rows.values += first * x.stride;
  if (x.quantized)
    rows.quantized = static_cast<const std::byte*>(x.quantized) +
                     first * layout::activation_row_bytes(x.columns);
  return rows;
}

namespace {

constexpr int64_t rows_at_once = 64;

// Outputs [begin, end) of one task, for all rows.
void run_task(const Activations& x, const MatmulTask& task, int64_t begin, int64_t end) {
  const WeightMatrix& weight = *task.weight;
  const void* x_rows[rows_at_once];
  float* y_rows[rows_at_once];
  MatmulTile tile{weight.data, weight.block_scales, weight.columns, begin, end, 0, x_rows,
                  y_rows,      task.accumulate};
  for (int64_t row = 0; row < x.rows; row += rows_at_once) {
    tile.rows = std::min(rows_at_once, x.rows - row);
    for (int64_t i = 0; i < tile.rows; ++i) {
      x_rows[i] = activation_row(x, weight.dtype, row + i);
      y_rows[i] = task.y + (row + i) * task.y_stride + begin;
    }
    tile_kernel(weight.dtype)(tile);
  }
}

int64_t panels_of(const MatmulTask& task) {
  return (task.weight->rows + layout::panel_rows - 1) / layout::panel_rows;
}

// Panels of all tasks, numbered one task after another.
void run_panels(const Activations& x, const MatmulTask* tasks, int task_count, int64_t begin,
                int64_t end) {
  for (int t = 0; t < task_count && begin < end; ++t) {
    const int64_t count = panels_of(tasks[t]);
    const int64_t last = std::min(end, count);
    if (begin < last)
      run_task(x, tasks[t], begin * layout::panel_rows,
               std::min(last * layout::panel_rows, tasks[t].weight->rows));
    begin = std::max(begin - count, int64_t{0});
    end -= count;
  }
}

// How many of the panels left a worker takes: long forward reads at first, then less and less, so
// that all finish together. No more than a core's second-level cache holds while several rows of x
// go by; for one row nothing is read twice.
int64_t chunk_of(int64_t left, int workers, int64_t rows) {
  const int64_t most_panels = rows == 1 ? 64 : 8;
  return std::clamp(left / (4 * workers), int64_t{1}, most_panels);
}

}  // namespace

void matmul_many(ThreadPool& pool, const Activations& x, const MatmulTask* tasks, int task_count) {
  int64_t panels = 0;
  for (int t = 0; t < task_count; ++t) {
    const WeightMatrix& weight = *tasks[t].weight;
    QNEXT_CHECK(weight.columns == x.columns, "{} columns for a weight of {}", x.columns,
                weight.columns);
    QNEXT_CHECK(x.quantized || !is_block_quantized(weight.dtype));
    panels += panels_of(tasks[t]);
  }
  if (x.rows == 0) return;
  std::atomic<int64_t> next{0};
  pool.run_shared(panels * layout::panel_rows * x.columns * x.rows, [&](int) {
    for (;;) {
      int64_t begin = next.load(std::memory_order_relaxed);
      int64_t end;
      do {
        if (begin >= panels) return;
        end = begin + chunk_of(panels - begin, pool.size(), x.rows);
      } while (!next.compare_exchange_weak(begin, end, std::memory_order_relaxed));
      run_panels(x, tasks, task_count, begin, end);
    }
  });
}

void matmul(ThreadPool& pool, const Activations& x, const WeightMatrix& w, float* y,
            int64_t y_stride, bool accumulate) {
  const MatmulTask task{&w, y, y_stride, accumulate};
  matmul_many(pool, x, &task, 1);
}

}  // namespace qnext::ops
