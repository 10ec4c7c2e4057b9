// Found levels and scales to the bytes of blocks: the inverse of decode().
#pragma once

#include "tensor/block_search.h"
#include "tensor/blocks.h"
#include "tensor/super_blocks.h"

namespace qnext {

// Block `index` of the eight that a fit of runs of 32 values holds.
void write_levels(const LevelFit& fit, int index, BlockQ8_0& block);
void write_levels(const LevelFit& fit, int index, BlockQ4_0& block);
void write_levels(const LevelFit& fit, int index, BlockQ4_1& block);
void write_levels(const LevelFit& fit, int index, BlockQ5_0& block);
void write_levels(const LevelFit& fit, int index, BlockQ5_1& block);
void write_levels(const LevelFit& fit, int index, BlockIQ4_NL& block);

// The one block of a fit: index is 0.
void write_levels(const LevelFit& fit, int index, BlockQ2_K& block);
void write_levels(const LevelFit& fit, int index, BlockQ3_K& block);
void write_levels(const LevelFit& fit, int index, BlockQ4_K& block);
void write_levels(const LevelFit& fit, int index, BlockQ5_K& block);
void write_levels(const LevelFit& fit, int index, BlockQ6_K& block);
void write_levels(const LevelFit& fit, int index, BlockIQ4_XS& block);

}  // namespace qnext
