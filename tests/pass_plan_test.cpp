// Cutting a step into passes: nothing is lost, nothing is out of order, and states connect.
#include "backend/cuda/pass_plan.h"

#include <gtest/gtest.h>

#include <map>
#include <random>

#include "backend/cuda/packed_shapes.h"
#include "ops/attention/paged_attention_cuda.h"

namespace qnext::backend::cuda {
namespace {

struct Step {
  std::vector<std::vector<int32_t>> slots;  // of each sequence's rows
  std::vector<RowSequence> sequences;
};

// Answers keep the state of every row, prompts that of some rows, and of the last.
Step random_step(std::mt19937& random) {
  const auto integer = [&](int64_t low, int64_t high) {
    return std::uniform_int_distribution<int64_t>(low, high)(random);
  };
  Step step;
  const auto count = static_cast<size_t>(integer(1, 60));
  step.slots.resize(count);
  int64_t row = 0;
  int32_t next_slot = 0;
  for (size_t i = 0; i < count; ++i) {
    RowSequence s;
    s.answer = integer(0, 1) == 1;
    s.first_row = row;
    s.rows = s.answer ? integer(1, 20) : integer(1, 200);
    s.first_position = integer(0, 2) == 0   ? 17 * ops::cuda::answer_span - integer(0, 30)
                       : integer(0, 1) == 0 ? 65536 - integer(0, 30)
                                            : integer(0, 1000);
    s.state_in = integer(0, 3) == 0 ? no_slot : next_slot++;
    for (int64_t r = 0; r < s.rows; ++r) {
      const bool kept = s.answer || r + 1 == s.rows || integer(0, 40) == 0;
      step.slots[i].push_back(kept ? next_slot++ : no_slot);
    }
    s.state_out = step.slots[i];
    row += s.rows;
    step.sequences.push_back(s);
  }
  return step;
}

TEST(PassPlan, EveryRowOnceInOrderWithItsState) {
  std::mt19937 random(5);
  for (int repeat = 0; repeat < 200; ++repeat) {
    const Step step = random_step(random);
    std::map<int64_t, const RowSequence*> at;  // by the next row of the driver
    std::map<const RowSequence*, int64_t> done;
    std::map<const RowSequence*, int32_t> state;
    for (const RowSequence& s : step.sequences) {
      at[s.first_row] = &s;
      state[&s] = s.state_in;
    }
    for (const PassPlan& plan : plan_passes(step.sequences)) {
      int64_t rows = 0;
      for (const PassSequence& piece : plan.sequences) {
        ASSERT_EQ(piece.rows.first_row, rows);
        rows += piece.rows.rows;
        const auto found = at.find(piece.driver_row);
        ASSERT_NE(found, at.end()) << "row " << piece.driver_row;
        const RowSequence* s = found->second;
        ASSERT_EQ(s->answer, plan.answer);
        ASSERT_EQ(piece.rows.first_position, s->first_position + done[s]);
        ASSERT_EQ(piece.rows.state_in, state[s]);
        ASSERT_LE(piece.rows.first_position + piece.rows.rows, plan.longest);
        ASSERT_LE(piece.rows.rows, plan.most_rows);
        if (plan.answer) {
          ASSERT_LE(piece.rows.rows, ops::cuda::most_answer_rows);
          ASSERT_LE(piece.rows.rows, ops::cuda::answer_rows_from(piece.rows.first_position));
        } else {  // no state is kept inside
          for (int64_t r = 0; r + 1 < piece.rows.rows; ++r)
            ASSERT_EQ(piece.rows.state_out[static_cast<size_t>(r)], no_slot);
        }
        state[s] = piece.rows.state_out.back();
        done[s] += piece.rows.rows;
        at.erase(found);
        if (done[s] < s->rows) at[s->first_row + done[s]] = s;
      }
      ASSERT_EQ(rows, plan.rows);
      if (plan.answer) {
        ASSERT_LE(rows, most_answer_pass_rows);
      }
    }
    EXPECT_TRUE(at.empty());
  }
}

TEST(PassPlan, AnswersComeFirst) {
  std::mt19937 random(6);
  for (int repeat = 0; repeat < 50; ++repeat) {
    bool prompts = false;
    for (const PassPlan& plan : plan_passes(random_step(random).sequences)) {
      EXPECT_FALSE(plan.answer && prompts);
      prompts = prompts || !plan.answer;
    }
  }
}

}  // namespace
}  // namespace qnext::backend::cuda
