#include "backend/cuda/packed_loader.h"

#include <algorithm>
#include <mutex>
#include <tuple>

#include "backend/common/carver.h"
#include "backend/cuda/pack_stage.h"
#include "base/error.h"
#include "checkpoint/finite.h"

namespace qnext::backend::cuda {

namespace {

using ops::cuda::PackedExperts;
using ops::cuda::PackedFormat;
using ops::cuda::Placement;

// A tensor and the strips that it fills.
struct PackJob {
  const StoredTensor* tensor = nullptr;
  const float* block_scales = nullptr;  // on the host
  Placement placement = Placement::whole;
  PackedMatrix matrix;
};

// Walks the model's names. Without memory it only adds up sizes; with it every matrix gets its
// place and a job.
class PackedBinder {
 public:
  PackedBinder(const WeightSource& source, const Config& config, const PackedLoadOptions& options,
               std::byte* memory, DeviceStore& store)
      : source_(source),
        config_(config),
        options_(options),
        placing_(memory != nullptr),
        carver_(memory),
        store_(store) {}

  void bind(PackedModel& model) {
    bind_embedding(model);
    model.norm = vector("model.norm.weight");
    model.layers.resize(config_.layers.size());
    for (size_t i = 0; i < model.layers.size(); ++i)
      bind_layer(fmt::format("model.layers.{}", i), config_.layers[i], model.layers[i]);
    const bool tied = config_.tie_word_embeddings;
    const std::string lm_head = tied ? "model.embed_tokens" : "lm_head";
    model.lm_head = matrix(lm_head);
    if (options_.load_mtp && config_.mtp_layers > 0 && source_.find("mtp.fc.weight")) {
      bind_mtp(model.mtp.emplace());
      model.mtp->draft_head = draft_head(lm_head, model.lm_head);
    }
  }

  size_t bytes() const { return carver_.used() + vector_bytes_; }
  size_t matrix_bytes() const { return carver_.used(); }
  std::vector<PackJob>& jobs() { return jobs_; }
  const StoredTensor& embedding() const { return source_.get("model.embed_tokens.weight"); }

 private:
  Vector vector(const std::string& name) {
    const size_t count = static_cast<size_t>(source_.get(name).elements());
    vector_bytes_ += count * sizeof(float);
    return placing_ ? store_.keep(source_.vector(name)) : Vector{};
  }

  // As stored, for look-ups.
  void bind_embedding(PackedModel& model) {
    const StoredTensor& tensor = embedding();
    if (tensor.dtype == DType::f8_e4m3)
      fail("{} is stored in FP8, which a look-up table cannot be; use --device cpu", tensor.name);
    std::byte* place = nullptr;
    carver_.take_bytes(place, dtype_bytes(tensor.dtype, static_cast<size_t>(tensor.elements())));
    model.embedding = {tensor.dtype, tensor.shape[0], tensor.shape[1], place, nullptr};
  }

  PackedFormat format_of(const StoredTensor& tensor, bool quantizable) const {
    if (quantizable && options_.quantize == DType::q4_0) return PackedFormat::q4;
    if (quantizable && options_.quantize == DType::f8_e4m3) return PackedFormat::f8;
    return tensor.dtype == DType::f8_e4m3 ? PackedFormat::f8 : PackedFormat::bf16;
  }

  PackedMatrix place(PackedFormat format, int64_t rows, int64_t columns, int64_t copies = 1) {
    PackedMatrix out{format, rows, columns, nullptr, nullptr};
    std::byte* tiles = nullptr;
    float* scales = nullptr;
    carver_.take_bytes(tiles, static_cast<size_t>(copies * out.bytes()));
    carver_.take(scales, copies * out.scale_count());
    out.tiles = tiles;
    if (copies * out.scale_count() > 0) out.scales = scales;
    return out;
  }

  void add_job(const std::string& name, Placement placement, const PackedMatrix& matrix) {
    if (!placing_) return;
    const StoredTensor& tensor = source_.get(name);
    PackJob job{&tensor, nullptr, placement, matrix};
    if (tensor.dtype == DType::f8_e4m3)
      job.block_scales = scales_.emplace_back(source_.vector(name + "_scale_inv")).data();
    jobs_.push_back(job);
  }

  PackedMatrix matrix(const std::string& prefix, bool quantizable = true) {
    const std::string name = prefix + ".weight";
    const StoredTensor& tensor = source_.get(name);
    const PackedMatrix out =
        place(format_of(tensor, quantizable), tensor.shape[0], tensor.shape[1]);
    add_job(name, Placement::whole, out);
    return out;
  }

  void bind_layer(const std::string& prefix, LayerKind kind, PackedLayer& layer) {
    layer.input_norm = vector(prefix + ".input_layernorm.weight");
    layer.post_attention_norm = vector(prefix + ".post_attention_layernorm.weight");
    if (kind.mixer == Mixer::full_attention)
      bind_attention(prefix + ".self_attn", layer.mixer.emplace<PackedAttention>());
    else
      bind_delta(prefix + ".linear_attn", layer.mixer.emplace<PackedDelta>());
    bind_mlp(prefix + ".mlp", kind.mlp, layer.mlp);
  }

  void bind_attention(const std::string& prefix, PackedAttention& attention) {
    attention.q = matrix(prefix + ".q_proj");
    attention.k = matrix(prefix + ".k_proj");
    attention.v = matrix(prefix + ".v_proj");
    attention.o = matrix(prefix + ".o_proj");
    attention.q_norm = vector(prefix + ".q_norm.weight");
    attention.k_norm = vector(prefix + ".k_norm.weight");
  }

  void bind_delta(const std::string& prefix, PackedDelta& delta) {
    delta.qkvz = matrix(prefix + ".in_proj_qkvz");
    delta.ba = matrix(prefix + ".in_proj_ba", false);
    delta.out = matrix(prefix + ".out_proj");
    delta.conv = vector(prefix + ".conv1d.weight");
    delta.a_log = vector(prefix + ".A_log");
    delta.dt_bias = vector(prefix + ".dt_bias");
    delta.norm = vector(prefix + ".norm.weight");
  }

  void bind_mlp(const std::string& prefix, Mlp kind, PackedMlp& mlp) {
    if (kind == Mlp::dense) {
      bind_experts({prefix}, config_.dense_width, mlp.experts);
      return;
    }
    std::vector<std::string> names;
    for (int64_t e = 0; e < config_.experts; ++e)
      names.push_back(fmt::format("{}.experts.{}", prefix, e));
    mlp.router = matrix(prefix + ".gate", false);
    if (config_.shared_expert_width > 0) {
      names.push_back(prefix + ".shared_expert");
      mlp.shared_gate = matrix(prefix + ".shared_expert_gate", false);
    }
    bind_experts(names, std::max(config_.expert_width, config_.shared_expert_width), mlp.experts);
  }

  // One after another, all as wide as the widest; one is f8 only if all are.
  void bind_experts(const std::vector<std::string>& names, int64_t width, PackedExperts& experts) {
    PackedFormat format = PackedFormat::f8;
    for (const std::string& name : names) {
      const PackedFormat own = format_of(source_.get(name + ".gate_proj.weight"), true);
      if (own != PackedFormat::f8) format = own;
    }
    const auto count = static_cast<int64_t>(names.size());
    experts.format = format;
    experts.experts = count;
    experts.hidden = config_.hidden_size;
    experts.width = width;
    const PackedMatrix gate_up = place(format, experts.gate_up_rows(), config_.hidden_size, count);
    const PackedMatrix down = place(format, config_.hidden_size, width, count);
    experts.gate_up_tiles = gate_up.tiles;
    experts.gate_up_scales = gate_up.scales;
    experts.down_tiles = down.tiles;
    experts.down_scales = down.scales;
    for (int64_t e = 0; e < count; ++e) {
      const std::string& name = names[static_cast<size_t>(e)];
      add_job(name + ".gate_proj.weight", Placement::upper, experts.gate_up(e));
      add_job(name + ".up_proj.weight", Placement::lower, experts.gate_up(e));
      add_job(name + ".down_proj.weight", Placement::whole, experts.down(e));
    }
  }

  void bind_mtp(PackedMtp& mtp) {
    mtp.embedding_norm = vector("mtp.pre_fc_norm_embedding.weight");
    mtp.hidden_norm = vector("mtp.pre_fc_norm_hidden.weight");
    mtp.fc = matrix("mtp.fc");
    bind_layer("mtp.layers.0", config_.mtp_layer(), mtp.layer);
    mtp.norm = vector("mtp.norm.weight");
  }

  // Itself where it has 4 bits already, else packed once more.
  PackedMatrix draft_head(const std::string& prefix, const PackedMatrix& lm_head) {
    if (lm_head.format == PackedFormat::q4) return lm_head;
    const PackedMatrix out = place(PackedFormat::q4, lm_head.rows, lm_head.columns);
    add_job(prefix + ".weight", Placement::whole, out);
    return out;
  }

  const WeightSource& source_;
  const Config& config_;
  const PackedLoadOptions& options_;
  const bool placing_;
  Carver carver_;
  DeviceStore& store_;
  size_t vector_bytes_ = 0;
  std::deque<std::vector<float>> scales_;
  std::vector<PackJob> jobs_;
};

// --- filling ---------------------------------------------------------------------------------

// Rows of a tensor that pass through the stage at once: whole blocks of f8 scales.
int64_t piece_rows(const StoredTensor& tensor) {
  const size_t row = dtype_bytes(tensor.dtype, static_cast<size_t>(tensor.shape[1]));
  const auto rows = static_cast<int64_t>(PackStage::piece_bytes / row) / 128 * 128;
  if (rows == 0)
    fail("{} has rows of {} bytes, which are too long to be loaded; use --device cpu", tensor.name,
         row);
  return rows;
}

class Filler {
 public:
  Filler(const WeightSource& source, const Progress& progress, DeviceStore& store, ThreadPool& pool)
      : source_(source), progress_(progress), store_(store), pool_(pool) {}

  void fill(std::vector<PackJob>& jobs, const StoredTensor& embedding, std::byte* table) {
    std::ranges::stable_sort(jobs, [](const PackJob& a, const PackJob& b) {
      return std::tuple(a.tensor->file, a.tensor->offset) <
             std::tuple(b.tensor->file, b.tensor->offset);
    });
    for (const PackJob& job : jobs) total_ += bytes_of(*job.tensor);
    total_ += bytes_of(embedding);
    each_piece(embedding,
               [&](int64_t first, int64_t rows) { fill_table(embedding, first, rows, table); });
    pool_.parallel_try(static_cast<int64_t>(jobs.size()), 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) fill(jobs[static_cast<size_t>(i)]);
    });
    stage_.finish();
  }

 private:
  static size_t bytes_of(const StoredTensor& tensor) {
    return dtype_bytes(tensor.dtype, static_cast<size_t>(tensor.elements()));
  }

  void advance(size_t bytes) {
    const std::lock_guard lock(mutex_);
    done_ += bytes;
    if (progress_) progress_(done_, total_);
  }

  template <typename Work>
  void each_piece(const StoredTensor& tensor, Work&& work) {
    const int64_t run = piece_rows(tensor);
    const int64_t pieces = (tensor.shape[0] + run - 1) / run;
    pool_.parallel_try(pieces, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) work(i * run, std::min(run, tensor.shape[0] - i * run));
    });
    source_.done_with(tensor);
  }

  void fill_table(const StoredTensor& tensor, int64_t first, int64_t rows, std::byte* table) {
    const auto begin = static_cast<size_t>(first * tensor.shape[1]);
    const auto count = static_cast<size_t>(rows * tensor.shape[1]);
    const size_t offset = dtype_bytes(tensor.dtype, begin);
    const size_t bytes = dtype_bytes(tensor.dtype, count);
    if (source_.random()) {
      std::vector<std::byte> values(bytes);
      source_.fill(tensor, begin, count, values.data());
      store_.write(table + offset, values.data(), bytes);
    } else {
      check_finite(tensor, begin, count);
      store_.write(table + offset, tensor.data + offset, bytes);
    }
    advance(bytes);
  }

  void fill(const PackJob& job) {
    const StoredTensor& tensor = *job.tensor;
    if (source_.random()) {
      // Gate and up share a matrix, which is filled as one.
      if (job.placement != Placement::lower)
        ops::cuda::fill_random(stage_.stream().get(), job.matrix, source_.deviation(tensor.name),
                               reinterpret_cast<uintptr_t>(job.matrix.tiles));
      advance(bytes_of(tensor));
      return;
    }
    const int64_t run = piece_rows(tensor), columns = tensor.shape[1];
    const int64_t strip_rows =
        job.placement == Placement::whole ? ops::cuda::tile_rows : ops::cuda::tile_rows / 2;
    for (int64_t first = 0; first < tensor.shape[0]; first += run) {
      const int64_t rows = std::min(run, tensor.shape[0] - first);
      const auto begin = static_cast<size_t>(first * columns);
      const auto count = static_cast<size_t>(rows * columns);
      check_finite(tensor, begin, count);
      const ops::WeightMatrix piece{
          tensor.dtype, rows, columns, tensor.data + dtype_bytes(tensor.dtype, begin),
          job.block_scales ? job.block_scales + first / 128 * ((columns + 127) / 128) : nullptr};
      stage_.pack(piece, job.placement, job.matrix, first / strip_rows);
      advance(dtype_bytes(tensor.dtype, count));
    }
    source_.done_with(tensor);
  }

  const WeightSource& source_;
  const Progress& progress_;
  DeviceStore& store_;
  ThreadPool& pool_;
  PackStage stage_;
  std::mutex mutex_;
  size_t done_ = 0;
  size_t total_ = 0;
};

}  // namespace

PackedModel load_packed(const WeightSource& source, const Config& config,
                        const PackedLoadOptions& options, DeviceStore& store, ThreadPool& pool) {
  PackedModel model;
  PackedBinder sizes(source, config, options, nullptr, store);
  sizes.bind(model);
  model = {};
  std::byte* memory = store.reserve(sizes.matrix_bytes());
  // Padding is zero in every format: what the jobs do not write contributes nothing.
  zero_now(memory, sizes.matrix_bytes());
  PackedBinder binder(source, config, options, memory, store);
  binder.bind(model);
  model.bytes = binder.bytes();
  Filler filler(source, options.progress, store, pool);
  filler.fill(binder.jobs(), binder.embedding(),
              const_cast<std::byte*>(static_cast<const std::byte*>(model.embedding.data)));
  return model;
}

}  // namespace qnext::backend::cuda
