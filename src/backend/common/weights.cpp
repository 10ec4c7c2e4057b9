#include "backend/common/weights.h"

#include <algorithm>
#include <exception>
#include <mutex>
#include <tuple>

#include "base/error.h"
#include "checkpoint/finite.h"

namespace qnext::backend {

// Walks the model once to point every matrix at its tensor, then reads all bytes in file order:
// checks that they are finite, and packs what is to be quantised or copies it to a store.
class WeightBinder {
 public:
  WeightBinder(const Checkpoint& checkpoint, const Config& config,
               const ResidentWeights::Options& options, ResidentWeights& weights)
      : checkpoint_(checkpoint), config_(config), options_(options), weights_(weights) {}

  void bind_model() {
    ModelWeights& model = weights_.model_;
    model.embedding = matrix("model.embed_tokens.weight");
    use_as_stored(model.embedding, checkpoint_.get("model.embed_tokens.weight"));
    model.norm = vector("model.norm.weight");
    model.layers.resize(config_.layers.size());
    for (size_t i = 0; i < model.layers.size(); ++i)
      bind_layer(fmt::format("model.layers.{}", i), config_.layers[i], model.layers[i]);
    bind_lm_head(model);
    if (options_.load_mtp && config_.mtp_layers > 0 && checkpoint_.find("mtp.fc.weight"))
      bind_mtp(model.mtp.emplace());
  }

  void load(ThreadPool& pool) {
    place_panels();
    place_copies();
    std::ranges::stable_sort(jobs_, [](const Job& a, const Job& b) {
      return std::tuple(a.tensor->file, a.tensor->offset, a.first_value) <
             std::tuple(b.tensor->file, b.tensor->offset, b.first_value);
    });
    size_t total = 0;
    for (const Job& job : jobs_) total += job.bytes();
    std::mutex mutex;
    size_t done = 0;
    std::exception_ptr failure;
    pool.parallel_for(static_cast<int64_t>(jobs_.size()), 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        {
          const std::lock_guard lock(mutex);
          if (failure) return;
        }
        std::exception_ptr thrown;
        try {
          run(jobs_[static_cast<size_t>(i)]);
        } catch (...) {
          thrown = std::current_exception();
        }
        const std::lock_guard lock(mutex);
        if (thrown && !failure) failure = thrown;
        done += jobs_[static_cast<size_t>(i)].bytes();
        if (options_.progress && !failure) options_.progress(done, total);
      }
    });
    if (failure) std::rethrow_exception(failure);
  }

 private:
  // A run of rows of one tensor. Small enough that threads share the large matrices.
  struct Job {
    const StoredTensor* tensor = nullptr;
    size_t first_value = 0;
    size_t value_count = 0;
    size_t bytes() const { return dtype_bytes(tensor->dtype, value_count); }
    ops::WeightMatrix source;     // the rows, where they are to be packed
    std::byte* panels = nullptr;  // null: not packed
    std::byte* copy = nullptr;    // null: not copied
  };
  struct Placed {
    ops::WeightMatrix* target = nullptr;
    ops::WeightMatrix source;
    const StoredTensor* tensor = nullptr;
  };

  // --- binding -------------------------------------------------------------------------------

  ops::WeightMatrix matrix(const std::string& name) {
    const StoredTensor& tensor = checkpoint_.get(name);
    ops::WeightMatrix view{tensor.dtype, tensor.shape[0], tensor.shape[1], tensor.data, nullptr};
    if (tensor.dtype == DType::f8_e4m3) view.block_scales = vector(name + "_scale_inv").data();
    return view;
  }

  // Small tensors are checked, widened and copied on the spot.
  Vector vector(const std::string& name) {
    const StoredTensor& tensor = checkpoint_.get(name);
    check_finite(tensor);
    std::vector<float> values(static_cast<size_t>(tensor.elements()));
    convert_to_float(tensor.dtype, tensor.data, values.data(), values.size());
    weights_.bytes_ += values.size() * sizeof(float);
    if (options_.store) return options_.store->keep(values);
    return weights_.vectors_.emplace_back(std::move(values));
  }

  void bind_matrix(const std::string& name, ops::WeightMatrix& target, bool quantizable = true) {
    const StoredTensor& tensor = checkpoint_.get(name);
    target = matrix(name);
    if (quantizable && options_.quantize && ops::can_pack(*options_.quantize, target.columns))
      packed_.push_back({&target, target, &tensor});
    else
      use_as_stored(target, tensor);
  }

  void bind_lm_head(ModelWeights& model) {
    if (!config_.tie_word_embeddings)
      bind_matrix("lm_head.weight", model.lm_head);
    else if (options_.quantize)
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

  // A matrix of the checkpoint, cut into runs of whole FP8 scale blocks of about 4 MB.
  void add_jobs(const ops::WeightMatrix& source, const StoredTensor& tensor, std::byte* panels,
                std::byte* copy) {
    const size_t row_bytes = dtype_bytes(source.dtype, static_cast<size_t>(source.columns));
    const int64_t blocks = static_cast<int64_t>((size_t{4} << 20) / (row_bytes * 128));
    const int64_t run = std::max<int64_t>(1, blocks) * 128;
    const int64_t scale_columns = (source.columns + 127) / 128;
    for (int64_t row = 0; row < source.rows; row += run) {
      Job job;
      job.tensor = &tensor;
      job.first_value = static_cast<size_t>(row * source.columns);
      job.source = source;
      job.source.rows = std::min(run, source.rows - row);
      job.source.data =
          static_cast<const std::byte*>(source.data) + static_cast<size_t>(row) * row_bytes;
      if (source.block_scales) job.source.block_scales += row / 128 * scale_columns;
      job.value_count = static_cast<size_t>(job.source.rows * source.columns);
      if (panels) job.panels = panels + ops::packed_bytes(*options_.quantize, row, source.columns);
      if (copy) job.copy = copy + static_cast<size_t>(row) * row_bytes;
      jobs_.push_back(job);
    }
  }

  void use_as_stored(ops::WeightMatrix& view, const StoredTensor& tensor) {
    weights_.bytes_ += ops::weight_bytes(view);
    if (options_.store)
      copied_.push_back({&view, view, &tensor});
    else
      add_jobs(view, tensor, nullptr, nullptr);
  }

  // The store's room in the order of binding, every matrix on its own 256 bytes.
  void place_copies() {
    if (!options_.store) return;
    constexpr size_t alignment = 256;
    std::vector<size_t> offsets;
    size_t size = 0;
    for (const Placed& copied : copied_) {
      offsets.push_back(size);
      size += (copied.tensor->bytes + alignment - 1) / alignment * alignment;
    }
    std::byte* room = options_.store->reserve(size);
    for (size_t i = 0; i < copied_.size(); ++i) {
      const Placed& copied = copied_[i];
      copied.target->data = room + offsets[i];
      add_jobs(copied.source, *copied.tensor, nullptr, room + offsets[i]);
    }
    if (config_.tie_word_embeddings) weights_.model_.lm_head = weights_.model_.embedding;
  }

  void place_panels() {
    constexpr size_t alignment = 64;
    std::vector<size_t> offsets;
    size_t size = 0;
    for (const Placed& packed : packed_) {
      offsets.push_back(size);
      const size_t bytes =
          ops::packed_bytes(*options_.quantize, packed.source.rows, packed.source.columns);
      size += (bytes + alignment - 1) / alignment * alignment;
    }
    weights_.arena_ = AlignedBuffer(size, "quantised weights; use a smaller format or model");
    weights_.bytes_ += size;
    for (size_t i = 0; i < packed_.size(); ++i) {
      const Placed& packed = packed_[i];
      std::byte* panels = weights_.arena_.data() + offsets[i];
      *packed.target = {*options_.quantize, packed.source.rows, packed.source.columns, panels,
                        nullptr};
      add_jobs(packed.source, *packed.tensor, panels, nullptr);
    }
  }

  void run(const Job& job) const {
    check_finite(*job.tensor, job.first_value, job.value_count);
    if (!job.panels && !job.copy) return;
    if (job.panels)
      ops::pack_weights(job.source, *options_.quantize, job.panels);
    else
      options_.store->write(job.copy, job.source.data, job.bytes());
    checkpoint_.dont_need(*job.tensor);
  }

  const Checkpoint& checkpoint_;
  const Config& config_;
  const ResidentWeights::Options& options_;
  ResidentWeights& weights_;
  std::vector<Placed> packed_;
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
