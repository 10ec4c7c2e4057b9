// How many drafts a step are worth their rows.
//
// A step that verifies drafts draws more tokens and takes longer. How many more depends on the
// sequence: on the share of its drafts that turn out right. How much longer depends on the machine
// and on who else runs: alone, a row more is nearly free; in a large batch it may cost what a row
// of another sequence costs. Neither is known beforehand, so both are measured:
//
//   acceptance[s]        of a sequence's drafts, averaged over about the last 8 that were judged
//   seconds[rows, depth] of a step of so many rows that verifies, and proposes, `depth` drafts a
//                        sequence: the least seen lately. Only steps without prompts count.
//
// With acceptance p, d drafts are expected to draw 1 + p + ... + p^d tokens. The depth with most
// expected tokens a second, over all sequences together, is chosen for the next few steps; a
// sequence whose drafts are seldom right takes part less deep, or not at all.
//
// What is not tried is slowly forgotten in its favour: an unused acceptance drifts up, the seconds
// of a depth not chosen drift down. So each is tried again now and then, the sooner the less it
// had lost by, and a change is noticed. A depth that was never timed, not even for nearly as many
// rows, is tried at once. The tries cost one or two percent of the time of a model whose drafts are
// all wrong.
//
// A sequence that may speculate keeps the MTP head's cache in step with every row, which costs what
// the head's one layer costs, and cannot make up for a row later. Where 512 steps gain too few
// tokens to pay for that, it lets go: the head no longer runs for it, and it never speculates
// again. Later requests start afresh, with the acceptance that was usual lately.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <utility>
#include <vector>

namespace qnext::engine {

struct PlannedStep;
struct Sequence;

// One sequence's part.
struct DraftRecord {
  // Of one draft, those before it being right.
  double acceptance = 0.8;
  int32_t wanted = 0;         // drafts in its next step
  bool head_in_step = false;  // the MTP head has seen every row
  // Of the newest steps, counted to 512: how many, and the tokens that drafts added.
  int32_t steps = 0;
  int32_t gained = 0;
};

class Speculation {
 public:
  // Not adaptive: always as many drafts as the request allows. `layers` of the model, for what the
  // head's one costs.
  Speculation(bool adaptive, size_t layers);

  // A new sequence.
  void join(Sequence& sequence) const;
  // Sets DraftRecord::wanted of all running sequences, before their next step is planned.
  void choose(std::span<Sequence* const> running);
  // A step has run, in so many seconds.
  void timed(std::span<const PlannedStep> plan, double seconds);
  // Of a sequence's drafts, so many were right. Also without drafts, for every step of an answer.
  void judged(DraftRecord& record, int32_t drafts, int32_t accepted);

 private:
  // Of the steps of one shape.
  struct Timing {
    double seconds = 0;   // 0: never timed
    double discount = 1;  // shrinks while the shape is not chosen
  };

  int32_t best_depth(std::span<Sequence* const> decoding);
  Timing& timing(int32_t rows, int32_t depth);
  double predict(int32_t rows, int32_t depth);

  bool adaptive_;
  int32_t least_gain_;
  std::map<std::pair<int32_t, int32_t>, Timing> timings_;  // by depth and rows, rounded
  double usual_acceptance_ = 0.8;
  int32_t depth_ = 0;
  int32_t steps_left_ = 0;  // until it is chosen anew
  size_t chosen_for_ = 0;   // sequences
};

}  // namespace qnext::engine
