// The search behind encode_row(), one variant an instruction set, all with the same bits.
#pragma once

#include <stdint.h>

namespace qnext {

// What 256 values are rounded to: runs of values that share a scale.
//   value = scale * level                                 levels low .. high
//   value = scale * level - least                         where has_least; levels 0 .. high
// scale and least are f16 of each run or, where scale_high > 0, a small integer of each run times
// an f16 factor of all: scale = d * integer (scale_low .. scale_high), least = minimum * integer
// (0 .. scale_high), and then least >= 0.
struct LevelGrid {
  int run;        // 16 or 32 values
  int low, high;  // of the levels; nonlinear ones are iq4_levels
  int scale_low, scale_high;
  bool has_least;
  bool nonlinear;
  // Where the search starts: the extreme value of a run stands for these levels; with has_least its
  // range for so many steps.
  float starts[12];
  int start_count;
};

struct LevelFit {
  float d[16];        // of each run; of super-blocks the first
  float minimum[16];  // likewise, taken off
  int scales[16];     // the integers of super-blocks
  int leasts[16];
  float levels[256];  // integers, in the order of the values
};

constexpr int searched_values = 256;

// values, importance: 256 each.
using LevelSearch = void (*)(const LevelGrid& grid, const float* values, const float* importance,
                             LevelFit& fit);
void search_levels_scalar(const LevelGrid& grid, const float* values, const float* importance,
                          LevelFit& fit);
void search_levels_avx2(const LevelGrid& grid, const float* values, const float* importance,
                        LevelFit& fit);
void search_levels_avx512(const LevelGrid& grid, const float* values, const float* importance,
                          LevelFit& fit);

}  // namespace qnext
