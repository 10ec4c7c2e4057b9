// The search, written with vectors of gcc and clang whose lanes are the runs: every operation is
// one of IEEE's, lane by lane and in the order of the values, so that all instruction sets agree.
// Included by one file an instruction set; nothing here is shared between them.
#pragma once

#include <string.h>

#include "tensor/block_search.h"

namespace qnext {
namespace {

template <int lanes>
struct VectorOf;
template <>
struct VectorOf<8> {
  typedef float Floats __attribute__((vector_size(32)));
  typedef int32_t Integers __attribute__((vector_size(32)));
};
template <>
struct VectorOf<16> {
  typedef float Floats __attribute__((vector_size(64)));
  typedef int32_t Integers __attribute__((vector_size(64)));
};

constexpr float unreachable = __builtin_inff();

template <int run, bool has_least, bool nonlinear>
class Search {
  static constexpr int lanes = searched_values / run;
  using V = typename VectorOf<lanes>::Floats;
  using I = typename VectorOf<lanes>::Integers;

  // Scale and least of each run, and the error that they leave.
  struct Factors {
    V scale;
    V least;
    V error;
  };
  // Sums over a run for given levels q, each weighted: 1, q, q^2, x, q x.
  struct Sums {
    V one, q, qq, x, qx;
  };
  struct SuperBlock {
    // Stays where the factors of every candidate overflow; encode_row() refuses it.
    float d = unreachable;
    float minimum = 0;
    V scales{}, leasts{};  // integers
    float error = unreachable;
  };

 public:
  Search(const LevelGrid& grid, const float* values, const float* importance) : grid_(grid) {
    alignas(64) float x[lanes], w[lanes];
    for (int i = 0; i < run; ++i) {
      for (int lane = 0; lane < lanes; ++lane) {
        x[lane] = values[lane * run + i];
        w[lane] = importance[lane * run + i];
      }
      memcpy(&x_[i], x, sizeof x);
      memcpy(&w_[i], w, sizeof w);
    }
    low_ = static_cast<float>(grid.low);
    high_ = static_cast<float>(grid.high);
    measure();
  }

  void find(LevelFit& fit) const {
    if (grid_.scale_high > 0)
      find_super_block(fit);
    else
      find_blocks(fit);
  }

 private:
  static V all(float value) { return V{} + value; }
  static V choose(const I& mask, const V& yes, const V& no) { return mask ? yes : no; }
  static V larger(const V& a, const V& b) { return choose(a > b, a, b); }
  static V smaller(const V& a, const V& b) { return choose(a < b, a, b); }
  static V magnitude(const V& v) { return choose(v < 0.0f, -v, v); }

  // Half to even, of at most 2^22.
  static V rounded(const V& v) {
    constexpr float shift = 12582912.0f;  // 1.5 * 2^23: sums have steps of 1
    return (v + shift) - shift;
  }
  // Of a scale too small for an inverse the levels are zero.
  static V inverse(const V& scale) {
    return choose(magnitude(scale) > 1e-30f, 1.0f / scale, all(0));
  }
  // As float_to_f16() and back.
  static V through_f16(const V& v) {
    const V size = magnitude(v);
    const I bits = (I)size;
    const V normal = (V)((bits + 0xFFF + ((bits >> 13) & 1)) & ~0x1FFF);
    const V subnormal = (size + 0.5f) - 0.5f;  // sums have steps of 2^-24
    V out = choose(size < 0x1p-14f, subnormal, normal);
    out = choose(size >= 65520.0f, all(unreachable), out);
    return choose(v < 0.0f, -out, out);
  }
  static float sum(const V& v) {
    float total = 0;
    for (int lane = 0; lane < lanes; ++lane) total += v[lane];
    return total;
  }

  V nearest(const V& steps) const {
    if constexpr (nonlinear) {
      constexpr float levels[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                    1,    13,   25,  38,  53,  69,  89,  113};
      V level = all(levels[0]);
      for (int i = 1; i < 16; ++i) {
        const float between = 0.5f * (levels[i - 1] + levels[i]);
        level += choose(steps > between, all(levels[i] - levels[i - 1]), all(0));
      }
      return level;
    } else {
      return rounded(smaller(larger(steps, all(low_)), all(high_)));
    }
  }
  V level(int i, const V& inverse_scale, const V& least) const {
    if constexpr (has_least)
      return nearest((x_[i] + least) * inverse_scale);
    else
      return nearest(x_[i] * inverse_scale);
  }

  void measure() {
    extreme_ = least_value_ = largest_value_ = x_[0];
    for (int i = 1; i < run; ++i) {
      extreme_ = choose(magnitude(x_[i]) > magnitude(extreme_), x_[i], extreme_);
      least_value_ = smaller(least_value_, x_[i]);
      largest_value_ = larger(largest_value_, x_[i]);
    }
    // Minima of super-blocks are taken off, never added.
    if (grid_.scale_high > 0) least_value_ = smaller(least_value_, all(0));
  }

  Factors start(float steps) const {
    if constexpr (has_least) return {(largest_value_ - least_value_) / steps, -least_value_, V{}};
    return {extreme_ / steps, V{}, V{}};
  }

  Sums sums(const V& scale, const V& least) const {
    const V inverse_scale = inverse(scale);
    Sums s{};
    for (int i = 0; i < run; ++i) {
      const V q = level(i, inverse_scale, least);
      const V wq = w_[i] * q;
      s.qq += wq * q;
      s.qx += wq * x_[i];
      if constexpr (has_least) {
        s.one += w_[i];
        s.q += wq;
        s.x += w_[i] * x_[i];
      }
    }
    return s;
  }

  // Least squares for the levels that these factors give.
  Factors refit(const Factors& from) const {
    const Sums s = sums(from.scale, from.least);
    const V alone = choose(s.qq > 0.0f, s.qx / s.qq, from.scale);
    if constexpr (!has_least) return {alone, V{}, V{}};
    const V determinant = s.one * s.qq - s.q * s.q;
    const I solvable = determinant > 1e-6f * s.one * s.qq;
    V scale = choose(solvable, (s.one * s.qx - s.q * s.x) / determinant, from.scale);
    V least = choose(solvable, (s.q * s.qx - s.qq * s.x) / determinant, from.least);
    if (grid_.scale_high > 0) {
      scale = choose(least < 0.0f, alone, scale);
      least = larger(least, all(0));
    }
    return {larger(scale, all(0)), least, V{}};
  }

  V error(const V& scale, const V& least) const {
    const V inverse_scale = inverse(scale);
    V total{};
    for (int i = 0; i < run; ++i) {
      V decoded = scale * level(i, inverse_scale, least);
      if constexpr (has_least) decoded -= least;
      const V difference = x_[i] - decoded;
      total += w_[i] * difference * difference;
    }
    return total;
  }

  // Takes `other`, as it can be stored, in the runs where it is better.
  void improve(Factors& best, const Factors& other) const {
    Factors tried = other;
    if (grid_.scale_high == 0) {
      tried.scale = through_f16(other.scale);
      if constexpr (has_least) tried.least = through_f16(other.least);
    }
    tried.error = error(tried.scale, tried.least);
    const I better = tried.error < best.error;
    best.scale = choose(better, tried.scale, best.scale);
    best.least = choose(better, tried.least, best.least);
    best.error = choose(better, tried.error, best.error);
  }

  Factors plain() const { return start(has_least ? high_ : grid_.starts[0]); }

  Factors find_runs() const {
    Factors best = plain();
    if (grid_.scale_high == 0) {
      best.scale = through_f16(best.scale);
      best.least = through_f16(best.least);
    }
    best.error = error(best.scale, best.least);
    for (int i = 0; i < grid_.start_count; ++i) improve(best, refit(start(grid_.starts[i])));
    for (int i = 0; i < 2; ++i) improve(best, refit(best));
    return best;
  }

  void find_blocks(LevelFit& fit) const {
    const Factors best = find_runs();
    memcpy(fit.d, &best.scale, sizeof best.scale);
    memcpy(fit.minimum, &best.least, sizeof best.least);
    write_levels(best.scale, best.least, fit);
  }

  // --- super-blocks --------------------------------------------------------------------------

  V integers(const V& values, float factor, float low) const {
    const V steps = values * inverse(all(factor));
    return rounded(smaller(larger(steps, all(low)), all(static_cast<float>(grid_.scale_high))));
  }

  // The least that suits the levels of this scale.
  V refit_least(const V& scale, const V& least) const {
    const Sums s = sums(scale, least);
    return larger((scale * s.q - s.x) / s.one, all(0));
  }

  // The best integers for these factors: with `near`, the neighbours of the rounded ones too.
  void try_factors(SuperBlock& best, const Factors& runs, float d, float minimum, bool near) const {
    const auto scale_low = static_cast<float>(grid_.scale_low);
    const auto scale_high = static_cast<float>(grid_.scale_high);
    SuperBlock tried;
    tried.d = through_f16(all(d))[0];
    tried.minimum = through_f16(all(minimum))[0];
    const V middle = integers(runs.scale, tried.d, scale_low);
    tried.scales = middle;
    tried.leasts = integers(runs.least, tried.minimum, 0);
    V least_error = error(tried.d * tried.scales, tried.minimum * tried.leasts);
    const auto take = [&](const V& scales, const V& leasts) {
      const V left = error(tried.d * scales, tried.minimum * leasts);
      const I better = left < least_error;
      tried.scales = choose(better, scales, tried.scales);
      tried.leasts = choose(better, leasts, tried.leasts);
      least_error = choose(better, left, least_error);
    };
    for (int step = -1; near && step <= 1; ++step) {
      const V scales =
          smaller(larger(middle + static_cast<float>(step), all(scale_low)), all(scale_high));
      if constexpr (has_least) {
        const V least = refit_least(tried.d * scales, runs.least);
        take(scales, integers(least, tried.minimum, 0));
      } else if (step != 0) {
        take(scales, V{});
      }
    }
    tried.error = sum(least_error);
    if (tried.error < best.error) best = tried;
  }

  // Least squares for the two factors, given all the integers.
  void refit_factors(const SuperBlock& from, float& d, float& minimum) const {
    const Sums s = sums(from.d * from.scales, from.minimum * from.leasts);
    const float aa = sum(from.scales * from.scales * s.qq), ax = sum(from.scales * s.qx);
    d = aa > 0 ? ax / aa : from.d;
    minimum = from.minimum;
    if constexpr (has_least) {
      const float ab = sum(from.scales * from.leasts * s.q);
      const float bb = sum(from.leasts * from.leasts * s.one), bx = sum(from.leasts * s.x);
      const float determinant = aa * bb - ab * ab;
      if (determinant > 1e-6f * aa * bb) {
        d = (bb * ax - ab * bx) / determinant;
        minimum = (ab * ax - aa * bx) / determinant;
      }
      if (!(d >= 0)) d = from.d;
      if (!(minimum >= 0)) minimum = from.minimum;
    }
  }

  static float extreme_of(const V& v) {
    float extreme = 0;
    for (int lane = 0; lane < lanes; ++lane)
      if (__builtin_fabsf(v[lane]) > __builtin_fabsf(extreme)) extreme = v[lane];
    return extreme;
  }

  void find_super_block(LevelFit& fit) const {
    const auto scale_high = static_cast<float>(grid_.scale_high);
    const float end = has_least ? scale_high : static_cast<float>(grid_.scale_low);
    SuperBlock best;
    const Factors first = plain();
    try_factors(best, first, extreme_of(first.scale) / end, extreme_of(first.least) / scale_high,
                false);
    const Factors runs = find_runs();
    const float scale = extreme_of(runs.scale), least = extreme_of(runs.least) / scale_high;
    try_factors(best, runs, scale / end, least, true);
    if (!has_least) try_factors(best, runs, scale / scale_high, 0, true);
    for (int i = 0; i < 2; ++i) {
      float d = 0, minimum = 0;
      refit_factors(best, d, minimum);
      try_factors(best, runs, d, minimum, true);
    }
    fit.d[0] = best.d;
    fit.minimum[0] = best.minimum;
    for (int lane = 0; lane < lanes; ++lane) {
      fit.scales[lane] = static_cast<int>(best.scales[lane]);
      fit.leasts[lane] = static_cast<int>(best.leasts[lane]);
    }
    write_levels(best.d * best.scales, best.minimum * best.leasts, fit);
  }

  void write_levels(const V& scale, const V& least, LevelFit& fit) const {
    const V inverse_scale = inverse(scale);
    for (int i = 0; i < run; ++i) {
      const V q = level(i, inverse_scale, least);
      for (int lane = 0; lane < lanes; ++lane) fit.levels[lane * run + i] = q[lane];
    }
  }

  const LevelGrid& grid_;
  V x_[run];
  V w_[run];
  float low_, high_;
  V extreme_, least_value_, largest_value_;
};

void search_levels(const LevelGrid& grid, const float* values, const float* importance,
                   LevelFit& fit) {
  if (grid.nonlinear) return Search<32, false, true>(grid, values, importance).find(fit);
  if (grid.run == 16) {
    if (grid.has_least) return Search<16, true, false>(grid, values, importance).find(fit);
    return Search<16, false, false>(grid, values, importance).find(fit);
  }
  if (grid.has_least) return Search<32, true, false>(grid, values, importance).find(fit);
  return Search<32, false, false>(grid, values, importance).find(fit);
}

}  // namespace
}  // namespace qnext
