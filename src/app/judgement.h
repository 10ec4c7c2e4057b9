// Whether the numbers of a backend that rounds its activations are those of the reference.
//
// Such a backend cannot be judged by its largest error. A router takes the k best of its experts,
// and a token whose k-th and (k+1)-th logits are nearer to one another than the roundings may go to
// another expert: that row of the residual stream then moves by a good part of its size, rightly.
// So rows are judged one by one. Errors are a row's largest, over the largest magnitude of the
// whole tensor. For each tensor:
//
// 1. The median of all rows is within the tolerance: a wrong formula moves every row.
// 2. Of the rows whose experts agree, few exceed the tolerance, and the fewer the further: at most
//    a share s / c exceeds c tolerances, for c = 1, 2, 4, ..., where s is 1/16 for each layer
//    passed, and 1/4 at most. One row alone that is wrong by the size of a row is too much after
//    the first layer.
// 3. Every row, whatever its experts, errs by less than twice the largest magnitude, as numbers of
//    one size do.
//
// A row is *diverted* if at a layer before the tensor the backend did choose other experts than the
// reference, and the reference's own logits say that it may: the gap between its k-th and
// (k+1)-th is at most two tolerances (each may err by one). What might have been chosen by a hair
// but was not excuses nobody.
//
// Rows after a diverted one in its sequence are not excused: it reaches them as one of many
// positions, weighted, and they keep within rule 2. The rule is not "no row at all" because of the
// norms over single heads (Gated DeltaNet's output, keys): where a head's output nearly cancels,
// its norm magnifies the roundings by the inverse of its size, whose tail falls as 1 / c. With
// heads of 16 dimensions and random weights, bf16 roundings put into the fp64 oracle take up to
// 0.8 of the rows that are granted at c = 1, 2 and 4, and pass beyond (40 ways to round, g1-small
// and g3-yarn); with heads of 128 (g2-heads) none.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace qnext::app {

// Up to this a backend sums in fp32 and is judged by its largest error alone: it chooses other
// experts only at gaps below that, which no folder's vectors have shown.
constexpr double exact_error = 1e-4;

// Which rows went to other experts than the reference's, as layers pass.
class DivertedRows {
 public:
  explicit DivertedRows(int64_t rows) : diverted_(static_cast<size_t>(rows), 0) {}
  // One router's logits [rows, experts], of which each row takes the top_k best. tolerance:
  // relative to the largest magnitude of `expected`.
  void pass(std::span<const float> found, std::span<const float> expected, int64_t top_k,
            double tolerance);
  // A layer whose router the reference does not show: from here on nothing is known.
  void pass_unknown() { known_ = false; }

  bool known() const { return known_; }
  bool diverted(int64_t row) const { return known_ && diverted_[static_cast<size_t>(row)] != 0; }

 private:
  std::vector<char> diverted_;  // [rows]
  bool known_ = true;
};

struct RowJudgement {
  double tolerance = 0;       // of this tensor, relative
  double median = 0;          // of all rows
  int64_t rows = 0;           // of the tensor
  int64_t beyond = 0;         // those that exceed the tolerance
  bool experts_known = true;  // else rule 2 is left out
  int64_t judged = 0;         // rows that rule 2 judged: not diverted
  int64_t judged_beyond = 0;  // of these, those that exceed the tolerance
  bool passed = false;

  int64_t diverted() const { return experts_known ? rows - judged : 0; }
};

// row_errors: relative; NaN counts as infinite. `layers`: how many were passed, a mixer alone
// counting half. Fails where every row is diverted
// although no more than a layer and a half was passed: it then judged nothing.
RowJudgement judge_rows(std::span<const double> row_errors, const DivertedRows& experts,
                        double layers, double tolerance);

// Roundings add like the roots of their number: the tolerance after some of a model's layers.
double tolerance_after(double layers, int64_t of_layers, double tolerance);

// Drawn tokens that differ beyond near ties and may: one in 16, as diverted rows draw too.
inline int64_t tokens_excused(int64_t tokens) {
  return (tokens + 15) / 16;
}

}  // namespace qnext::app
