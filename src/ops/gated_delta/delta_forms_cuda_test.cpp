// The fast forms of Gated DeltaNet against the fp64 oracle of the whole mixer, and the promises
// about bits.
#include <numeric>

#include "base/error.h"
#include "ops/gated_delta/delta_forms_test.h"

namespace qnext::ops::cuda {
namespace {

// A rounding to bf16 is off by at most this, relatively, and by about half of it in the root mean
// square.
constexpr double bf16_roundoff = 0x1p-8;
// fp32 throughout, then one rounding: its worst case.
constexpr double decode_tolerance = bf16_roundoff;
// Eight roundings on the way of a value: q, k and v; the inverse; G or P; R; S as an operand; the
// output, twice. Independent, they add up to about sqrt(9) / 2 of the worst single one; 2 stands
// for the spread.
constexpr double chunked_tolerance = 3 * bf16_roundoff;
// fp32 sums of key_dim products and a few roundings a row; independent, with a factor 4 of spread
// (as for the plain kernel).
double state_tolerance(const TestLayer& test, int64_t rows) {
  return 4 * unit_roundoff *
         std::sqrt(static_cast<double>(rows * (2 * test.layer.shape.key_dim + 24)));
}

constexpr int64_t chunk = 64;

struct Rows {
  int64_t rows;
  int64_t first_position;
  bool fresh;
};

// Slot 2 i holds sequence i's state; odd sequences replace it, the others write slot 2 i + 1.
void check_form(Form form, Random& random, const TestLayer& test, const std::vector<Rows>& runs,
                const Gates& gates, StateFormat format = StateFormat::f32) {
  const GatedDeltaShape& shape = test.layer.shape;
  SCOPED_TRACE(testing::Message() << "heads " << shape.key_heads << ", " << shape.value_heads
                                  << ", dims " << shape.key_dim << ", " << shape.value_dim
                                  << ", width " << test.layer.conv_width << ", a " << gates.a_log
                                  << ", b " << gates.b);
  const auto count = static_cast<int32_t>(runs.size());
  DeltaRun device(test, 2 * count, format);
  std::vector<TestSequence> sequences;
  for (const Rows& run : runs)
    sequences.emplace_back(random, test, run.rows, run.first_position, run.fresh, gates);
  std::vector<DeltaRun::Piece> pieces;
  for (int32_t i = 0; i < count; ++i) {
    const TestSequence& sequence = sequences[static_cast<size_t>(i)];
    if (!sequence.fresh) device.set_slot(2 * i, sequence);
    pieces.push_back({&sequence,
                      0,
                      sequence.rows,
                      sequence.fresh ? -1 : 2 * i,
                      {i % 2 == 1 ? 2 * i : 2 * i + 1}});
  }
  const std::vector<float> out = device.run(form, pieces);
  int64_t row = 0;
  for (int32_t i = 0; i < count; ++i) {
    const TestSequence& sequence = sequences[static_cast<size_t>(i)];
    SCOPED_TRACE(testing::Message() << "sequence " << i << " of " << sequence.rows << " rows");
    const Expected expected = expect_delta(test, sequence);
    const int64_t width = test.layer.value_width();
    const bool decode = form == Form::decode;
    const double narrow = format == StateFormat::bf16
                              ? bf16_roundoff * std::sqrt(static_cast<double>(sequence.rows))
                              : 0;
    EXPECT_LT(relative_rms_error(out.data() + row * width, expected.out),
              (decode ? decode_tolerance : chunked_tolerance) + narrow);
    const int64_t slot = i % 2 == 1 ? 2 * i : 2 * i + 1;
    EXPECT_LT(relative_rms_error(device.state(slot).data(), expected.state),
              (decode ? state_tolerance(test, sequence.rows) : chunked_tolerance) + narrow);
    const std::vector<float> conv_state = device.conv_state(slot);
    for (size_t j = 0; j < conv_state.size(); ++j)
      ASSERT_EQ(static_cast<double>(conv_state[j]), expected.conv_state[j]) << j;
    for (float value : device.gap(slot)) ASSERT_TRUE(std::isnan(value));
    for (float value : device.gap(2 * i)) ASSERT_TRUE(std::isnan(value));
    row += sequence.rows;
  }
}

TEST_F(CudaOps, ChunkedDelta) {
  Random random(31);
  constexpr GatedDeltaShape shapes[] = {
      {2, 4, 128, 128}, {1, 1, 64, 64}, {2, 6, 128, 64}, {1, 2, 64, 128}, {1, 4, 128, 128}};
  for (const GatedDeltaShape& shape : shapes) {
    const TestLayer test(random, shape, random.integer(1, 4));
    check_form(Form::chunked, random, test,
               {{64, 0, true},
                {1, 0, true},
                {1, 5, false},
                {63, 64, false},
                {65, 0, true},
                {64, 37, false},
                {2, 63, false},
                {128, 192, false},
                {1000, random.integer(0, 200), false},
                {130, 1000, true}},
               {});
  }
}

TEST_F(CudaOps, ChunkedDeltaGates) {
  Random random(32);
  const std::vector<Rows> runs = {{200, 0, true}, {150, 77, false}};
  for (const Gates& gates : {Gates{3, 5, 0, 1}, Gates{6, 10, 0, 2}, Gates{-30, 0, 0, 1},
                             Gates{-4, 0, 15, 1}, Gates{-4, 0, -15, 1}, Gates{-30, 0, 15, 1}}) {
    const TestLayer test(random, {1, 2, 128, 128}, 4, gates);
    check_form(Form::chunked, random, test, runs, gates);
  }
}

TEST_F(CudaOps, ChunkedDeltaStateInBf16) {
  Random random(33);
  const TestLayer test(random, {2, 4, 128, 128}, 4);
  check_form(Form::chunked, random, test, {{100, 30, false}, {64, 0, true}, {129, 3, false}}, {},
             StateFormat::bf16);
}

// Whole; cut at multiples of the chunk; among companions.
TEST_F(CudaOps, ChunkedDeltaSameBitsHoweverCut) {
  Random random(34);
  for (const GatedDeltaShape& shape :
       {GatedDeltaShape{2, 4, 128, 128}, GatedDeltaShape{1, 3, 64, 64}}) {
    const TestLayer test(random, shape, 4);
    const int64_t first_position = random.integer(1, 63);
    const TestSequence sequence(random, test, 450, first_position, false);
    const TestSequence companion(random, test, 100, 17, true);
    const auto run = [&](std::vector<int64_t> cuts, bool accompanied) {
      DeltaRun device(test, 2);
      device.set_slot(0, sequence);
      std::vector<float> result;
      int64_t begin = 0;
      cuts.push_back(sequence.rows);
      for (int64_t end : cuts) {
        std::vector<DeltaRun::Piece> pieces{{&sequence, begin, end, 0, {0}}};
        if (accompanied) {
          pieces.insert(pieces.begin(), {&companion, 0, 100, -1, {1}});
          pieces.push_back({&companion, 0, 37, -1, {}});
        }
        const std::vector<float> out = device.run(Form::chunked, pieces);
        const int64_t width = test.layer.value_width(), skipped = accompanied ? 100 : 0;
        const std::vector<float> mine = slice(out, skipped * width, (end - begin) * width);
        result.insert(result.end(), mine.begin(), mine.end());
        begin = end;
      }
      for (const auto& state : {device.state(0), device.conv_state(0)})
        result.insert(result.end(), state.begin(), state.end());
      return result;
    };
    const std::vector<float> whole = run({}, false);
    for (float value : whole) ASSERT_FALSE(std::isnan(value));
    const int64_t edge = chunk - first_position;
    expect_same_bits(run({edge}, false), whole);
    expect_same_bits(run({edge + chunk, edge + 4 * chunk}, true), whole);
    expect_same_bits(run({edge, edge + chunk, edge + 2 * chunk, edge + 5 * chunk}, false), whole);
    expect_same_bits(run({}, true), whole);
  }
}

TEST_F(CudaOps, DecodeDelta) {
  Random random(35);
  constexpr GatedDeltaShape shapes[] = {{2, 4, 128, 128}, {2, 2, 64, 64},  {1, 3, 128, 64},
                                        {2, 6, 64, 128},  {1, 3, 128, 96}, {1, 1, 64, 32}};
  for (const GatedDeltaShape& shape : shapes) {
    const TestLayer test(random, shape, random.integer(1, 4));
    check_form(Form::decode, random, test,
               {{1, 0, true},
                {1, 9, false},
                {8, 3, false},
                {2, 0, true},
                {9, 4, false},
                {17, 4, false},
                {3, 1, false}},
               {});
  }
  for (const Gates& gates : {Gates{6, 10, 0, 2}, Gates{-30, 0, 15, 1}, Gates{-4, 0, -15, 1}}) {
    const TestLayer test(random, {2, 4, 128, 128}, 4, gates);
    check_form(Form::decode, random, test, {{5, 0, false}, {1, 0, true}}, gates);
  }
}

TEST_F(CudaOps, DecodeDeltaStateInBf16) {
  Random random(36);
  const TestLayer test(random, {2, 4, 128, 128}, 4);
  check_form(Form::decode, random, test, {{5, 0, false}, {1, 0, true}, {8, 8, false}}, {},
             StateFormat::bf16);
}

// Rows together and one by one, alone and among others: outputs and the state after every row.
TEST_F(CudaOps, DecodeDeltaSameBitsHoweverSplit) {
  Random random(37);
  for (const StateFormat format : {StateFormat::f32, StateFormat::bf16}) {
    for (const GatedDeltaShape& shape :
         {GatedDeltaShape{2, 4, 128, 128}, GatedDeltaShape{1, 3, 64, 64}}) {
      const TestLayer test(random, shape, 4);
      constexpr int32_t rows = 11;
      const TestSequence sequence(random, test, rows, 0, false);
      const TestSequence companion(random, test, 3, 17, true);
      const auto run = [&](int64_t together, bool accompanied, bool at_rest) {
        DeltaRun device(test, rows + 2, format);
        device.set_slot(0, sequence);
        std::vector<float> result;
        for (int64_t begin = 0; begin < rows; begin += together) {
          const int64_t end = std::min<int64_t>(rows, begin + together);
          std::vector<int32_t> slots;
          for (int64_t t = begin; t < end; ++t) slots.push_back(static_cast<int32_t>(t + 1));
          std::vector<DeltaRun::Piece> pieces{
              {&sequence, begin, end, static_cast<int32_t>(begin), slots}};
          if (accompanied) pieces.push_back({&companion, 0, 3, -1, {rows + 1}});
          const std::vector<float> out = device.run(Form::decode, pieces, at_rest);
          const std::vector<float> mine = slice(out, 0, (end - begin) * test.layer.value_width());
          result.insert(result.end(), mine.begin(), mine.end());
        }
        for (int32_t slot = 1; slot <= rows; ++slot)
          for (const auto& state : {device.state(slot), device.conv_state(slot)})
            result.insert(result.end(), state.begin(), state.end());
        return result;
      };
      const std::vector<float> whole = run(rows, false, true);
      for (float value : whole) ASSERT_FALSE(std::isnan(value));
      expect_same_bits(run(1, false, true), whole);
      expect_same_bits(run(1, true, false), whole);
      expect_same_bits(run(4, true, true), whole);
      for (int64_t together : {2, 3, 4, 5, 8}) expect_same_bits(run(together, false, true), whole);
    }
  }
}

// Few rows of one sequence, as drafts that are verified: outputs and states are right, and those
// that they have beside another sequence. States of some rows are kept, the last one's in the slot
// it came from.
TEST_F(CudaOps, DecodeDeltaFewRows) {
  Random random(40);
  for (const StateFormat format : {StateFormat::f32, StateFormat::bf16}) {
    for (const GatedDeltaShape& shape :
         {GatedDeltaShape{2, 4, 128, 128}, GatedDeltaShape{1, 1, 128, 128},
          GatedDeltaShape{2, 6, 64, 128}, GatedDeltaShape{1, 4, 64, 128}}) {
      for (int64_t rows = 1; rows <= 8; ++rows) {
        SCOPED_TRACE(testing::Message() << rows << " rows");
        const TestLayer test(random, shape, random.integer(1, 4));
        check_form(Form::decode, random, test, {{rows, 7, rows % 3 == 0}}, {}, format);
        const TestSequence sequence(random, test, rows, 7, rows % 3 == 0);
        const TestSequence companion(random, test, 8, 17, true);
        const auto run = [&](bool accompanied, bool at_rest) {
          DeltaRun device(test, 10, format);
          device.set_slot(0, sequence);
          std::vector<int32_t> slots;
          for (int32_t t = 0; t < rows; ++t) slots.push_back(t % 4 == 2 ? -1 : t + 1);
          slots.back() = 0;
          std::vector<DeltaRun::Piece> pieces{{&sequence, 0, rows, sequence.fresh ? -1 : 0, slots}};
          if (accompanied) pieces.insert(pieces.begin(), {&companion, 0, 8, -1, {9}});
          const std::vector<float> out = device.run(Form::decode, pieces, at_rest);
          const int64_t mine = rows * test.layer.value_width();
          std::vector<float> result = slice(out, static_cast<int64_t>(out.size()) - mine, mine);
          for (int32_t slot = 0; slot < 9; ++slot)
            for (const auto& state : {device.state(slot), device.conv_state(slot)})
              result.insert(result.end(), state.begin(), state.end());
          return result;
        };
        const std::vector<float> alone = run(false, true);
        expect_same_bits(run(true, true), alone);
        expect_same_bits(run(false, false), alone);
      }
    }
  }
}

// So many sequences that a kernel of its own takes them: outputs and states of each are those that
// it has alone, whether its rows are few or none, fresh or in place.
TEST_F(CudaOps, DecodeDeltaSameBitsAmongManySequences) {
  Random random(39);
  for (const StateFormat format : {StateFormat::f32, StateFormat::bf16}) {
    for (const GatedDeltaShape& shape :
         {GatedDeltaShape{6, 12, 128, 128}, GatedDeltaShape{6, 6, 128, 128}}) {
      const TestLayer test(random, shape, format == StateFormat::f32 ? 4 : 3);
      constexpr int32_t count = 70;
      std::vector<TestSequence> sequences;
      for (int32_t i = 0; i < count; ++i)
        sequences.emplace_back(random, test, i % 5 == 0 ? 3 : 1, 4, i % 7 == 3);
      const std::vector<int32_t> looked_at = {0, 1, 3, 7, 8, 9, 10, 35, 67, 68, 69};
      // The n-th of the chosen sequences reads slot 2 n. Its last row writes there too or to 2 n
      // + 1. The outputs, then the states of those that are looked at.
      const auto run = [&](const std::vector<int32_t>& chosen, bool at_rest) {
        DeltaRun device(test, 2 * static_cast<int64_t>(chosen.size()), format);
        std::vector<DeltaRun::Piece> pieces;
        for (int32_t n = 0; n < static_cast<int32_t>(chosen.size()); ++n) {
          const int32_t i = chosen[static_cast<size_t>(n)];
          const TestSequence& sequence = sequences[static_cast<size_t>(i)];
          if (!sequence.fresh) device.set_slot(2 * n, sequence);
          pieces.push_back({&sequence,
                            0,
                            sequence.rows,
                            sequence.fresh ? -1 : 2 * n,
                            {i % 2 == 1 ? 2 * n : 2 * n + 1}});
        }
        // One without rows among them.
        if (chosen.size() > 1) pieces.insert(pieces.begin() + 8, {&sequences[0], 0, 0, -1, {}});
        std::vector<std::vector<float>> results{device.run(Form::decode, pieces, at_rest)};
        for (int32_t n = 0; n < static_cast<int32_t>(chosen.size()); ++n) {
          const int32_t i = chosen[static_cast<size_t>(n)];
          if (std::find(looked_at.begin(), looked_at.end(), i) == looked_at.end()) continue;
          const int32_t slot = i % 2 == 1 ? 2 * n : 2 * n + 1;
          results.push_back(device.state(slot));
          results.push_back(device.conv_state(slot));
          for (float value : device.gap(2 * n)) EXPECT_TRUE(std::isnan(value));
        }
        return results;
      };
      std::vector<int32_t> all(count);
      std::iota(all.begin(), all.end(), 0);
      const auto together = run(all, true), not_at_rest = run(all, false);
      for (size_t k = 0; k < together.size(); ++k) expect_same_bits(not_at_rest[k], together[k]);
      size_t place = 1;
      int64_t row = 0;
      for (int32_t i : all) {
        const int64_t rows = sequences[static_cast<size_t>(i)].rows;
        const int64_t width = test.layer.value_width();
        if (std::find(looked_at.begin(), looked_at.end(), i) != looked_at.end()) {
          const auto alone = run({i}, true);
          expect_same_bits(slice(together[0], row * width, rows * width), alone[0]);
          for (size_t k = 1; k < alone.size(); ++k) expect_same_bits(together[place++], alone[k]);
        }
        row += rows;
      }
      EXPECT_EQ(place, together.size());
    }
  }
}

TEST_F(CudaOps, DeltaFormsRefuseOtherSizes) {
  Random random(38);
  const auto refused = [&](Form form, const GatedDeltaShape& shape, int64_t width) {
    const TestLayer test(random, shape, width);
    const TestSequence sequence(random, test, 1, 0, true);
    DeltaRun device(test, 1);
    EXPECT_THROW(device.run(form, {{&sequence, 0, 1, -1, {0}}}), Error)
        << shape.key_dim << ", " << shape.value_dim;
  };
  refused(Form::chunked, {1, 2, 96, 128}, 4);
  refused(Form::chunked, {1, 2, 128, 96}, 4);
  refused(Form::chunked, {1, 5, 64, 64}, 4);
  refused(Form::chunked, {1, 2, 128, 128}, 5);
  refused(Form::decode, {1, 2, 96, 128}, 4);
  refused(Form::decode, {1, 2, 128, 48}, 4);
  refused(Form::decode, {1, 5, 128, 128}, 4);
  refused(Form::decode, {1, 2, 128, 128}, 5);
}

}  // namespace
}  // namespace qnext::ops::cuda
