// Branches that part threads, loops, calls, memory of every kind, and what a faulty kernel is told.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "emulator/ptx_test.h"

namespace qnext::emulator {
namespace {

using ::testing::HasSubstr;

std::string fault_of(const PtxTest& test, const Words& inputs) {
  try {
    run_ptx(test, inputs, 1);
  } catch (const Error& error) {
    return error.what();
  }
  return "no fault";
}

// Odd threads take the other way; both meet again and exchange.
TEST(Control, ThreadsPartAndMeet) {
  const Words out = run_ptx({.body = R"(
    cvt.u32.u64 %r0, %in0;
    and.b32 %r1, %r0, 1;
    setp.eq.u32 %p0, %r1, 0;
    @%p0 bra even;
    add.u32 %r2, %r0, 1000;
    bra meet;
  even:
    add.u32 %r2, %r0, 2000;
  meet:
    shfl.sync.idx.b32 %r3, %r2, 31, 31, -1;
    add.u32 %r2, %r2, %r3;
    cvt.u64.u32 %out0, %r2;)"},
                            {counted(32)}, 1);
  for (uint64_t i = 0; i < 32; ++i) {
    EXPECT_EQ(out[0][i], i + (i % 2 == 0 ? 2000 : 1000) + 1031) << i;
  }
}

// Thread i goes round i times.
TEST(Control, LoopsOfDifferentLength) {
  const Words out = run_ptx({.body = R"(
    mov.u64 %rd0, 0;
    mov.u64 %rd1, 0;
  again:
    setp.ge.u64 %p0, %rd1, %in0;
    @%p0 bra done;
    add.u64 %rd0, %rd0, %rd1;
    add.u64 %rd1, %rd1, 1;
    bra again;
  done:
    mov.u64 %out0, %rd0;)",
                             .threads = 45},
                            {counted(45)}, 1);
  for (uint64_t i = 0; i < 45; ++i) EXPECT_EQ(out[0][i], i * (i - 1) / 2) << i;
}

// The same names in scopes side by side, and a label in each.
TEST(Control, ScopesHaveNamesOfTheirOwn) {
  const Words out = run_ptx({.body = R"(
    { .reg .b64 a; .reg .pred done;
      mov.u64 a, 5;
    retry:
      sub.u64 a, a, 1;
      setp.eq.u64 done, a, 0;
      @!done bra retry;
      add.u64 %rd0, a, 1; }
    { .reg .b64 a; mov.u64 a, 7;
      bra retry;
    retry:
      add.u64 %out0, %rd0, a; })"},
                            {}, 1);
  EXPECT_EQ(out[0][0], 8u);
}

constexpr std::string_view functions = R"(
.func (.param .align 8 .b8 result[16]) both(
.param .b64 both_param_0,
.param .b32 both_param_1
)
{
.reg .b64 %rd<8>;
.reg .b32 %r<4>;
.reg .pred %p<2>;
ld.param.u64 %rd1, [both_param_0];
ld.param.u32 %r1, [both_param_1];
cvt.u64.u32 %rd2, %r1;
st.param.b64 [result+0], %rd1;
setp.gt.u64 %p1, %rd1, 15;
@%p1 bra large;
st.param.b64 [result+8], %rd2;
ret;
large:
add.u64 %rd3, %rd2, 100;
st.param.b64 [result+8], %rd3;
ret;
}
)";

// Threads that call together and return apart.
TEST(Control, CallsCopyParametersAndResults) {
  const Words out = run_ptx({.body = R"(
    {
    .param .b64 param0;
    st.param.b64 [param0+0], %in0;
    .param .b32 param1;
    st.param.b32 [param1+0], 3;
    .param .align 8 .b8 retval0[16];
    call.uni (retval0),
    both,
    (
    param0,
    param1
    );
    ld.param.b64 %rd0, [retval0+0];
    ld.param.b64 %rd1, [retval0+8];
    }
    mul.lo.u64 %rd0, %rd0, 1000;
    add.u64 %out0, %rd0, %rd1;)",
                             .declarations = functions},
                            {counted(32)}, 1);
  for (uint64_t i = 0; i < 32; ++i) EXPECT_EQ(out[0][i], i * 1000 + (i > 15 ? 103 : 3)) << i;
}

// Local memory is each thread's own; a vector store, read back by parts.
TEST(Control, LocalMemory) {
  const Words out = run_ptx({.body = R"(
    .local .align 16 .b8 depot[32];
    .reg .b64 %SP, %SPL;
    mov.u64 %SPL, depot;
    cvta.local.u64 %SP, %SPL;
    cvt.u32.u64 %r0, %in0;
    add.u32 %r1, %r0, 1;
    st.local.v2.u32 [%SPL+16], {%r0, %r1};
    ld.u32 %r2, [%SP+20];
    cvt.u64.u32 %out0, %r2;)"},
                            {counted(32)}, 1);
  for (uint64_t i = 0; i < 32; ++i) EXPECT_EQ(out[0][i], i + 1);
}

// Two warps exchange by shared memory, generic and not; the array of the launch's size is behind
// the other.
TEST(Control, SharedMemory) {
  const Words out = run_ptx({.body = R"(
    mov.u32 %r0, %tid.x;
    shl.b32 %r1, %r0, 2;
    mov.u32 %r2, own;
    add.u32 %r3, %r2, %r1;
    st.shared.u32 [%r3], %r0;
    mov.u64 %rd0, rest;
    cvta.shared.u64 %rd1, %rd0;
    cvt.u64.u32 %rd2, %r1;
    add.u64 %rd1, %rd1, %rd2;
    add.u32 %r4, %r0, 500;
    st.u32 [%rd1], %r4;
    bar.sync 0;
    xor.b32 %r5, %r1, 128;
    add.u32 %r6, %r2, %r5;
    ld.shared.u32 %r7, [%r6];
    ld.shared.u32 %r8, [%r6+256];
    mad.lo.u32 %r9, %r7, 1000, %r8;
    cvt.u64.u32 %out0, %r9;)",
                             .declarations = ".shared .align 4 .b8 own[256];\n"
                                             ".extern .shared .align 16 .b8 rest[];",
                             .threads = 64,
                             .dynamic_shared_bytes = 256},
                            {}, 1);
  for (uint64_t i = 0; i < 64; ++i) EXPECT_EQ(out[0][i], (i ^ 32) * 1000 + (i ^ 32) + 500) << i;
}

TEST(Control, AtomicsAndGlobalVariables) {
  const Words out = run_ptx({.body = R"(
    mov.u64 %rd0, table;
    cvta.global.u64 %rd1, %rd0;
    ld.u32 %r0, [%rd1+4];
    atom.global.add.u32 %r1, [%rd1+8], 2;
    atom.global.max.s32 _, [%rd1], %r1;
    bar.sync 0;
    ld.global.u32 %r2, [%rd1];
    mad.lo.u32 %r3, %r0, 1000, %r2;
    cvt.u64.u32 %out0, %r3;)",
                             .declarations = ".global .align 4 .b32 table[4] = {-1, 7};",
                             .threads = 64},
                            {}, 1);
  for (uint64_t i = 0; i < 64; ++i) EXPECT_EQ(out[0][i], 7126u);
}

// Narrow values are extended by their sign, or not, into whatever register takes them.
TEST(Control, NarrowLoadsAndStores) {
  const Words out =
      run_ptx({.body = R"(
    mov.u64 %rd0, bytes;
    ld.global.s8 %r0, [%rd0];
    ld.global.u8 %rs0, [%rd0+1];
    ld.global.s16 %rd1, [%rd0+2];
    cvt.u32.u16 %r1, %rs0;
    st.global.u8 [%rd0+4], %r0;
    ld.global.u32 %r2, [%rd0+4];
    cvt.s64.s32 %out0, %r0;
    cvt.u64.u32 %out1, %r1;
    mov.u64 %out2, %rd1;
    cvt.u64.u32 %out3, %r2;)",
               .declarations = ".global .align 4 .b8 bytes[8] = {254, 253, 252, 255, 1, 2, 3, 4};",
               .threads = 1},
              {}, 4);
  EXPECT_EQ(static_cast<int64_t>(out[0][0]), -2);
  EXPECT_EQ(out[1][0], 253u);
  EXPECT_EQ(static_cast<int64_t>(out[2][0]), -4);
  EXPECT_EQ(out[3][0], 0x040302FEu);
}

TEST(Faults, NameTheInstructionAndTheThread) {
  const std::string shared = fault_of({.body = R"(
    mov.u32 %r0, %tid.x;
    shl.b32 %r0, %r0, 2;
    st.shared.u32 [%r0], %r0;
    mov.u64 %out0, 0;)",
                                       .dynamic_shared_bytes = 100},
                                      {});
  EXPECT_THAT(shared, HasSubstr("thread 25: 4 bytes at 100 of shared memory, which has 100"));
  EXPECT_THAT(shared, HasSubstr("st.shared.u32 [%r0], %r0"));
  EXPECT_THAT(fault_of({.body = "ld.global.u32 %r0, [%place2+2];\nmov.u64 %out0, 0;"}, {}),
              HasSubstr("is not aligned"));
  EXPECT_THAT(fault_of({.body = "st.global.u64 [%place2+256], %place0;\nmov.u64 %out0, 0;"}, {}),
              HasSubstr("thread 1: 8 bytes at"));
}

TEST(Faults, SomethingNobodyCanReachIsNoHang) {
  const std::string text = fault_of({.body = R"(
    mov.u32 %r0, %tid.x;
    setp.lt.u32 %p0, %r0, 32;
    @%p0 bra over;
    barrier.sync 1, 128;
  over:
    mov.u64 %out0, 0;)",
                                     .threads = 64},
                                    {});
  EXPECT_THAT(text, HasSubstr("wait for ever"));
  EXPECT_THAT(text, HasSubstr("barrier.sync 1, 128"));
}

TEST(Faults, UnknownPtxIsRefusedByItsLine) {
  EXPECT_THAT(fault_of({.body = "frobnicate.b32 %r0, %r1;"}, {}),
              HasSubstr("frobnicate.b32: the instruction is not known here"));
  EXPECT_THAT(fault_of({.body = "bra nowhere;"}, {}), HasSubstr("no label nowhere"));
  EXPECT_THAT(fault_of({.body = "mov.u32 %r0, %rd1;"}, {}), HasSubstr("%rd1 has 64 bits"));
}

}  // namespace
}  // namespace qnext::emulator
