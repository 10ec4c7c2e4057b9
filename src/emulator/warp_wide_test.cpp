// What the threads of a warp tell each other, and when some of them are elsewhere.
#include <gtest/gtest.h>

#include "emulator/arithmetic_test.h"

namespace qnext::emulator {
namespace {

// 64 threads, random words; the second input is small.
Words warp_inputs() {
  std::mt19937_64 random(3);
  Words inputs(3, std::vector<uint64_t>(64));
  for (size_t i = 0; i < 64; ++i) {
    inputs[0][i] = random() & 0xFFFFFFFF;
    inputs[1][i] = random() % 40;
    inputs[2][i] = random() % 3;
  }
  return inputs;
}

struct Shuffled {
  uint64_t value = 0;
  bool within = false;
};

// By segments: lanes whose bits under the mask are the same.
Shuffled shuffled(std::string_view mode, const uint64_t* values, int lane, int b, int clamp,
                  int segment) {
  b &= 31;
  int source = lane;
  bool within = false;
  const int first = lane & segment, last = first | (clamp & ~segment);
  if (mode == "up") {
    source = lane - b;
    within = source >= last;
  } else {
    source = mode == "down" ? lane + b : mode == "bfly" ? lane ^ b : first | (b & ~segment);
    within = source <= last;
  }
  return {values[within ? source : lane], within};
}

TEST(EmulatorWarp, Shuffles) {
  const Words inputs = warp_inputs();
  for (const std::string_view mode : {"up", "down", "bfly", "idx"}) {
    for (const int width : {32, 16, 8, 4}) {
      const int segment = 32 - width, clamp = mode == "up" ? 0 : 31;
      const std::string body = fmt::format(
          "cvt.u32.u64 %r0, %in0; cvt.u32.u64 %r1, %in1; mov.u32 %r2, {}; mov.u32 %r4, -1;"
          "shfl.sync.{}.b32 %r0|%p0, %r0, %r1, %r2, %r4;"
          "cvt.u64.u32 %out0, %r0; selp.u64 %out1, 1, 0, %p0;",
          segment << 8 | clamp, mode);
      const Words outputs = run_ptx({.body = body, .threads = 64}, inputs, 2);
      for (size_t i = 0; i < 64; ++i) {
        const Shuffled right =
            shuffled(mode, inputs[0].data() + i / 32 * 32, static_cast<int>(i % 32),
                     static_cast<int>(inputs[1][i]), clamp, segment);
        EXPECT_EQ(outputs[0][i], right.value) << mode << width << " " << i;
        EXPECT_EQ(outputs[1][i], right.within) << mode << width << " " << i;
      }
    }
  }
}

TEST(EmulatorWarp, HalvesShuffleOnTheirOwn) {
  // The two halves come by different ways and with their own masks.
  const Words inputs = warp_inputs();
  const Words outputs = run_ptx(
      {.body = "cvt.u32.u64 %r0, %in0; mov.u32 %r9, %laneid; setp.lt.u32 %p0, %r9, 16;"
               "@%p0 bra low; mov.u32 %r1, 0xFFFF0000; shfl.sync.bfly.b32 %r2, %r0, 1, 31, %r1;"
               "bra.uni over; low: mov.u32 %r1, 0xFFFF;"
               "shfl.sync.bfly.b32 %r2, %r0, 2, 31, %r1; over: cvt.u64.u32 %out0, %r2;",
       .threads = 64},
      inputs, 1);
  for (size_t i = 0; i < 64; ++i)
    EXPECT_EQ(outputs[0][i], inputs[0][i ^ (i % 32 < 16 ? 2 : 1)]) << i;
}

TEST(EmulatorWarp, WaitsForThoseOnAnotherWay) {
  const Words inputs = warp_inputs();
  const Words outputs = run_ptx(
      {.body = "cvt.u32.u64 %r0, %in0; mov.u32 %r9, %laneid; and.b32 %r8, %r9, 1;"
               "setp.eq.s32 %p0, %r8, 0; @%p0 bra even; add.s32 %r0, %r0, 1; add.s32 %r0, %r0, 1;"
               "even: shfl.sync.bfly.b32 %r2, %r0, 1, 31, -1; cvt.u64.u32 %out0, %r2;",
       .threads = 64},
      inputs, 1);
  for (size_t i = 0; i < 64; ++i) {
    const uint64_t added = (i ^ 1) % 2 == 1 ? 2 : 0;
    EXPECT_EQ(outputs[0][i], (inputs[0][i ^ 1] + added) & 0xFFFFFFFF) << i;
  }
}

TEST(EmulatorWarp, Votes) {
  const Words inputs = warp_inputs();
  const Words outputs = run_ptx(
      {.body = "cvt.u32.u64 %r0, %in2; setp.eq.s32 %p0, %r0, 1; setp.lt.s32 %p1, %r0, 3;"
               "setp.gt.s32 %p2, %r0, 5; vote.sync.ballot.b32 %r1, %p0, -1;"
               "vote.sync.ballot.b32 %r2, !%p0, -1; cvt.u64.u32 %out0, %r1;"
               "cvt.u64.u32 %out1, %r2;"
               "vote.sync.any.pred %p3, %p0, -1; vote.sync.all.pred %p4, %p0, -1;"
               "vote.sync.uni.pred %p5, %p0, -1; vote.sync.any.pred %p6, %p2, -1;"
               "vote.sync.all.pred %p7, %p1, -1; vote.sync.uni.pred %p8, %p2, -1;"
               "selp.u64 %rd0, 1, 0, %p3; selp.u64 %rd1, 2, 0, %p4; selp.u64 %rd2, 4, 0, %p5;"
               "selp.u64 %rd3, 8, 0, %p6; selp.u64 %rd4, 16, 0, %p7; selp.u64 %rd5, 32, 0, %p8;"
               "or.b64 %rd0, %rd0, %rd1; or.b64 %rd0, %rd0, %rd2; or.b64 %rd0, %rd0, %rd3;"
               "or.b64 %rd0, %rd0, %rd4; or.b64 %out2, %rd0, %rd5;",
       .threads = 64},
      inputs, 3);
  for (size_t i = 0; i < 64; ++i) {
    uint64_t ballot = 0;
    for (size_t lane = 0; lane < 32; ++lane)
      ballot |= uint64_t{inputs[2][i / 32 * 32 + lane] == 1} << lane;
    EXPECT_EQ(outputs[0][i], ballot);
    EXPECT_EQ(outputs[1][i], ~ballot & 0xFFFFFFFF);
    EXPECT_EQ(outputs[2][i], 1u + 16u + 32u);
  }
}

TEST(EmulatorWarp, MatchesReductionsAndElection) {
  const Words inputs = warp_inputs();
  const Words outputs = run_ptx(
      {.body = "cvt.u32.u64 %r0, %in2; cvt.u32.u64 %r1, %in0;"
               "match.any.sync.b32 %r2, %r0, -1; cvt.u64.u32 %out0, %r2;"
               "match.all.sync.b32 %r3|%p0, %r0, -1; cvt.u64.u32 %out1, %r3;"
               "mov.u32 %r8, 9; match.all.sync.b32 %r3|%p1, %r8, -1; cvt.u64.u32 %out2, %r3;"
               "redux.sync.max.u32 %r4, %r1, -1; cvt.u64.u32 %out3, %r4;"
               "redux.sync.min.s32 %r4, %r1, -1; cvt.u64.u32 %out4, %r4;"
               "redux.sync.add.s32 %r4, %r1, -1; cvt.u64.u32 %out5, %r4;"
               "elect.sync %r5|%p2, -1; selp.u64 %out6, 1, 0, %p2;"
               "selp.u64 %rd0, 1, 0, %p0; selp.u64 %rd1, 2, 0, %p1; or.b64 %out7, %rd0, %rd1;",
       .threads = 64},
      inputs, 8);
  for (size_t i = 0; i < 64; ++i) {
    uint64_t equal = 0, sum = 0, most = 0;
    int32_t least = std::numeric_limits<int32_t>::max();
    for (size_t lane = 0; lane < 32; ++lane) {
      const size_t other = i / 32 * 32 + lane;
      equal |= uint64_t{inputs[2][other] == inputs[2][i]} << lane;
      sum += inputs[0][other];
      most = std::max(most, inputs[0][other]);
      least = std::min(least, static_cast<int32_t>(inputs[0][other]));
    }
    EXPECT_EQ(outputs[0][i], equal);
    EXPECT_EQ(outputs[1][i], 0u);
    EXPECT_EQ(outputs[2][i], 0xFFFFFFFF);
    EXPECT_EQ(outputs[3][i], most);
    EXPECT_EQ(outputs[4][i], static_cast<uint32_t>(least));
    EXPECT_EQ(outputs[5][i], sum & 0xFFFFFFFF);
    EXPECT_EQ(outputs[6][i], i % 32 == 0);
    EXPECT_EQ(outputs[7][i], 2u);
  }
}

TEST(EmulatorWarp, NobodyWaitsForThreadsThatLeft) {
  const Words outputs =
      run_ptx({.body = "mov.u32 %r9, %laneid; setp.ge.u32 %p0, %r9, 5; @%p0 exit;"
                       "setp.lt.u32 %p1, %r9, 3; vote.sync.ballot.b32 %r1, %p1, -1;"
                       "activemask.b32 %r2; cvt.u64.u32 %out0, %r1; cvt.u64.u32 %out1, %r2;"},
              {}, 2);
  EXPECT_EQ(outputs[0][0], 7u);
  EXPECT_EQ(outputs[1][4], 31u);
  EXPECT_EQ(outputs[0][5], ~uint64_t{0});
}

TEST(EmulatorWarp, AThreadBelongsToItsOwnMask) {
  EXPECT_THROW(
      run_ptx({.body = "vote.sync.ballot.b32 %r1, %p0, 1; cvt.u64.u32 %out0, %r1;"}, {}, 1),
      std::exception);
}

}  // namespace
}  // namespace qnext::emulator
