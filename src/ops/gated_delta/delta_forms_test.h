// What the tests of the fast forms of Gated DeltaNet share: random layers and sequences, the fp64
// oracle of the whole mixer, and runs on the GPU.
#pragma once

#include <algorithm>
#include <bit>
#include <optional>

#include "ops/activation/activation.h"
#include "ops/causal_conv/causal_conv.h"
#include "ops/cuda_test.h"
#include "ops/gated_delta/chunked_delta_cuda.h"
#include "ops/gated_delta/decode_delta_cuda.h"

namespace qnext::ops::cuda {

inline Bf16 to_bf16(float x) {
  const auto bits = std::bit_cast<uint32_t>(x);
  return static_cast<Bf16>((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);
}
inline float from_bf16(Bf16 x) {
  return std::bit_cast<float>(static_cast<uint32_t>(x) << 16);
}
inline std::vector<float> from_bf16(const std::vector<Bf16>& values) {
  std::vector<float> wide(values.size());
  std::transform(values.begin(), values.end(), wide.begin(),
                 [](Bf16 value) { return from_bf16(value); });
  return wide;
}
inline std::vector<Bf16> to_bf16(const std::vector<float>& values) {
  std::vector<Bf16> narrow(values.size());
  std::transform(values.begin(), values.end(), narrow.begin(),
                 [](float value) { return to_bf16(value); });
  return narrow;
}

// How strongly the gates pull: means and spreads of the logits.
struct Gates {
  float a_log = 0;
  float a = 0;
  float b = 0;
  float spread = 1;
};

struct TestLayer {
  DeltaLayer layer;
  std::vector<float> conv_weight, a_log, dt_bias, norm_weight;

  TestLayer(Random& random, const GatedDeltaShape& shape, int64_t width, const Gates& gates = {}) {
    layer.shape = shape;
    layer.conv_width = width;
    conv_weight = random.normals(layer.channels() * width, 0.7f);
    a_log = random.normals(shape.value_heads, gates.spread);
    for (float& x : a_log) x += gates.a_log;
    dt_bias = random.normals(shape.value_heads);
    norm_weight = random.normals(shape.value_dim);
  }
  int64_t past() const { return layer.conv_width - 1; }
  int64_t conv_state_size() const { return past() * layer.channels(); }
  int64_t state_size() const {
    return layer.shape.value_heads * layer.shape.key_dim * layer.shape.value_dim;
  }
  int64_t qkvz_width() const { return layer.shape.key_heads * layer.group_width(); }
  int64_t ba_width() const { return 2 * layer.shape.value_heads; }
};

// Rows of one sequence, and the states it starts from (unless fresh).
struct TestSequence {
  int64_t rows;
  int64_t first_position;
  bool fresh;
  std::vector<float> qkvz, ba, conv_state, state;  // qkvz holds bf16 values

  TestSequence(Random& random, const TestLayer& test, int64_t rows_, int64_t first_position_,
               bool fresh_, const Gates& gates = {})
      : rows(rows_), first_position(first_position_), fresh(fresh_) {
    qkvz = from_bf16(to_bf16(random.normals(rows * test.qkvz_width())));
    ba = random.normals(rows * test.ba_width(), gates.spread);
    const int64_t group = test.layer.group();
    for (size_t i = 0; i < ba.size(); ++i)
      ba[i] += static_cast<int64_t>(i) % (2 * group) < group ? gates.b : gates.a;
    conv_state = from_bf16(to_bf16(random.normals(test.conv_state_size())));
    // Half of S's bits stay free, so that a state kept in bf16 starts exact as well.
    state = from_bf16(to_bf16(random.normals(test.state_size(), 0.3f)));
    if (!fresh) return;
    std::fill(conv_state.begin(), conv_state.end(), 0.0f);
    std::fill(state.begin(), state.end(), 0.0f);
  }
};

struct Expected {
  std::vector<double> out;         // [rows, value_width]
  std::vector<double> state;       // after the last row
  std::vector<double> conv_state;  // likewise
};

inline Expected expect_delta(const TestLayer& test, const TestSequence& sequence) {
  const DeltaLayer& layer = test.layer;
  const GatedDeltaShape& shape = layer.shape;
  const int64_t group = layer.group(), values = group * shape.value_dim;
  const int64_t channels = layer.channels(), rows = sequence.rows;
  std::vector<double> inputs(static_cast<size_t>(rows * channels)), mixed(inputs.size());
  const auto source = [&](int64_t t, int64_t key_head, int64_t column) {
    return static_cast<double>(sequence.qkvz[static_cast<size_t>(
        t * test.qkvz_width() + key_head * layer.group_width() + column)]);
  };
  for (int64_t t = 0; t < rows; ++t) {
    for (int64_t g = 0; g < shape.key_heads; ++g) {
      for (int64_t i = 0; i < 2 * shape.key_dim + values; ++i) {
        const int64_t channel = i < shape.key_dim ? g * shape.key_dim + i
                                : i < 2 * shape.key_dim
                                    ? layer.key_width() + g * shape.key_dim + i - shape.key_dim
                                    : 2 * layer.key_width() + g * values + i - 2 * shape.key_dim;
        inputs[static_cast<size_t>(t * channels + channel)] = source(t, g, i);
      }
    }
  }
  Expected expected;
  expected.conv_state = widened(sequence.conv_state.data(), test.conv_state_size());
  expected.state = widened(sequence.state.data(), test.state_size());
  expected.out.resize(static_cast<size_t>(rows * layer.value_width()));
  causal_conv_oracle(inputs.data(),
                     widened(test.conv_weight.data(), channels * layer.conv_width).data(), rows,
                     channels, layer.conv_width, expected.conv_state.data(), mixed.data());
  for (int64_t h = 0; h < shape.value_heads; ++h) {
    const int64_t g = h / group;
    std::vector<double> q(static_cast<size_t>(rows * shape.key_dim)), k(q.size()), v, decay, beta;
    std::vector<double> o(static_cast<size_t>(rows * shape.value_dim));
    for (int64_t t = 0; t < rows; ++t) {
      const double* row = mixed.data() + t * channels;
      l2_normalize_oracle(row + g * shape.key_dim, shape.key_dim,
                          1 / std::sqrt(static_cast<double>(shape.key_dim)),
                          q.data() + t * shape.key_dim);
      l2_normalize_oracle(row + layer.key_width() + g * shape.key_dim, shape.key_dim, 1,
                          k.data() + t * shape.key_dim);
      const double* value = row + 2 * layer.key_width() + h * shape.value_dim;
      v.insert(v.end(), value, value + shape.value_dim);
      const float* ba = sequence.ba.data() + t * test.ba_width() + g * 2 * group;
      beta.push_back(ops::sigmoid(static_cast<double>(ba[h % group])));
      decay.push_back(-std::exp(static_cast<double>(test.a_log[static_cast<size_t>(h)])) *
                      ops::softplus(static_cast<double>(ba[group + h % group]) +
                                    static_cast<double>(test.dt_bias[static_cast<size_t>(h)])));
    }
    gated_delta_recurrent_oracle({q.data(), k.data(), v.data(), decay.data(), beta.data(), rows,
                                  shape.key_dim, shape.value_dim},
                                 expected.state.data() + h * shape.key_dim * shape.value_dim,
                                 o.data());
    for (int64_t t = 0; t < rows; ++t) {
      const double* head = o.data() + t * shape.value_dim;
      double sum = 0;
      for (int64_t i = 0; i < shape.value_dim; ++i) sum += head[i] * head[i];
      const double scale = 1 / std::sqrt(sum / static_cast<double>(shape.value_dim) +
                                         static_cast<double>(layer.eps));
      for (int64_t i = 0; i < shape.value_dim; ++i)
        expected.out[static_cast<size_t>(t * layer.value_width() + h * shape.value_dim + i)] =
            head[i] * scale * static_cast<double>(test.norm_weight[static_cast<size_t>(i)]) *
            ops::silu(source(t, g, 2 * shape.key_dim + values + h % group * shape.value_dim + i));
    }
  }
  return expected;
}

enum class Form { decode, chunked };

// A layer and slots on the device; every run takes some sequences from slots to slots.
class DeltaRun {
 public:
  DeltaRun(const TestLayer& test, int64_t slots, StateFormat format = StateFormat::f32)
      : test_(test),
        format_(format),
        conv_weight_(test.conv_weight),
        a_log_(test.a_log),
        dt_bias_(test.dt_bias),
        norm_weight_(test.norm_weight),
        states_(
            std::vector<float>(static_cast<size_t>(slots * stride()), std::bit_cast<float>(~0u))),
        conv_states_(poisoned(slots * test.conv_state_size())) {}

  // A gap between slots, that must stay as it is.
  int64_t stride() const { return test_.state_size() + 8; }
  DeltaLayer layer() const {
    DeltaLayer layer = test_.layer;
    layer.conv_weight = conv_weight_.get();
    layer.a_log = a_log_.get();
    layer.dt_bias = dt_bias_.get();
    layer.norm_weight = norm_weight_.get();
    return layer;
  }
  void set_slot(int64_t slot, const TestSequence& sequence) {
    if (format_ == StateFormat::f32) {
      copy(states_.get() + slot * stride(), sequence.state);
    } else {
      copy(reinterpret_cast<Bf16*>(states_.get()) + slot * stride(), to_bf16(sequence.state));
    }
    copy(conv_states_.get() + slot * test_.conv_state_size(), sequence.conv_state);
  }
  std::vector<float> state(int64_t slot) const {
    return slice(slot_values(slot), 0, test_.state_size());
  }
  std::vector<float> gap(int64_t slot) const {
    return slice(slot_values(slot), test_.state_size(), stride() - test_.state_size());
  }
  std::vector<float> conv_state(int64_t slot) const {
    return copied(conv_states_.get() + slot * test_.conv_state_size(), test_.conv_state_size());
  }

  struct Piece {
    const TestSequence* sequence;
    int64_t begin;
    int64_t end;
    int32_t slot_in;                 // -1: fresh
    std::vector<int32_t> slots_out;  // of the last rows
  };
  // Outputs [all rows, value_width]. Throws what the operation throws.
  std::vector<float> run(Form form, const std::vector<Piece>& pieces, bool at_rest = true) {
    HostBatch host;
    std::vector<float> qkvz, ba;
    const int64_t extra = 8, stride = test_.qkvz_width() + extra;
    for (const Piece& piece : pieces) {
      const TestSequence& sequence = *piece.sequence;
      const auto rows = static_cast<int32_t>(piece.end - piece.begin);
      host.add(rows, piece.slot_in, static_cast<int32_t>(sequence.first_position + piece.begin));
      std::copy(piece.slots_out.begin(), piece.slots_out.end(),
                host.state_out.end() - static_cast<int64_t>(piece.slots_out.size()));
      for (int64_t t = piece.begin; t < piece.end; ++t) {
        const auto row = sequence.qkvz.begin() + t * test_.qkvz_width();
        qkvz.insert(qkvz.end(), row, row + test_.qkvz_width());
        qkvz.insert(qkvz.end(), extra, std::numeric_limits<float>::quiet_NaN());
      }
      ba.insert(ba.end(), sequence.ba.begin() + piece.begin * test_.ba_width(),
                sequence.ba.begin() + piece.end * test_.ba_width());
    }
    const DeviceBatch device(host);
    const OnDevice<Bf16> dqkvz(to_bf16(qkvz));
    const OnDevice<float> dba(ba);
    const int64_t width = test_.layer.value_width(), out_stride = width + extra;
    const OnDevice<Bf16> dout(to_bf16(poisoned(device.batch.rows * out_stride)));
    const DeltaRows rows{dqkvz.get(), stride, dba.get(), test_.ba_width()};
    const States conv{conv_states_.get(), test_.conv_state_size()};
    const DeltaStates states{states_.get(), this->stride(), format_};
    if (form == Form::decode) {
      decode_delta(nullptr, device.batch, layer(), rows, conv, states, at_rest, dout.get(),
                   out_stride);
    } else {
      const int64_t bytes =
          chunked_delta_workspace(layer(), device.batch.rows, device.batch.sequences);
      const OnDevice<float> workspace(poisoned(bytes / 4));
      chunked_delta(nullptr, device.batch, layer(), rows, conv, states, dout.get(), out_stride,
                    workspace.get());
      check_cuda(cudaDeviceSynchronize(), "chunked_delta");
    }
    const std::vector<float> all = from_bf16(dout.values());
    std::vector<float> out;
    for (int64_t row = 0; row < device.batch.rows; ++row) {
      const std::vector<float> of_row = slice(all, row * out_stride, out_stride);
      out.insert(out.end(), of_row.begin(), of_row.begin() + width);
      for (int64_t i = width; i < out_stride; ++i)
        EXPECT_TRUE(std::isnan(of_row[static_cast<size_t>(i)])) << "beyond row " << row;
    }
    return out;
  }

 private:
  template <typename T>
  static void copy(T* to, const std::vector<T>& from) {
    check_cuda(cudaMemcpy(to, from.data(), from.size() * sizeof(T), cudaMemcpyHostToDevice),
               "cudaMemcpy");
  }
  template <typename T>
  static std::vector<T> copied(const T* from, int64_t count) {
    std::vector<T> host(static_cast<size_t>(count));
    check_cuda(cudaDeviceSynchronize(), "kernel");
    check_cuda(cudaMemcpy(host.data(), from, host.size() * sizeof(T), cudaMemcpyDeviceToHost),
               "cudaMemcpy");
    return host;
  }
  // With the gap behind it.
  std::vector<float> slot_values(int64_t slot) const {
    if (format_ == StateFormat::f32) return copied(states_.get() + slot * stride(), stride());
    return from_bf16(
        copied(reinterpret_cast<const Bf16*>(states_.get()) + slot * stride(), stride()));
  }

  const TestLayer& test_;
  StateFormat format_;
  OnDevice<float> conv_weight_, a_log_, dt_bias_, norm_weight_, states_, conv_states_;
};

}  // namespace qnext::ops::cuda
