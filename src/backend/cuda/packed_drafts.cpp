// Drafts that follow each other, queued in one go: a token that the head has drawn goes into its
// next pass without the host's having seen it.
#include <algorithm>
#include <numeric>

#include "backend/cuda/packed_forward.h"

namespace qnext::backend::cuda {

void PackedForward::draft(std::span<const DraftChain> chains, std::span<int32_t> tokens) {
  lone_.interrupted();
  if (tokens.size_bytes() > drafted_.size()) drafted_ = PinnedBuffer(2 * tokens.size_bytes());
  auto* shown = drafted_.as<int32_t>();
  std::vector<const DraftChain*> going;  // chains with another draft, a row of the head each
  std::vector<int64_t> rows;
  for (const DraftChain& chain : chains) {
    going.push_back(&chain);
    rows.push_back(chain.row);
  }
  for (int32_t round = 0;; ++round) {
    queue_drafts(rows, shown);
    shown += rows.size();
    std::vector<const DraftChain*> remaining;
    std::vector<int32_t> places;  // of their tokens, in w_->drawn
    std::vector<int64_t> hidden;
    for (size_t i = 0; i < going.size(); ++i) {
      if (going[i]->drafts == round + 1) continue;
      remaining.push_back(going[i]);
      places.push_back(static_cast<int32_t>(i));
      hidden.push_back(rows[i]);
    }
    if (remaining.empty()) break;
    going = std::move(remaining);
    queue_next_rows(going, places, hidden, round);
    rows.resize(going.size());
    std::iota(rows.begin(), rows.end(), 0);
  }
  drawn_all_.record(stream_);
  drawn_all_.wait();
  // From rounds to chains.
  shown = drafted_.as<int32_t>();
  for (int32_t round = 0; shown < drafted_.as<int32_t>() + tokens.size(); ++round) {
    size_t first = 0;  // the chain's, in `tokens`
    for (const DraftChain& chain : chains) {
      if (round < chain.drafts) tokens[first + static_cast<size_t>(round)] = *shown++;
      first += static_cast<size_t>(chain.drafts);
    }
  }
}

// The greedy choices of rows of the head, into w_->drawn and `shown`.
void PackedForward::queue_drafts(std::span<const int64_t> rows, int32_t* shown) {
  for (size_t begin = 0; begin < rows.size(); begin += packed_logits_rows) {
    const auto group =
        rows.subspan(begin, std::min<size_t>(packed_logits_rows, rows.size() - begin));
    compute_logits(Hidden::mtp, group, model_.mtp->draft_head);
    timer_.stage(stream_, "sampling");
    draw_logits(static_cast<int64_t>(group.size()), true, w_->drawn + begin, shown + begin);
    timer_.stage(stream_, nullptr);
  }
}

// The head's rows for drafts that lie at places of w_->drawn; hidden: the rows they were drawn
// from.
void PackedForward::queue_next_rows(std::span<const DraftChain* const> chains,
                                    std::span<const int32_t> places,
                                    std::span<const int64_t> hidden, int64_t round) {
  std::vector<RowSequence> sequences;
  for (const DraftChain* const chain : chains)
    sequences.push_back(
        {std::ssize(sequences), 1, chain->position + round, chain->pages, no_slot, {}, true});
  run_mtp_passes({places, w_->drawn}, Hidden::mtp, hidden, sequences);
}

}  // namespace qnext::backend::cuda
