#include "model/random_weights.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>

#include "base/error.h"

namespace qnext {

namespace {

constexpr float norm_spread = 0.05f;
constexpr float bias_spread = 0.02f;
constexpr float f8_largest = 448.0f;
constexpr size_t block = 1024;  // values at a time: a fixed length lets the compiler use vectors

bool writes_to_residual(WeightRole role) {
  return role == WeightRole::o_proj || role == WeightRole::delta_out_proj ||
         role == WeightRole::expert_down || role == WeightRole::shared_down ||
         role == WeightRole::dense_down;
}

// Calls store(k, lane) for the values first + k, lane being the 16 random bits as an integer.
template <typename Store>
void for_each_lane(const UniformStream& stream, uint64_t first, size_t count, Store&& store) {
  QNEXT_CHECK(first % 4 == 0);
  const uint64_t group = first / 4;
  size_t k = 0;
  for (; k + 4 <= count; k += 4) {
    const uint64_t bits = stream.output(group + k / 4);
    store(k, static_cast<int16_t>(bits));
    store(k + 1, static_cast<int16_t>(bits >> 16));
    store(k + 2, static_cast<int16_t>(bits >> 32));
    store(k + 3, static_cast<int16_t>(bits >> 48));
  }
  if (k == count) return;
  const uint64_t bits = stream.output(group + k / 4);
  for (size_t lane = 0; k + lane < count; ++lane)
    store(k + lane, static_cast<int16_t>(bits >> (16 * lane)));
}

void fill_values(const UniformStream& stream, const Distribution& distribution, uint64_t first,
                 size_t count, float* out) {
  if (distribution.log_of_uniform_16) {
    // (lane + 32768.5) / 65536 is never 0, so the logarithm is finite.
    for_each_lane(stream, first, count, [&](size_t k, int16_t lane) {
      out[k] = std::log((static_cast<float>(lane) + 32768.5f) * (16.0f / 65536.0f));
    });
    return;
  }
  const float slope = distribution.half_width * 0x1p-15f;
  const float offset = distribution.centre + 0.5f * slope;
  for_each_lane(stream, first, count, [&](size_t k, int16_t lane) {
    out[k] = static_cast<float>(lane) * slope + offset;
  });
}

// Rounds finite values to bf16; tensor/dtype.h has the rounding that minds NaN, value by value.
void store_bf16(const float (&values)[block], size_t count, std::byte* out) {
  uint16_t rounded[block];
  for (size_t i = 0; i < block; ++i) {
    const uint32_t bits = std::bit_cast<uint32_t>(values[i]);
    rounded[i] = static_cast<uint16_t>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
  }
  std::memcpy(out, rounded, 2 * count);
}

void store_values(DType dtype, const float (&values)[block], size_t count, std::byte* out) {
  if (dtype == DType::bf16) {
    store_bf16(values, count, out);
  } else if (dtype == DType::f32) {
    std::memcpy(out, values, 4 * count);
  } else {
    for (size_t i = 0; i < count; ++i) {
      const uint16_t bits = float_to_f16(values[i]);
      std::memcpy(out + 2 * i, &bits, 2);
    }
  }
}

// E4M3 of the centre of each of the 65,536 intervals, scaled to 448.
const std::array<uint8_t, 65536>& f8_table() {
  static const auto table = [] {
    std::array<uint8_t, 65536> values{};
    for (int i = -32768; i < 32768; ++i)
      values[static_cast<uint16_t>(i)] =
          float_to_f8_e4m3((static_cast<float>(i) + 0.5f) * 0x1p-15f * f8_largest);
    return values;
  }();
  return table;
}

uint64_t hash_name(std::string_view name) {  // FNV-1a
  uint64_t hash = 0xCBF29CE484222325u;
  for (char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001B3u;
  return hash;
}

}  // namespace

UniformStream::UniformStream(uint64_t seed, std::string_view tensor_name) : key_(seed) {
  // Twice through the mixer, so that neighbouring seeds give unrelated streams.
  key_ = output(0) ^ hash_name(tensor_name);
  key_ = output(0);
}

Distribution weight_distribution(const Config& config, const WeightSpec& spec) {
  switch (spec.role) {
    case WeightRole::final_norm:
    case WeightRole::input_norm:
    case WeightRole::middle_norm:
    case WeightRole::q_norm:
    case WeightRole::k_norm:
    case WeightRole::mtp_norm:
    case WeightRole::mtp_embedding_norm:
    case WeightRole::mtp_hidden_norm:
      return {0, norm_spread};
    case WeightRole::delta_norm:
      return {1, norm_spread};
    case WeightRole::delta_a_log:
      return {.log_of_uniform_16 = true};
    case WeightRole::delta_dt_bias:
      return {1, norm_spread};
    case WeightRole::q_bias:
    case WeightRole::k_bias:
    case WeightRole::v_bias:
    case WeightRole::o_bias:
      return {0, bias_spread};
    case WeightRole::embedding:
      return {0, std::sqrt(3.0f)};
    default:
      break;
  }
  // Uniform on [-w, w] has variance w^2 / 3.
  double variance = 1.0 / static_cast<double>(spec.shape.back());
  if (writes_to_residual(spec.role)) variance /= 2.0 * static_cast<double>(config.layers.size());
  return {0, static_cast<float>(std::sqrt(3.0 * variance))};
}

void fill_random(const UniformStream& stream, const Distribution& distribution, DType dtype,
                 uint64_t first, size_t count, void* out) {
  QNEXT_CHECK(dtype == DType::f32 || dtype == DType::f16 || dtype == DType::bf16,
              "no random weights of {}", dtype_name(dtype));
  float values[block] = {};
  for (size_t begin = 0; begin < count; begin += block) {
    const size_t length = std::min(block, count - begin);
    fill_values(stream, distribution, first + begin, length, values);
    store_values(dtype, values, length, static_cast<std::byte*>(out) + dtype_bytes(dtype, begin));
  }
}

void fill_random_f8(const UniformStream& stream, uint64_t first, size_t count, uint8_t* out) {
  const auto& table = f8_table();
  for_each_lane(stream, first, count,
                [&](size_t k, int16_t lane) { out[k] = table[static_cast<uint16_t>(lane)]; });
}

void fill_random_f8_scales(const UniformStream& stream, const Distribution& distribution,
                           uint64_t first, std::span<uint16_t> out) {
  for (size_t i = 0; i < out.size(); ++i)
    out[i] = float_to_bf16(distribution.half_width / f8_largest *
                           (1.0f + 0.25f * stream.value(first + i)));
}

}  // namespace qnext
