#include "ops/attention/attention.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <vector>

#include "base/cpu_features.h"
#include "base/error.h"
#include "ops/attention/attention_kernels.h"
#include "tensor/blocks.h"

namespace qnext::ops {

namespace {

constexpr IsaTable<const AttentionKernels*> kernels{&attention_scalar, &attention_avx2,
                                                    &attention_avx512};
static_assert(attention_scores == attention_block);
static_assert(q8_0_values == block_values && q8_0_bytes == sizeof(BlockQ8_0));

// Queries (rows times heads of a group) that share one pass over keys and values. 64 x 256 floats
// of queries and as many of outputs lie in the second-level cache.
constexpr int64_t tile_queries = 64;
// Positions that are widened or read at once: 32 x 256 floats fill a first-level cache.
constexpr int64_t run_positions = 32;
// Up to so many rows (one token, or a draft to verify) a sequence's pieces are worked on side by
// side, their partial results in the workspace; longer spans have tiles enough.
constexpr int64_t side_by_side_rows = 16;

constexpr size_t alignment = 64;

CacheFormat cache_format(const AttentionShape& shape, const KvCache& cache) {
  switch (cache.dtype) {
    case DType::f32:
      return CacheFormat::f32;
    case DType::bf16:
      return CacheFormat::bf16;
    default:
      QNEXT_CHECK(cache.dtype == DType::q8_0 && shape.head_dim % block_values == 0,
                  "{} cache of heads of {}", dtype_name(cache.dtype), shape.head_dim);
      return CacheFormat::q8_0;
  }
}

// One position of one head.
size_t head_row_bytes(const AttentionShape& shape, DType dtype) {
  return dtype_bytes(dtype, static_cast<size_t>(shape.head_dim));
}

void store_head_row(const AttentionKernels& kernel, CacheFormat format, const float* from,
                    int64_t head_dim, char* to) {
  if (format == CacheFormat::bf16) {
    kernel.narrow(from, head_dim, reinterpret_cast<uint16_t*>(to));
  } else if (format == CacheFormat::q8_0) {
    auto* blocks = reinterpret_cast<BlockQ8_0*>(to);
    for (int64_t d = 0; d < head_dim; d += block_values) encode(from + d, blocks[d / block_values]);
  } else {
    std::memcpy(to, from, static_cast<size_t>(head_dim) * sizeof(float));
  }
}

int64_t pieces_of(int64_t positions) {
  return (positions + attention_split - 1) / attention_split;
}

bool side_by_side(const AttentionSequence& sequence) {
  return sequence.rows <= side_by_side_rows &&
         sequence.first_position + sequence.rows > attention_split;
}

struct Geometry {
  int64_t group = 0;
  int64_t padded = 0;
  int64_t tile_rows = 0;

  explicit Geometry(const AttentionShape& shape)
      : group(shape.query_heads / shape.kv_heads),
        padded((shape.head_dim + attention_pad - 1) / attention_pad * attention_pad),
        tile_rows(std::max<int64_t>(1, tile_queries / group)) {}

  int64_t queries() const { return tile_rows * group; }
  // A worker's queries, piece outputs, whole outputs, scores, states and widened positions.
  int64_t scratch_floats() const {
    return queries() * (3 * padded + attention_block + 4) + run_positions * padded + attention_pad;
  }
  int64_t partial_floats() const { return padded + attention_pad; }
};

// A worker's scratch, cut out of the workspace.
struct Scratch {
  float* q;
  float* piece_out;
  float* whole_out;
  float* scores;
  float* widened;
  AttentionState* piece;
  AttentionState* whole;

  Scratch(const Geometry& geometry, float* memory) {
    const int64_t n = geometry.queries();
    q = memory;
    piece_out = q + n * geometry.padded;
    whole_out = piece_out + n * geometry.padded;
    widened = whole_out + n * geometry.padded;
    scores = widened + run_positions * geometry.padded;
    piece = reinterpret_cast<AttentionState*>(scores + n * attention_block);
    whole = piece + n;
  }
};

// One tile of rows of one sequence and kv head; all pieces in turn, or only `piece` where >= 0.
struct Item {
  const AttentionSequence* sequence;
  int64_t kv_head;
  int64_t first;  // row within the sequence
  int64_t rows;
  int64_t piece;
  float* partials;  // [rows of the sequence, query_heads, pieces, partial_floats]
  int64_t cost;     // positions to read, for starting with the longest
};

class Attention {
 public:
  Attention(const AttentionShape& shape, const KvCache& cache, const AttentionInputs& inputs,
            float* out, int64_t out_stride)
      : shape_(shape),
        geometry_(shape),
        cache_(cache),
        inputs_(inputs),
        out_(out),
        out_stride_(out_stride),
        format_(cache_format(shape, cache)),
        row_bytes_(head_row_bytes(shape, cache.dtype)) {}

  std::vector<Item> plan(std::span<const AttentionSequence> sequences, float* partials) const;
  void run(const Item& item, const Scratch& scratch) const;
  void merge_pieces(const AttentionSequence& sequence, const float* partials, int64_t row,
                    int64_t head, const Scratch& scratch) const;
  const Geometry& geometry() const { return geometry_; }

 private:
  struct Tile {
    const AttentionSequence& sequence;
    int64_t kv_head;
    int64_t first_position;  // of the tile's first row
    int64_t rows;
  };

  void load_queries(const Item& item, const Scratch& scratch) const;
  void run_piece(const Tile& tile, int64_t piece, const Scratch& scratch) const;
  void run_block(const Tile& tile, int64_t block_begin, const Scratch& scratch) const;
  const char* address(const Tile& tile, int64_t position, bool values) const;
  Ahead ahead(const Tile& tile, int64_t position, int64_t count, bool values) const;
  const float* read(const Tile& tile, int64_t position, int64_t count, bool values,
                    float* widened) const;
  void finish(const AttentionSequence& sequence, int64_t row, int64_t head,
              const AttentionState* whole, const float* out) const;

  const AttentionShape& shape_;
  Geometry geometry_;
  const KvCache& cache_;
  const AttentionInputs& inputs_;
  float* out_;
  int64_t out_stride_;
  CacheFormat format_;
  size_t row_bytes_;  // of one position of one head
  const AttentionKernels& kernel_ = *kernels.choose();
};

std::vector<Item> Attention::plan(std::span<const AttentionSequence> sequences,
                                  float* partials) const {
  std::vector<Item> items;
  for (const AttentionSequence& sequence : sequences) {
    const int64_t positions = sequence.first_position + sequence.rows;
    const bool split = side_by_side(sequence);
    const int64_t pieces = split ? pieces_of(positions) : 1;
    for (int64_t first = 0; first < sequence.rows; first += geometry_.tile_rows) {
      const int64_t rows = std::min(geometry_.tile_rows, sequence.rows - first);
      for (int64_t kv_head = 0; kv_head < shape_.kv_heads; ++kv_head)
        for (int64_t piece = 0; piece < pieces; ++piece)
          items.push_back({&sequence, kv_head, first, rows, split ? piece : -1, partials,
                           split ? attention_split : sequence.first_position + first + rows});
    }
    if (split) partials += sequence.rows * shape_.query_heads * pieces * geometry_.partial_floats();
  }
  std::stable_sort(items.begin(), items.end(),
                   [](const Item& a, const Item& b) { return a.cost > b.cost; });
  return items;
}

void Attention::load_queries(const Item& item, const Scratch& scratch) const {
  for (int64_t r = 0; r < item.rows; ++r) {
    const float* row = inputs_.q + (item.sequence->first_row + item.first + r) * inputs_.q_stride;
    for (int64_t h = 0; h < geometry_.group; ++h) {
      float* q = scratch.q + (r * geometry_.group + h) * geometry_.padded;
      std::copy_n(row + (item.kv_head * geometry_.group + h) * inputs_.q_head_stride,
                  shape_.head_dim, q);
      std::fill(q + shape_.head_dim, q + geometry_.padded, 0.0f);
    }
  }
}

void Attention::run(const Item& item, const Scratch& scratch) const {
  const AttentionSequence& sequence = *item.sequence;
  const Tile tile{sequence, item.kv_head, sequence.first_position + item.first, item.rows};
  const int64_t group = geometry_.group;
  const int64_t padded = geometry_.padded;
  load_queries(item, scratch);
  if (item.piece >= 0) {
    run_piece(tile, item.piece, scratch);
    const int64_t pieces = pieces_of(sequence.first_position + sequence.rows);
    for (int64_t m = 0; m < item.rows * group; ++m) {
      const int64_t row = item.first + m / group;
      const int64_t head = item.kv_head * group + m % group;
      float* partial = item.partials + ((row * shape_.query_heads + head) * pieces + item.piece) *
                                           geometry_.partial_floats();
      std::memcpy(partial, scratch.piece + m, sizeof(AttentionState));
      std::copy_n(scratch.piece_out + m * padded, padded, partial + attention_pad);
    }
    return;
  }
  std::fill_n(scratch.whole, item.rows * group,
              AttentionState{-std::numeric_limits<float>::infinity(), 0});
  std::fill_n(scratch.whole_out, item.rows * group * padded, 0.0f);
  for (int64_t piece = 0; piece < pieces_of(tile.first_position + item.rows); ++piece) {
    run_piece(tile, piece, scratch);
    for (int64_t m = 0; m < item.rows * group; ++m)
      if (tile.first_position + m / group >= piece * attention_split)
        kernel_.merge(scratch.piece + m, scratch.piece_out + m * padded, scratch.whole + m,
                      scratch.whole_out + m * padded, padded);
  }
  for (int64_t m = 0; m < item.rows * group; ++m)
    finish(sequence, item.first + m / group, item.kv_head * group + m % group, scratch.whole + m,
           scratch.whole_out + m * padded);
}

void Attention::run_piece(const Tile& tile, int64_t piece, const Scratch& scratch) const {
  const int64_t queries = tile.rows * geometry_.group;
  std::fill_n(scratch.piece, queries, AttentionState{-std::numeric_limits<float>::infinity(), 0});
  std::fill_n(scratch.piece_out, queries * geometry_.padded, 0.0f);
  const int64_t begin = piece * attention_split;
  const int64_t end = std::min(begin + attention_split, tile.first_position + tile.rows);
  for (int64_t block = begin; block < end; block += attention_block)
    run_block(tile, block, scratch);
}

// Positions [block_begin, block_begin + attention_block), as far as the tile's rows see them.
void Attention::run_block(const Tile& tile, int64_t block_begin, const Scratch& scratch) const {
  const int64_t group = geometry_.group;
  const int64_t padded = geometry_.padded;
  // Positions of this block that row r may read; grows by one a row.
  const auto valid = [&](int64_t r) {
    return std::clamp<int64_t>(tile.first_position + r + 1 - block_begin, 0, attention_block);
  };
  const int64_t positions = valid(tile.rows - 1);
  int64_t first = 0;  // row that sees anything of the block
  while (valid(first) == 0) ++first;
  for (int64_t j = 0; j < positions; j += run_positions) {
    const int64_t count = std::min(run_positions, positions - j);
    const float* keys = read(tile, block_begin + j, count, false, scratch.widened);
    kernel_.scores(scratch.q + first * group * padded, (tile.rows - first) * group, keys, count,
                   padded, inputs_.scale, scratch.scores + first * group * attention_block + j,
                   attention_block, ahead(tile, block_begin + j, count, true));
  }
  for (int64_t m = first * group; m < tile.rows * group; ++m)
    kernel_.soften(scratch.scores + m * attention_block, valid(m / group), scratch.piece + m,
                   scratch.piece_out + m * padded, padded);
  for (int64_t j = 0; j < positions; j += run_positions) {
    const int64_t count = std::min(run_positions, positions - j);
    const float* values = read(tile, block_begin + j, count, true, scratch.widened);
    const auto add = [&](int64_t row, int64_t rows, int64_t seen, Ahead next) {
      kernel_.add_values(scratch.scores + row * group * attention_block + j, attention_block,
                         rows * group, values, seen, padded,
                         scratch.piece_out + row * group * padded, next);
    };
    // Rows that see only part of this run are alone with it: a position behind a row, even with
    // probability zero, would spoil the row if its value were not finite.
    int64_t row = first;
    for (; row < tile.rows && valid(row) < j + count; ++row)
      if (valid(row) > j) add(row, 1, valid(row) - j, {});
    if (row < tile.rows)
      add(row, tile.rows - row, count,
          ahead(tile, block_begin + attention_block + j, count, false));
  }
}

const char* Attention::address(const Tile& tile, int64_t position, bool values) const {
  const int64_t page = tile.sequence.pages[position / shape_.page_tokens];
  const int64_t part = values ? shape_.kv_heads + tile.kv_head : tile.kv_head;
  const int64_t row = part * shape_.page_tokens + position % shape_.page_tokens;
  return static_cast<const char*>(cache_.base) + page * cache_.page_stride_bytes +
         static_cast<size_t>(row) * row_bytes_;
}

// What of these positions lies together; nothing where the sequence ends before them.
Ahead Attention::ahead(const Tile& tile, int64_t position, int64_t count, bool values) const {
  if (position >= tile.first_position + tile.rows) return {};
  const int64_t together = std::min(count, shape_.page_tokens - position % shape_.page_tokens);
  return {address(tile, position, values), together * static_cast<int64_t>(row_bytes_)};
}

// `count` positions from `position` on as padded fp32 rows: in the cache itself where they lie
// there in that form, else in `widened`.
const float* Attention::read(const Tile& tile, int64_t position, int64_t count, bool values,
                             float* widened) const {
  const int64_t in_page = shape_.page_tokens - position % shape_.page_tokens;
  if (format_ == CacheFormat::f32 && shape_.head_dim == geometry_.padded && in_page >= count)
    return reinterpret_cast<const float*>(address(tile, position, values));
  for (int64_t done = 0; done < count;) {
    const int64_t n =
        std::min(count - done, shape_.page_tokens - (position + done) % shape_.page_tokens);
    kernel_.widen(address(tile, position + done, values), format_, n, shape_.head_dim,
                  geometry_.padded, widened + done * geometry_.padded);
    done += n;
  }
  return widened;
}

void Attention::finish(const AttentionSequence& sequence, int64_t row, int64_t head,
                       const AttentionState* whole, const float* out) const {
  const int64_t r = sequence.first_row + row;
  const float* gate = inputs_.gate == nullptr ? nullptr
                                              : inputs_.gate + r * inputs_.gate_stride +
                                                    head * inputs_.gate_head_stride;
  kernel_.finish(whole, out, gate, shape_.head_dim,
                 out_ + r * out_stride_ + head * shape_.head_dim);
}

void Attention::merge_pieces(const AttentionSequence& sequence, const float* partials, int64_t row,
                             int64_t head, const Scratch& scratch) const {
  const int64_t pieces = pieces_of(sequence.first_position + sequence.rows);
  const float* partial =
      partials + (row * shape_.query_heads + head) * pieces * geometry_.partial_floats();
  AttentionState whole{-std::numeric_limits<float>::infinity(), 0};
  std::fill_n(scratch.whole_out, geometry_.padded, 0.0f);
  for (int64_t piece = 0; piece < pieces_of(sequence.first_position + row + 1); ++piece) {
    AttentionState state;
    std::memcpy(&state, partial, sizeof state);
    kernel_.merge(&state, partial + attention_pad, &whole, scratch.whole_out, geometry_.padded);
    partial += geometry_.partial_floats();
  }
  finish(sequence, row, head, &whole, scratch.whole_out);
}

float* aligned(void* memory) {
  const auto address = reinterpret_cast<uintptr_t>(memory);
  return reinterpret_cast<float*>((address + alignment - 1) / alignment * alignment);
}

}  // namespace

size_t kv_page_bytes(const AttentionShape& shape, DType dtype) {
  return static_cast<size_t>(2 * shape.kv_heads * shape.page_tokens) * head_row_bytes(shape, dtype);
}

void kv_write(ThreadPool& pool, const AttentionShape& shape, const KvCache& cache,
              const float* keys, const float* values, int64_t row_stride,
              std::span<const AttentionSequence> sequences) {
  const AttentionKernels& kernel = *kernels.choose();
  const CacheFormat format = cache_format(shape, cache);
  const size_t row_bytes = head_row_bytes(shape, cache.dtype);
  const size_t head_bytes = static_cast<size_t>(shape.page_tokens) * row_bytes;
  for (const AttentionSequence& sequence : sequences) {
    pool.parallel_for(sequence.rows, 16, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        const int64_t position = sequence.first_position + r;
        char* page = static_cast<char*>(cache.base) +
                     sequence.pages[position / shape.page_tokens] * cache.page_stride_bytes;
        for (int64_t part = 0; part < 2 * shape.kv_heads; ++part) {
          const float* from = part < shape.kv_heads ? keys : values;
          from += (sequence.first_row + r) * row_stride + part % shape.kv_heads * shape.head_dim;
          char* to = page + static_cast<size_t>(part) * head_bytes +
                     static_cast<size_t>(position % shape.page_tokens) * row_bytes;
          store_head_row(kernel, format, from, shape.head_dim, to);
        }
      }
    });
  }
}

size_t attention_workspace(const AttentionShape& shape,
                           std::span<const AttentionSequence> sequences, int threads) {
  const Geometry geometry(shape);
  int64_t floats = threads * geometry.scratch_floats();
  for (const AttentionSequence& sequence : sequences)
    if (side_by_side(sequence))
      floats += sequence.rows * shape.query_heads *
                pieces_of(sequence.first_position + sequence.rows) * geometry.partial_floats();
  return static_cast<size_t>(floats) * sizeof(float) + alignment;
}

void attention(ThreadPool& pool, const AttentionShape& shape, const KvCache& cache,
               const AttentionInputs& inputs, std::span<const AttentionSequence> sequences,
               float* out, int64_t out_stride, void* workspace) {
  QNEXT_CHECK(attention_split % shape.page_tokens == 0, "pages of {} tokens", shape.page_tokens);
  const Attention job(shape, cache, inputs, out, out_stride);
  float* scratch = aligned(workspace);
  const int64_t scratch_floats = job.geometry().scratch_floats() / attention_pad * attention_pad;
  float* partials = scratch + pool.size() * scratch_floats;
  const std::vector<Item> items = job.plan(sequences, partials);
  std::atomic<size_t> next{0};
  pool.run([&](int worker) {
    const Scratch mine(job.geometry(), scratch + worker * scratch_floats);
    for (size_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < items.size();)
      job.run(items[i], mine);
  });
  // The partial results of the sequences that were worked on piece by piece.
  for (const AttentionSequence& sequence : sequences) {
    if (!side_by_side(sequence)) continue;
    next = 0;
    const size_t heads = static_cast<size_t>(sequence.rows * shape.query_heads);
    pool.run([&](int worker) {
      const Scratch mine(job.geometry(), scratch + worker * scratch_floats);
      for (size_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < heads;)
        job.merge_pieces(sequence, partials, static_cast<int64_t>(i) / shape.query_heads,
                         static_cast<int64_t>(i) % shape.query_heads, mine);
    });
    partials += static_cast<int64_t>(heads) * pieces_of(sequence.first_position + sequence.rows) *
                job.geometry().partial_floats();
  }
}

}  // namespace qnext::ops
