// Random values for the weights of a made-up model: the same bits for one seed, however many
// threads compute them and in whatever pieces.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "model/config.h"
#include "model/weight_schema.h"
#include "tensor/dtype.h"

namespace qnext {

// Counter-based: value i of a tensor is a pure function of (seed, tensor name, i), uniform on the
// 65,536 centres of [-1, 1). The mixing function is splitmix64 (Steele, Lea, Flood 2014, "Fast
// splittable pseudorandom number generators"), four values from one output.
class UniformStream {
 public:
  UniformStream(uint64_t seed, std::string_view tensor_name);

  // Four values in 16-bit lanes, the lowest being the first.
  uint64_t output(uint64_t index) const {
    uint64_t z = key_ + (index + 1) * 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
  }
  // Value `index` in (-1, 1).
  float value(uint64_t index) const {
    const auto lane = static_cast<int16_t>(output(index / 4) >> (16 * (index % 4)));
    return (static_cast<float>(lane) + 0.5f) * 0x1p-15f;
  }

 private:
  uint64_t key_;
};

// How the values of one tensor are distributed: centre + half_width * uniform(-1, 1), or, for
// A_log, the logarithm of uniform(0, 16).
//
// Every matrix but two kinds has variance 1 / columns, so that it maps values of order one to
// values of order one; the two matrices of a layer that write into the residual stream have
// 1 / (columns * 2 * layers), so that the sum over all layers stays of order one too (Radford et
// al. 2019). Rows of the router are alike in distribution, so the experts are chosen about evenly.
struct Distribution {
  float centre = 0;
  float half_width = 0;
  bool log_of_uniform_16 = false;
};
Distribution weight_distribution(const Config& config, const WeightSpec& spec);

// Values [first, first + count) of a tensor as f32, f16 or bf16 into `out`; first % 4 == 0.
void fill_random(const UniformStream& stream, const Distribution& distribution, DType dtype,
                 uint64_t first, size_t count, void* out);

// The same for the E4M3 values of a matrix, before they are multiplied with their block's scale:
// uniform on [-448, 448], rounded.
void fill_random_f8(const UniformStream& stream, uint64_t first, size_t count, uint8_t* out);
// Its scales from number `first` in bf16: half_width / 448 times uniform(0.75, 1.25), so that a
// block taken for another is noticed.
void fill_random_f8_scales(const UniformStream& stream, const Distribution& distribution,
                           uint64_t first, std::span<uint16_t> out);

}  // namespace qnext
