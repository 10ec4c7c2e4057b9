#include "backend/cuda/pass_arrays.h"

#include <cstring>
#include <type_traits>

#include "backend/cuda/few_words.h"

namespace qnext::backend::cuda {

PassBatch PassArrays::upload(const Stream& stream, const PassPlan& plan, const StateSlots& slots,
                             const PassTokens& tokens, std::span<const int32_t> hidden_rows) {
  const auto rows = static_cast<size_t>(plan.rows);
  std::vector<ops::cuda::SequenceRows> sequence;
  std::vector<int32_t> sequence_of, state_out, pages;
  for (const PassSequence& piece : plan.sequences) {
    const RowSequence& s = piece.rows;
    // 32 bits are enough: the positions of a sequence lie on pages of numbers that fit.
    sequence.push_back({static_cast<int32_t>(s.first_row), static_cast<int32_t>(s.rows),
                        static_cast<int32_t>(s.first_position), static_cast<int32_t>(pages.size()),
                        slots.place(s.state_in)});
    pages.insert(pages.end(), s.pages.begin(), s.pages.end());
    sequence_of.insert(sequence_of.end(), static_cast<size_t>(s.rows),
                       static_cast<int32_t>(sequence.size()) - 1);
    for (const int32_t slot : s.state_out) state_out.push_back(slots.place(slot));
    state_out.resize(sequence_of.size(), no_slot);
  }
  if (is_lone_row(plan)) state_out.front() = slots.spare_place();
  std::vector<int32_t> all;
  const auto append = [&](const auto* values, size_t count) {
    using Value = std::remove_cvref_t<decltype(*values)>;
    static_assert(sizeof(Value) % sizeof(int32_t) == 0);
    const size_t at = all.size();
    all.resize(at + count * sizeof(Value) / sizeof(int32_t));
    if (count > 0) std::memcpy(all.data() + at, values, count * sizeof(Value));
    return at;
  };
  const size_t sequence_at = append(sequence.data(), sequence.size());
  const size_t sequence_of_at = append(sequence_of.data(), rows);
  const size_t state_out_at = append(state_out.data(), rows);
  const size_t tokens_at = append(tokens.values.data(), rows);
  const size_t hidden_at = append(hidden_rows.data(), hidden_rows.size());
  all.resize(hidden_at + rows);  // the pages' place is the same with and without hidden rows
  const size_t pages_at = append(pages.data(), pages.size());

  const size_t bytes = all.size() * sizeof(int32_t);
  if (bytes > memory_.size()) {
    stream.wait();  // the old arrays may be in use
    memory_ = DeviceBuffer(2 * bytes, "the page tables; use a shorter --context");
    ++generation_;
  }
  auto* base = memory_.as<int32_t>();
  const LookedUp looked_up{tokens_at, tokens.table ? rows : 0, tokens.table};
  if (all.size() <= most_few_words) {
    write_few_words(stream, all, base, looked_up);
  } else {
    copy(stream, all);
    if (tokens.table) look_up(stream, base, looked_up);
  }

  lone_row_ = {reinterpret_cast<ops::cuda::SequenceRows*>(base + sequence_at), base + state_out_at,
               base + tokens_at};
  PassBatch out;
  out.batch.rows = plan.rows;
  out.batch.sequences = static_cast<int64_t>(sequence.size());
  out.batch.sequence = reinterpret_cast<const ops::cuda::SequenceRows*>(base + sequence_at);
  out.batch.sequence_of = base + sequence_of_at;
  out.batch.state_out = base + state_out_at;
  out.batch.pages = base + pages_at;
  out.tokens = base + tokens_at;
  out.hidden_rows = base + hidden_at;
  return out;
}

void PassArrays::copy(const Stream& stream, std::span<const int32_t> words) {
  const size_t bytes = words.size_bytes();
  Staging& staging = staging_[turn_++ % staging_.size()];
  staging.copied.wait();
  if (bytes > staging.memory.size()) staging.memory = PinnedBuffer(2 * bytes);
  std::memcpy(staging.memory.data(), words.data(), bytes);
  stream.copy_to_device(memory_.data(), staging.memory.data(), bytes);
  staging.copied.record(stream);
}

}  // namespace qnext::backend::cuda
