#include "model/oracle_forward.h"

#include <fmt/format.h>

#include <cmath>
#include <string>

#include "base/error.h"
#include "ops/activation/activation.h"
#include "ops/attention/attention.h"
#include "ops/causal_conv/causal_conv.h"
#include "ops/gated_delta/gated_delta.h"
#include "ops/moe/moe.h"
#include "ops/rms_norm/rms_norm.h"
#include "ops/rope/rope.h"

namespace qnext {

namespace {

using Vector = std::vector<double>;

class Oracle {
 public:
  Oracle(const Config& config, const Checkpoint& checkpoint, MatrixInputs* inputs)
      : config_(config), checkpoint_(checkpoint), inputs_(inputs), rope_(make_rope()) {}

  OracleOutputs run(std::span<const int32_t> tokens) {
    OracleOutputs out;
    Vector x = embed(tokens);
    for (size_t i = 0; i < config_.layers.size(); ++i) {
      out.residuals.push_back(x);
      out.router_logits.emplace_back();
      layer(fmt::format("model.layers.{}", i), config_.layers[i], x, out.router_logits.back());
    }
    const Vector hidden = norm(x, "model.norm.weight");
    out.residuals.push_back(hidden);
    out.logits = lm_head(hidden);
    if (checkpoint_.find("mtp.fc.weight") && tokens.size() > 1) {
      out.mtp_hidden = mtp(tokens.subspan(1), hidden);
      out.mtp_logits = lm_head(out.mtp_hidden);
    }
    return out;
  }

 private:
  // --- weights -------------------------------------------------------------------------------

  // A tensor as doubles, FP8 blocks scaled.
  Vector weight(const std::string& name) const {
    const StoredTensor& tensor = checkpoint_.get(name);
    const std::vector<float> values = widened(tensor);
    Vector wide(values.begin(), values.end());
    if (tensor.dtype == DType::f8_e4m3) {
      const Vector scales = weight(name + "_scale_inv");
      const auto columns = static_cast<size_t>(tensor.shape[1]);
      const size_t scale_columns = (columns + 127) / 128;
      for (size_t i = 0; i < wide.size(); ++i)
        wide[i] *= scales[i / columns / 128 * scale_columns + i % columns / 128];
    }
    return wide;
  }

  ops::RopeTable make_rope() const {
    std::optional<ops::YarnParameters> yarn;
    if (const auto& from = config_.rope.yarn) {
      yarn.emplace();
      yarn->factor = from->factor;
      yarn->original_max_position_embeddings =
          static_cast<double>(from->original_max_position_embeddings);
      yarn->beta_fast = from->beta_fast;
      yarn->beta_slow = from->beta_slow;
      yarn->attention_factor = from->attention_factor;
      yarn->truncate = from->truncate;
    }
    return ops::make_rope_table(config_.rope.theta, config_.rope.rotary_dims, yarn);
  }

  // --- pieces --------------------------------------------------------------------------------

  // x [rows, columns of w] times w transposed, plus a bias where the checkpoint has one.
  Vector linear(const Vector& x, const std::string& name) const {
    if (inputs_) inputs_->try_emplace(name + ".weight", x);  // the model's lm_head comes first
    const Vector w = weight(name + ".weight");
    const auto outputs = static_cast<size_t>(checkpoint_.get(name + ".weight").shape[0]);
    const size_t inputs = w.size() / outputs;
    const size_t rows = x.size() / inputs;
    Vector bias(outputs, 0.0);
    if (config_.attention_bias && checkpoint_.find(name + ".bias")) bias = weight(name + ".bias");
    Vector y(rows * outputs);
    for (size_t m = 0; m < rows; ++m) {
      for (size_t n = 0; n < outputs; ++n) {
        double sum = bias[n];
        for (size_t k = 0; k < inputs; ++k) sum += x[m * inputs + k] * w[n * inputs + k];
        y[m * outputs + n] = sum;
      }
    }
    return y;
  }

  // Zero-centred RMSNorm of rows as wide as the weight.
  Vector norm(const Vector& x, const std::string& name) const {
    const Vector w = weight(name);
    Vector y(x.size());
    for (size_t i = 0; i < x.size(); i += w.size())
      ops::rms_norm_oracle(&x[i], w.data(), config_.rms_norm_eps, static_cast<int64_t>(w.size()),
                           &y[i]);
    return y;
  }

  Vector embed(std::span<const int32_t> tokens) const {
    const Vector table = weight("model.embed_tokens.weight");
    const size_t hidden = static_cast<size_t>(config_.hidden_size);
    Vector x;
    for (int32_t token : tokens) {
      const auto row = table.begin() + static_cast<int64_t>(static_cast<size_t>(token) * hidden);
      x.insert(x.end(), row, row + config_.hidden_size);
    }
    return x;
  }

  Vector lm_head(const Vector& hidden) const {
    return linear(hidden, config_.tie_word_embeddings ? "model.embed_tokens" : "lm_head");
  }

  static void add(Vector& x, const Vector& y) {
    for (size_t i = 0; i < x.size(); ++i) x[i] += y[i];
  }

  // --- layers --------------------------------------------------------------------------------

  // x += mixer(norm(x)); x += mlp(norm(x))
  void layer(const std::string& prefix, LayerKind kind, Vector& x, Vector& router_logits) const {
    const Vector h = norm(x, prefix + ".input_layernorm.weight");
    add(x, kind.mixer == Mixer::full_attention ? gated_attention(h, prefix + ".self_attn")
                                               : gated_delta_net(h, prefix + ".linear_attn"));
    const Vector m = norm(x, prefix + ".post_attention_layernorm.weight");
    add(x, kind.mlp == Mlp::sparse ? sparse_moe(m, prefix + ".mlp", router_logits)
                                   : swiglu(m, prefix + ".mlp"));
  }

  Vector gated_attention(const Vector& h, const std::string& prefix) const {
    const int64_t heads = config_.attention_heads, kv_heads = config_.kv_heads;
    const int64_t d = config_.head_dim, half = config_.rope.rotary_dims / 2;
    const int64_t tokens = static_cast<int64_t>(h.size()) / config_.hidden_size;
    const Vector q_gate = linear(h, prefix + ".q_proj");  // [tokens, heads, 2, d]
    Vector k = norm(linear(h, prefix + ".k_proj"), prefix + ".k_norm.weight");
    const Vector v = linear(h, prefix + ".v_proj");

    Vector q;  // [tokens, heads, d]
    for (int64_t i = 0; i < tokens * heads; ++i)
      q.insert(q.end(), &q_gate[at(2 * i * d)], &q_gate[at(2 * i * d)] + d);
    q = norm(q, prefix + ".q_norm.weight");
    for (int64_t t = 0; t < tokens; ++t) {
      std::vector<float> cosine(at(half)), sine(at(half));
      ops::rope_angles(rope_, t, cosine.data(), sine.data());
      const Vector c(cosine.begin(), cosine.end()), s(sine.begin(), sine.end());
      const auto turn = [&](Vector& x, int64_t count) {
        for (int64_t head = 0; head < count; ++head)
          ops::rope_oracle(&x[at((t * count + head) * d)], c.data(), s.data(), 2 * half);
      };
      turn(q, heads);
      turn(k, kv_heads);
    }

    Vector out(at(tokens * heads * d));
    for (int64_t head = 0; head < heads; ++head) {
      const int64_t kv_head = head / (heads / kv_heads);
      Vector keys, values;  // [tokens, d] of this kv head
      for (int64_t t = 0; t < tokens; ++t) {
        const size_t from = at((t * kv_heads + kv_head) * d);
        keys.insert(keys.end(), &k[from], &k[from] + d);
        values.insert(values.end(), &v[from], &v[from] + d);
      }
      for (int64_t t = 0; t < tokens; ++t) {
        double* o = &out[at((t * heads + head) * d)];
        ops::attention_oracle(&q[at((t * heads + head) * d)], keys.data(), values.data(), t + 1, d,
                              1.0 / std::sqrt(static_cast<double>(d)), o);
        const double* gate = &q_gate[at((2 * (t * heads + head) + 1) * d)];
        for (int64_t i = 0; i < d; ++i) o[i] *= ops::sigmoid(gate[i]);
      }
    }
    return linear(out, prefix + ".o_proj");
  }

  Vector gated_delta_net(const Vector& h, const std::string& prefix) const {
    const int64_t key_heads = config_.linear_key_heads, value_heads = config_.linear_value_heads;
    const int64_t dk = config_.linear_key_head_dim, dv = config_.linear_value_head_dim;
    const int64_t r = config_.value_heads_per_key_head();
    const int64_t channels = config_.linear_conv_channels(), width = config_.linear_conv_width;
    const int64_t tokens = static_cast<int64_t>(h.size()) / config_.hidden_size;
    const Vector qkvz = linear(h, prefix + ".in_proj_qkvz");
    const Vector ba = linear(h, prefix + ".in_proj_ba");

    // The projections are grouped by key head; the convolution wants all q, all k, all v.
    Vector mixed(at(tokens * channels)), z(at(tokens * value_heads * dv));
    for (int64_t t = 0; t < tokens; ++t) {
      for (int64_t g = 0; g < key_heads; ++g) {
        const double* from = &qkvz[at((t * key_heads + g) * (2 * dk + 2 * r * dv))];
        double* row = &mixed[at(t * channels)];
        std::copy_n(from, dk, row + g * dk);
        std::copy_n(from + dk, dk, row + (key_heads + g) * dk);
        std::copy_n(from + 2 * dk, r * dv, row + 2 * key_heads * dk + g * r * dv);
        std::copy_n(from + 2 * dk + r * dv, r * dv, &z[at((t * key_heads + g) * r * dv)]);
      }
    }
    const Vector conv_weight = weight(prefix + ".conv1d.weight");
    Vector conv_state(at((width - 1) * channels), 0.0), conv(mixed.size());
    ops::causal_conv_oracle(mixed.data(), conv_weight.data(), tokens, channels, width,
                            conv_state.data(), conv.data());

    const Vector a_log = weight(prefix + ".A_log"), dt_bias = weight(prefix + ".dt_bias");
    const Vector norm_weight = weight(prefix + ".norm.weight");
    Vector out(at(tokens * value_heads * dv));
    for (int64_t head = 0; head < value_heads; ++head) {
      const int64_t g = head / r;
      Vector q(at(tokens * dk)), k(at(tokens * dk)), v(at(tokens * dv));
      Vector decay(at(tokens)), beta(at(tokens)), state(at(dk * dv), 0.0), o(at(tokens * dv));
      for (int64_t t = 0; t < tokens; ++t) {
        const double* row = &conv[at(t * channels)];
        ops::l2_normalize_oracle(row + g * dk, dk, 1.0 / std::sqrt(static_cast<double>(dk)),
                                 &q[at(t * dk)]);
        ops::l2_normalize_oracle(row + (key_heads + g) * dk, dk, 1.0, &k[at(t * dk)]);
        std::copy_n(row + 2 * key_heads * dk + head * dv, dv, &v[at(t * dv)]);
        const double* group = &ba[at((t * key_heads + g) * 2 * r)];  // b[r] then a[r]
        beta[at(t)] = ops::sigmoid(group[head % r]);
        decay[at(t)] =
            -std::exp(a_log[at(head)]) * ops::softplus(group[r + head % r] + dt_bias[at(head)]);
      }
      ops::gated_delta_recurrent_oracle(
          {q.data(), k.data(), v.data(), decay.data(), beta.data(), tokens, dk, dv}, state.data(),
          o.data());
      for (int64_t t = 0; t < tokens; ++t) {
        const size_t place = at((t * value_heads + head) * dv);
        ops::gated_rms_norm_oracle(&o[at(t * dv)], &z[place], norm_weight.data(),
                                   config_.rms_norm_eps, dv, &out[place]);
      }
    }
    return linear(out, prefix + ".out_proj");
  }

  // down(silu(gate x) * up x)
  Vector swiglu(const Vector& x, const std::string& prefix) const {
    Vector gate = linear(x, prefix + ".gate_proj");
    const Vector up = linear(x, prefix + ".up_proj");
    for (size_t i = 0; i < gate.size(); ++i) gate[i] = ops::silu(gate[i]) * up[i];
    return linear(gate, prefix + ".down_proj");
  }

  Vector sparse_moe(const Vector& x, const std::string& prefix, Vector& router_logits) const {
    const int64_t top_k = config_.experts_per_token, experts = config_.experts;
    const size_t hidden = at(config_.hidden_size);
    const int64_t tokens = static_cast<int64_t>(x.size() / hidden);
    router_logits = linear(x, prefix + ".gate");
    std::vector<int32_t> ids(at(tokens * top_k));
    Vector weights(ids.size());
    ops::route_oracle(router_logits.data(), tokens, experts, top_k, config_.norm_topk_prob,
                      ids.data(), weights.data());

    Vector y(x.size(), 0.0);
    for (int64_t e = 0; e < experts; ++e) {
      Vector rows;  // the tokens that chose expert e
      for (size_t i = 0; i < ids.size(); ++i) {
        const size_t t = i / at(top_k);
        if (ids[i] == e) rows.insert(rows.end(), &x[t * hidden], &x[t * hidden] + hidden);
      }
      if (rows.empty()) continue;
      const Vector out = swiglu(rows, fmt::format("{}.experts.{}", prefix, e));
      size_t next = 0;
      for (size_t i = 0; i < ids.size(); ++i) {
        if (ids[i] != e) continue;
        const size_t t = i / at(top_k);
        for (size_t k = 0; k < hidden; ++k) y[t * hidden + k] += weights[i] * out[next + k];
        next += hidden;
      }
    }
    if (config_.shared_expert_width > 0) {
      const Vector shared = swiglu(x, prefix + ".shared_expert");
      const Vector gate = linear(x, prefix + ".shared_expert_gate");
      for (size_t i = 0; i < y.size(); ++i) y[i] += ops::sigmoid(gate[i / hidden]) * shared[i];
    }
    return y;
  }

  // next_tokens[t] follows position t.
  Vector mtp(std::span<const int32_t> next_tokens, const Vector& hidden_states) const {
    const size_t hidden = at(config_.hidden_size);
    const Vector e = norm(embed(next_tokens), "mtp.pre_fc_norm_embedding.weight");
    const Vector h = norm(hidden_states, "mtp.pre_fc_norm_hidden.weight");
    Vector both;
    for (size_t i = 0; i < e.size(); i += hidden) {
      both.insert(both.end(), &e[i], &e[i] + hidden);
      both.insert(both.end(), &h[i], &h[i] + hidden);
    }
    Vector x = linear(both, "mtp.fc");
    Vector router_logits;
    layer("mtp.layers.0", {Mixer::full_attention, Mlp::sparse}, x, router_logits);
    return norm(x, "mtp.norm.weight");
  }

  static size_t at(int64_t index) { return static_cast<size_t>(index); }

  const Config& config_;
  const Checkpoint& checkpoint_;
  MatrixInputs* inputs_;
  ops::RopeTable rope_;
};

}  // namespace

OracleOutputs oracle_forward(const Config& config, const Checkpoint& checkpoint,
                             std::span<const int32_t> tokens, MatrixInputs* inputs) {
  for (int32_t token : tokens)
    QNEXT_CHECK(token >= 0 && token < config.vocabulary_size, "token {}", token);
  return Oracle(config, checkpoint, inputs).run(tokens);
}

}  // namespace qnext
