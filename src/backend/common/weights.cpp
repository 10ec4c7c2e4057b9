#include "backend/common/weights.h"

#include <algorithm>
#include <cstring>
#include <mutex>
#include <tuple>

#include "base/error.h"
#include "checkpoint/finite.h"
#include "model/weight_schema.h"

namespace qnext::backend {

DType held_dtype(const StoredTensor& matrix, bool quantizable, std::optional<DType> quantize) {
  if (quantizable && quantize && is_block_quantized(*quantize))
    for (const DType format : {*quantize, DType::q8_0})
      if (ops::can_pack(format, matrix.shape[1])) return format;
  if (std::ranges::none_of(matrix.stored_types(), is_block_quantized)) return matrix.dtype;
  if (!quantizable) return DType::f32;
  return ops::can_pack(matrix.dtype, matrix.shape[1]) ? matrix.dtype : DType::q8_0;
}

// Walks the model once to point every matrix at its tensor, then reads all bytes in file order:
// checks that they are finite, and packs what is to be quantised, widens or gathers what kernels do
// not read where it lies, or copies to a store.
class WeightBinder {
 public:
  WeightBinder(const Checkpoint& checkpoint, const Config& config,
               const ResidentWeights::Options& options, ResidentWeights& weights)
      : checkpoint_(checkpoint), config_(config), options_(options), weights_(weights) {}

  void bind_model() {
    ModelWeights& model = weights_.model_;
    const StoredTensor& embedding = checkpoint_.get("model.embed_tokens.weight");
    model.embedding = matrix(embedding);
    use_as_stored(model.embedding, embedding);
    model.norm = vector("model.norm.weight");
    model.layers.resize(config_.layers.size());
    for (size_t i = 0; i < model.layers.size(); ++i)
      bind_layer(fmt::format("model.layers.{}", i), config_.layers[i], model.layers[i]);
    bind_lm_head(model);
    if (options_.load_mtp && config_.mtp_layers > 0 && checkpoint_.find("mtp.fc.weight"))
      bind_mtp(model.mtp.emplace());
  }

  void load(ThreadPool& pool) {
    place_in_arena();
    place_in_store();
    std::ranges::stable_sort(jobs_, [](const Job& a, const Job& b) {
      return std::tuple(a.tensor->file, a.tensor->offset, a.first_row) <
             std::tuple(b.tensor->file, b.tensor->offset, b.first_row);
    });
    size_t total = 0;
    for (const Job& job : jobs_) total += job.bytes();
    std::mutex mutex;
    size_t done = 0;
    pool.parallel_try(static_cast<int64_t>(jobs_.size()), 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        run(jobs_[static_cast<size_t>(i)]);
        const std::lock_guard lock(mutex);
        done += jobs_[static_cast<size_t>(i)].bytes();
        if (options_.progress) options_.progress(done, total);
      }
    });
    weights_.arena_.collapse();
  }

 private:
  // A run of rows of one tensor. Small enough that threads share the large matrices.
  struct Job {
    const StoredTensor* tensor = nullptr;
    int64_t first_row = 0;
    ops::WeightMatrix source;  // the rows; no data where they are yet to be gathered
    DType held = DType::f32;   // what becomes of them
    std::byte* to = nullptr;   // where they go; null: they stay where they are
    bool to_store = false;
    size_t bytes() const {
      return static_cast<size_t>(static_cast<double>(tensor->bytes) *
                                 static_cast<double>(source.rows) /
                                 static_cast<double>(tensor->shape[0]));
    }
  };
  struct Placed {
    ops::WeightMatrix* target = nullptr;
    const StoredTensor* tensor = nullptr;
    DType held = DType::f32;
  };

  // --- binding -------------------------------------------------------------------------------

  ops::WeightMatrix matrix(const StoredTensor& tensor) {
    ops::WeightMatrix view{tensor.dtype, tensor.shape[0], tensor.shape[1], tensor.data, nullptr};
    if (tensor.dtype == DType::f8_e4m3)
      view.block_scales = vector(fp8_scale_name(tensor.name)).data();
    return view;
  }

  // Small tensors are checked, widened and copied on the spot.
  Vector vector(const std::string& name) {
    const StoredTensor& tensor = checkpoint_.get(name);
    check_finite(tensor);
    std::vector<float> values = widened(tensor);
    weights_.bytes_ += values.size() * sizeof(float);
    if (options_.store) return options_.store->keep(values);
    return weights_.vectors_.emplace_back(std::move(values));
  }

  void bind_matrix(const std::string& name, ops::WeightMatrix& target, bool quantizable = true) {
    const StoredTensor& tensor = checkpoint_.get(name);
    target = matrix(tensor);
    const DType held = held_dtype(tensor, quantizable, options_.quantize);
    if (held == tensor.dtype && !is_block_quantized(held) && tensor.runs.empty())
      use_as_stored(target, tensor);
    else
      made_.push_back({&target, &tensor, held});
  }

  void bind_lm_head(ModelWeights& model) {
    if (!config_.tie_word_embeddings)
      bind_matrix("lm_head.weight", model.lm_head);
    else if (options_.quantize || is_block_quantized(model.embedding.dtype))
      bind_matrix("model.embed_tokens.weight", model.lm_head);
    else
      model.lm_head = model.embedding;
  }

  void bind(const std::string& name, Linear& linear, bool quantizable = true) {
    bind_matrix(name + ".weight", linear.weight, quantizable);
    if (config_.attention_bias && checkpoint_.find(name + ".bias"))
      linear.bias = vector(name + ".bias");
  }

  void bind_expert(const std::string& prefix, ops::GatedExpert& expert) {
    bind_matrix(prefix + ".gate_proj.weight", expert.gate);
    bind_matrix(prefix + ".up_proj.weight", expert.up);
    bind_matrix(prefix + ".down_proj.weight", expert.down);
  }

  void bind_layer(const std::string& prefix, LayerKind kind, LayerWeights& layer) {
    layer.input_norm = vector(prefix + ".input_layernorm.weight");
    layer.post_attention_norm = vector(prefix + ".post_attention_layernorm.weight");
    if (kind.mixer == Mixer::full_attention)
      bind_attention(prefix + ".self_attn", layer.mixer.emplace<AttentionWeights>());
    else
      bind_gated_delta(prefix + ".linear_attn", layer.mixer.emplace<GatedDeltaWeights>());
    bind_mlp(prefix + ".mlp", kind.mlp, layer.mlp);
  }

  void bind_attention(const std::string& prefix, AttentionWeights& attention) {
    bind(prefix + ".q_proj", attention.q);
    bind(prefix + ".k_proj", attention.k);
    bind(prefix + ".v_proj", attention.v);
    bind(prefix + ".o_proj", attention.o);
    attention.q_norm = vector(prefix + ".q_norm.weight");
    attention.k_norm = vector(prefix + ".k_norm.weight");
  }

  void bind_gated_delta(const std::string& prefix, GatedDeltaWeights& delta) {
    bind(prefix + ".in_proj_qkvz", delta.qkvz);
    bind(prefix + ".in_proj_ba", delta.ba, false);
    bind(prefix + ".out_proj", delta.out);
    delta.conv = vector(prefix + ".conv1d.weight");
    delta.a_log = vector(prefix + ".A_log");
    delta.dt_bias = vector(prefix + ".dt_bias");
    delta.norm = vector(prefix + ".norm.weight");
  }

  void bind_mlp(const std::string& prefix, Mlp kind, MlpWeights& mlp) {
    if (kind == Mlp::dense) {
      mlp.experts.resize(1);
      bind_expert(prefix, mlp.experts[0]);
      return;
    }
    const bool shared = config_.shared_expert_width > 0;
    const auto routed = static_cast<size_t>(config_.experts);
    bind(prefix + ".gate", mlp.router.emplace(), false);
    mlp.experts.resize(routed + (shared ? 1 : 0));
    for (size_t e = 0; e < routed; ++e)
      bind_expert(fmt::format("{}.experts.{}", prefix, e), mlp.experts[e]);
    if (shared) {
      bind_expert(prefix + ".shared_expert", mlp.experts[routed]);
      bind(prefix + ".shared_expert_gate", mlp.shared_gate.emplace(), false);
    }
  }

  void bind_mtp(MtpWeights& mtp) {
    mtp.embedding_norm = vector("mtp.pre_fc_norm_embedding.weight");
    mtp.hidden_norm = vector("mtp.pre_fc_norm_hidden.weight");
    bind("mtp.fc", mtp.fc);
    bind_layer("mtp.layers.0", {Mixer::full_attention, Mlp::sparse}, mtp.layer);
    mtp.norm = vector("mtp.norm.weight");
  }

  // --- reading -------------------------------------------------------------------------------

  // A matrix of the checkpoint, cut into runs of whole FP8 scale blocks of about 4 MB. `source` is
  // the whole of it, `to` where its first row goes, held in rows or panels of `held`.
  void add_jobs(const ops::WeightMatrix& source, const StoredTensor& tensor, DType held,
                std::byte* to, bool to_store) {
    const size_t row_bytes = dtype_bytes(source.dtype, static_cast<size_t>(source.columns));
    const int64_t blocks = static_cast<int64_t>((size_t{4} << 20) / (row_bytes * 128));
    const int64_t run = std::max<int64_t>(1, blocks) * 128;
    const int64_t scale_columns = (source.columns + 127) / 128;
    for (int64_t row = 0; row < source.rows; row += run) {
      Job job;
      job.tensor = &tensor;
      job.first_row = row;
      job.held = held;
      job.to_store = to_store;
      job.source = source;
      job.source.rows = std::min(run, source.rows - row);
      if (source.data)
        job.source.data =
            static_cast<const std::byte*>(source.data) + static_cast<size_t>(row) * row_bytes;
      if (source.block_scales) job.source.block_scales += row / 128 * scale_columns;
      if (to) job.to = to + held_bytes(held, row, source.columns);
      jobs_.push_back(job);
    }
  }

  // Of so many rows in the arena or the store: panels of blocks, rows of all else.
  static size_t held_bytes(DType held, int64_t rows, int64_t columns) {
    return ops::weight_bytes({held, rows, columns, nullptr, nullptr});
  }

  void use_as_stored(ops::WeightMatrix& view, const StoredTensor& tensor) {
    weights_.bytes_ += tensor.bytes;
    if (options_.store)
      copied_.push_back({&view, &tensor, tensor.dtype});
    else
      add_jobs(view, tensor, tensor.dtype, nullptr, false);
  }

  // Places in a room, each on its own alignment, in the order of binding.
  static std::vector<size_t> offsets_of(const std::vector<Placed>& placed, size_t alignment,
                                        size_t& size) {
    std::vector<size_t> offsets;
    size = 0;
    for (const Placed& one : placed) {
      offsets.push_back(size);
      const size_t bytes = held_bytes(one.held, one.target->rows, one.target->columns);
      size += (bytes + alignment - 1) / alignment * alignment;
    }
    return offsets;
  }

  void place(const std::vector<Placed>& placed, const std::vector<size_t>& offsets, std::byte* room,
             bool in_store) {
    for (size_t i = 0; i < placed.size(); ++i) {
      const Placed& one = placed[i];
      const ops::WeightMatrix source = *one.target;
      std::byte* to = room + offsets[i];
      add_jobs(source, *one.tensor, one.held, to, in_store);
      *one.target = {one.held, source.rows, source.columns, to,
                     one.held == source.dtype ? source.block_scales : nullptr};
    }
  }

  void place_in_store() {
    if (!options_.store) return;
    size_t size = 0;
    const std::vector<size_t> offsets = offsets_of(copied_, 256, size);
    place(copied_, offsets, options_.store->reserve(size), true);
    if (config_.tie_word_embeddings) weights_.model_.lm_head = weights_.model_.embedding;
  }

  void place_in_arena() {
    size_t size = 0;
    const std::vector<size_t> offsets = offsets_of(made_, 64, size);
    weights_.arena_ = AlignedBuffer(size, "quantised weights; use a smaller format or model");
    weights_.bytes_ += size;
    place(made_, offsets, weights_.arena_.data(), false);
  }

  void run(const Job& job) const {
    std::vector<std::byte> gathered;
    ops::WeightMatrix source = job.source;
    if (!source.data) source.data = rows_of(*job.tensor, job.first_row, source.rows, gathered);
    const auto* rows = static_cast<const std::byte*>(source.data);
    const auto count = static_cast<size_t>(source.rows * source.columns);
    check_finite(*job.tensor, rows, static_cast<size_t>(job.first_row * source.columns), count);
    if (!job.to) return;
    if (job.to_store)
      options_.store->write(job.to, rows, dtype_bytes(source.dtype, count));
    else if (is_block_quantized(job.held))
      ops::pack_weights(source, job.held, job.to);
    else if (job.held == source.dtype)
      std::memcpy(job.to, rows, dtype_bytes(source.dtype, count));
    else
      convert_to_float(source.dtype, rows, reinterpret_cast<float*>(job.to), count);
    checkpoint_.dont_need(*job.tensor);
  }

  const Checkpoint& checkpoint_;
  const Config& config_;
  const ResidentWeights::Options& options_;
  ResidentWeights& weights_;
  std::vector<Placed> made_;    // in the arena
  std::vector<Placed> copied_;  // to the store
  std::vector<Job> jobs_;
};

ResidentWeights::ResidentWeights(const Checkpoint& checkpoint, const Config& config,
                                 const Options& options, ThreadPool& pool) {
  WeightBinder binder(checkpoint, config, options, *this);
  binder.bind_model();
  binder.load(pool);
}

}  // namespace qnext::backend
