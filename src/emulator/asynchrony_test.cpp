// What runs on its own, and what waits for it. A kernel that forgets to wait has to fail for some
// seed; one that waits gives the same for all.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "base/error.h"
#include "emulator/mbarrier.h"
#include "emulator/ptx_test.h"
#include "emulator/tensor_map.h"

namespace qnext::emulator {
namespace {

using ::testing::HasSubstr;

constexpr std::string_view shared_memory = ".extern .shared .align 1024 .b8 memory[];";
constexpr uint32_t seeds = 16;

std::string fault_of(PtxTest test, const Words& inputs = {}) {
  test.declarations = shared_memory;
  test.dynamic_shared_bytes = 4096;
  try {
    run_ptx(test, inputs, 1);
  } catch (const Error& error) {
    return error.what();
  }
  return "no fault";
}

// The number of seeds whose run faults or gives something else.
int wrong_seeds(PtxTest test, const Words& inputs, const Words& expected) {
  test.declarations = shared_memory;
  test.dynamic_shared_bytes = 8192;
  int wrong = 0;
  for (test.seed = 0; test.seed < seeds; ++test.seed) {
    try {
      wrong += run_ptx(test, inputs, expected.size()) != expected ? 1 : 0;
    } catch (const Error&) {
      ++wrong;
    }
  }
  return wrong;
}

// ---- mbarriers ----

TEST(Mbarrier, PhasesAlternate) {
  uint64_t word = ~uint64_t{0};
  EXPECT_FALSE(arrive(word, 1).empty());
  ASSERT_TRUE(initialise(word, 2).empty());
  EXPECT_FALSE(phase_parity(word));
  EXPECT_TRUE(arrive(word, 1).empty());
  EXPECT_FALSE(phase_parity(word));
  EXPECT_TRUE(arrive(word, 1).empty());
  EXPECT_TRUE(phase_parity(word));
  EXPECT_FALSE(arrive(word, 3).empty());
  EXPECT_TRUE(arrive(word, 2).empty());
  EXPECT_FALSE(phase_parity(word));
}

TEST(Mbarrier, BytesMayComeBeforeTheyAreAnnounced) {
  uint64_t word = 0;
  ASSERT_TRUE(initialise(word, 1).empty());
  EXPECT_TRUE(complete(word, 96).empty());
  EXPECT_TRUE(expect(word, 128).empty());
  EXPECT_TRUE(arrive(word, 1).empty());
  EXPECT_FALSE(phase_parity(word));
  EXPECT_FALSE(arrive(word, 1).empty()) << "the phase has had its arrivals";
  EXPECT_TRUE(complete(word, 32).empty());
  EXPECT_TRUE(phase_parity(word));
  EXPECT_TRUE(invalidate(word).empty());
  EXPECT_FALSE(check(word).empty());
}

TEST(Asynchrony, FaultsOfBarriers) {
  EXPECT_THAT(fault_of({.body = "mov.u32 %r0, memory;\nmbarrier.arrive.shared::cta.b64 _, [%r0];"}),
              HasSubstr("not been initialised"));
  EXPECT_THAT(fault_of({.body = "mov.u32 %r0, memory;\nsetp.ne.s32 %p0, %base, 0;\n"
                                "@!%p0 mbarrier.init.shared::cta.b64 [%r0], 8;\n"
                                "bar.warp.sync -1;\n@%p0 mbarrier.arrive.expect_tx.shared::cta.b64 "
                                "_, [%r0], 4;"}),
              HasSubstr("more arrivals"));
}

TEST(Asynchrony, WhoWaitsForNobodyIsADeadlock) {
  const std::string waits =
      "mov.u32 %r0, memory;\nmbarrier.init.shared::cta.b64 [%r0], 1;\n" + wait("never", "%r0", "0");
  EXPECT_THAT(fault_of({.body = waits, .threads = 1}), HasSubstr("for ever"));
  const std::string half = "setp.lt.u32 %p0, %base, 32;\n@%p0 bra over;\nbar.sync 1, 64;\nover:\n";
  EXPECT_THAT(fault_of({.body = half, .threads = 64}), HasSubstr("for ever"));
}

// ---- a pipeline of bulk copies ----

// Thread 0 brings 6 columns of 64 words through 2 slots; threads 32 to 63 add the words of each.
// Barriers: full at 0 and 8, empty at 16 and 24; slots of 512 bytes from 1,024 on.
std::string pipeline(bool waits_for_bytes, bool waits_for_room) {
  return fmt::format(
      R"(
mov.u32 %r0, memory;
setp.ne.s32 %p0, %base, 0;
@%p0 bra ready;
mbarrier.init.shared::cta.b64 [%r0], 1;
mbarrier.init.shared::cta.b64 [%r0+8], 1;
mbarrier.init.shared::cta.b64 [%r0+16], 32;
mbarrier.init.shared::cta.b64 [%r0+24], 32;
fence.mbarrier_init.release.cluster;
ready:
bar.sync 0;
mov.u64 %out0, 0;
mov.u32 %r1, 0;
setp.lt.u32 %p1, %base, 32;
@!%p1 bra consume;
@%p0 bra end;
produce:
and.b32 %r2, %r1, 1;
shl.b32 %r3, %r2, 3;
add.s32 %r3, %r3, %r0;
shr.u32 %r4, %r1, 1;
and.b32 %r4, %r4, 1;
xor.b32 %r4, %r4, 1;
add.s32 %r5, %r3, 16;
{}
mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r3], 512;
shl.b32 %r6, %r2, 9;
add.s32 %r6, %r6, %r0;
mul.wide.u32 %rd0, %r1, 512;
add.s64 %rd0, %rd0, %place1;
add.s32 %r6, %r6, 1024;
mov.u32 %r7, 256;
cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%r6], [%rd0], %r7, [%r3];
createpolicy.fractional.L2::evict_first.b64 %rd1, 1.0;
cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%r6+256], [%rd0+256], %r7, [%r3], %rd1;
add.s32 %r1, %r1, 1;
setp.lt.u32 %p2, %r1, 6;
@%p2 bra produce;
bra end;
consume:
and.b32 %r2, %r1, 1;
shl.b32 %r3, %r2, 3;
add.s32 %r3, %r3, %r0;
shr.u32 %r4, %r1, 1;
and.b32 %r4, %r4, 1;
{}
shl.b32 %r6, %r2, 9;
add.s32 %r6, %r6, %r0;
shl.b32 %r7, %base, 3;
add.s32 %r6, %r6, %r7;
ld.shared.u64 %rd2, [%r6+1024];
ld.shared.u64 %rd3, [%r6+768];
mul.lo.s64 %out0, %out0, 3;
add.s64 %out0, %out0, %rd2;
add.s64 %out0, %out0, %rd3;
mbarrier.arrive.shared::cta.b64 _, [%r3+16];
add.s32 %r1, %r1, 1;
setp.lt.u32 %p2, %r1, 6;
@%p2 bra consume;
end:
bar.sync 0;)",
      waits_for_room ? wait("room", "%r5", "%r4") : "",
      waits_for_bytes ? wait("bytes", "%r3", "%r4") : "");
}

TEST(Asynchrony, PipelineOfBulkCopies) {
  Words in;
  Words expected(1, std::vector<uint64_t>(64));
  for (size_t i = 0; i < 6; ++i) {
    in.push_back(counted(64, i * 1000));
    for (size_t thread = 32; thread < 64; ++thread)
      expected[0][thread] = expected[0][thread] * 3 + in[i][thread] + in[i][thread - 32];
  }
  EXPECT_EQ(wrong_seeds({.body = pipeline(true, true), .threads = 64}, in, expected), 0);
  EXPECT_GT(wrong_seeds({.body = pipeline(false, true), .threads = 64}, in, expected), 0);
  EXPECT_GT(wrong_seeds({.body = pipeline(true, false), .threads = 64}, in, expected), 0);
}

// ---- stores to another block ----

TEST(Asynchrony, StoresToTheOtherBlockOfACluster) {
  const auto body = [](std::string_view waits) {
    return fmt::format(
        "mov.u32 %r0, memory;\nmov.u32 %r9, %tid.x;\nsetp.ne.s32 %p0, %r9, 0;\n"
        "@!%p0 mbarrier.init.shared::cta.b64 [%r0], 1;\n"
        "@!%p0 mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r0], 640;\n"
        "barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;\n"
        "mov.u32 %r1, %cluster_ctarank;\nxor.b32 %r1, %r1, 1;\n"
        "mapa.shared::cluster.u32 %r2, %r0, %r1;\nshl.b32 %r3, %r9, 4;\nadd.s32 %r4, %r2, %r3;\n"
        "mov.b64 {{%f0, %f1}}, %in0;\nmov.b64 {{%f2, %f3}}, %in1;\n"
        "st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v4.f32 [%r4+64], "
        "{{%f0, %f1, %f2, %f3}}, [%r2];\n"
        "shl.b32 %r5, %r9, 2;\nadd.s32 %r5, %r5, %r2;\n"
        "st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.f32 [%r5+1024], %f0, [%r2];\n"
        "{}"
        "add.s32 %r4, %r0, %r3;\nld.shared.u64 %out0, [%r4+64];\nld.shared.u64 %out1, [%r4+72];\n"
        "shl.b32 %r5, %r9, 2;\nadd.s32 %r5, %r5, %r0;\nld.shared.u32 %r6, [%r5+1024];\n"
        "cvt.u64.u32 %out2, %r6;\n"
        "barrier.cluster.arrive;\nbarrier.cluster.wait;",
        waits);
  };
  const Words in = {counted(64, 7), counted(64, 1000)};
  Words expected(3, std::vector<uint64_t>(64));
  for (size_t thread = 0; thread < 64; ++thread) {
    const size_t other = (thread + 32) % 64;
    expected[0][thread] = expected[2][thread] = in[0][other];
    expected[1][thread] = in[1][other];
  }
  const std::string waiting = body(wait("sent", "%r0", "0")), hasty = body("");
  EXPECT_EQ(wrong_seeds({.body = waiting, .blocks = 2, .cluster = 2}, in, expected), 0);
  EXPECT_GT(wrong_seeds({.body = hasty, .blocks = 2, .cluster = 2}, in, expected), 0);
}

// ---- cp.async ----

TEST(Asynchrony, GroupsOfSmallCopies) {
  const auto body = [](std::string_view waits_for_first, std::string_view waits_for_rest) {
    return fmt::format(
        "mov.u32 %r0, memory;\nshl.b32 %r1, %base, 4;\nadd.s32 %r0, %r0, %r1;\n"
        "mul.wide.u32 %rd0, %base, 8;\nadd.s64 %rd0, %rd0, %place1;\n"
        "and.b64 %rd0, %place1, -16;\n"
        "cp.async.cg.shared.global [%r0], [%rd0], 16;\ncp.async.commit_group;\n"
        "mov.u32 %r2, 4;\ncp.async.cg.shared.global [%r0+1024], [%rd0+256], 16, %r2;\n"
        "cp.async.ca.shared.global [%r0+2048], [%rd0], 8;\ncp.async.commit_group;\n{}\n"
        "ld.shared.u64 %out0, [%r0];\n{}\nld.shared.u64 %out1, [%r0+1024];\n"
        "ld.shared.u64 %out2, [%r0+1032];\nld.shared.u64 %out3, [%r0+2048];",
        waits_for_first, waits_for_rest);
  };
  const Words in = {counted(32, 5), counted(32, uint64_t{9} << 32 | 50)};
  Words expected(4, std::vector<uint64_t>(32));
  for (size_t thread = 0; thread < 32; ++thread) {
    expected[0][thread] = expected[3][thread] = in[0][thread & ~size_t{1}];
    expected[1][thread] = in[1][thread & ~size_t{1}] & 0xFFFFFFFF;
  }
  const std::string one = "cp.async.wait_group 1;", none = "cp.async.wait_group 0;";
  EXPECT_EQ(wrong_seeds({.body = body(one, none)}, in, expected), 0);
  EXPECT_GT(wrong_seeds({.body = body(one, one)}, in, expected), 0);
  EXPECT_GT(wrong_seeds({.body = body("", none)}, in, expected), 0);
}

TEST(Asynchrony, ArrivalsBehindSmallCopies) {
  const auto body = [](std::string_view waits) {
    return fmt::format(
        "mov.u32 %r0, memory;\nsetp.ne.s32 %p0, %base, 0;\n"
        "@!%p0 mbarrier.init.shared::cta.b64 [%r0], 32;\nbar.warp.sync -1;\n"
        "shl.b32 %r1, %base, 3;\nadd.s32 %r1, %r1, %r0;\n"
        "cp.async.ca.shared.global [%r1+64], [%place1], 8;\n"
        "cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%r0];\n{}\n"
        "xor.b32 %r2, %base, 1;\nshl.b32 %r2, %r2, 3;\nadd.s32 %r2, %r2, %r0;\n"
        "ld.shared.u64 %out0, [%r2+64];",
        waits);
  };
  const Words in = {counted(32, 5)};
  Words expected(1, std::vector<uint64_t>(32));
  for (size_t thread = 0; thread < 32; ++thread) expected[0][thread] = in[0][thread ^ 1];
  EXPECT_EQ(wrong_seeds({.body = body(wait("here", "%r0", "0"))}, in, expected), 0);
  EXPECT_GT(wrong_seeds({.body = body("")}, in, expected), 0);
}

// ---- copies to global memory ----

TEST(Asynchrony, BulkCopiesToGlobalMemory) {
  // %place2 is where the outputs of a thread lie: 32 words of the first are one copy.
  const auto body = [](std::string_view waits) {
    return fmt::format(
        "mov.u32 %r0, memory;\nshl.b32 %r1, %base, 3;\nadd.s32 %r1, %r1, %r0;\n"
        "st.shared.u64 [%r1], %in0;\nmov.u64 %rd0, 0;\nst.shared.u64 [%r1+256], %rd0;\n"
        "bar.sync 0;\nsetp.ne.s32 %p0, %base, 0;\n@%p0 bra end;\nmov.u32 %r2, 256;\n"
        "cp.async.bulk.global.shared::cta.bulk_group [%place2], [%r0], %r2;\n"
        "cp.async.bulk.commit_group;\n{}\n"
        "end:\nbar.sync 0;\nld.global.u64 %out0, [%place2];",
        waits);
  };
  const Words in = {counted(32, 5)};
  EXPECT_EQ(wrong_seeds({.body = body("cp.async.bulk.wait_group.read 0;")}, in, in), 0);
  EXPECT_GT(wrong_seeds({.body = body("")}, in, in), 0);
}

// ---- boxes of tensors ----

TEST(Asynchrony, BoxesOfTensorsAreSwizzledAndPadded) {
  constexpr size_t rows = 12, columns = 96;  // of 16-bit values
  std::byte* memory = device_memory().allocate(rows * columns * 2 + 256);
  auto* values = reinterpret_cast<uint16_t*>(memory + 256);
  for (size_t i = 0; i < rows * columns; ++i) values[i] = static_cast<uint16_t>(i + 1);
  TensorMap map;
  map.rank = 2;
  map.element_bytes = 2;
  map.swizzle_bytes = 128;
  map.base = reinterpret_cast<uint64_t>(values);
  map.size = {columns, rows};
  map.box = {64, 8};
  map.stride = {columns * 2};
  std::memcpy(memory, &map, sizeof map);
  // From column 48 and row -3 on: the last 16 columns and the first 3 rows are outside.
  const std::string body =
      "mov.u32 %r0, memory;\nsetp.ne.s32 %p0, %base, 0;\n@%p0 bra started;\n"
      "mbarrier.init.shared::cta.b64 [%r0], 1;\n"
      "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r0], 1024;\nadd.s32 %r1, %r0, 1024;\n"
      "mov.u32 %r2, 48;\nmov.u32 %r3, -3;\n"
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%r1], "
      "[%in0, {%r2, %r3}], [%r0];\nstarted:\nbar.sync 0;\n" +
      wait("box", "%r0", "0") +
      "shl.b32 %r4, %base, 3;\nadd.s32 %r4, %r4, %r0;\nld.shared.u64 %out0, [%r4+1024];";
  const Words in = {std::vector<uint64_t>(128, reinterpret_cast<uint64_t>(memory))};
  Words expected(1, std::vector<uint64_t>(128));
  for (size_t row = 3; row < 8; ++row) {
    for (size_t column = 0; column < 48; ++column) {
      const size_t chunk = column / 8 ^ row;
      const size_t word = row * 16 + chunk * 2 + column % 8 / 4;
      expected[0][word] |= uint64_t{values[(row - 3) * columns + column + 48]}
                           << (16 * (column % 4));
    }
  }
  EXPECT_EQ(wrong_seeds({.body = body, .threads = 128}, in, expected), 0);
  map.magic = 0;
  std::memcpy(memory, &map, sizeof map);
  EXPECT_THAT(fault_of({.body = body, .threads = 128}, in), HasSubstr("no tensor map"));
  device_memory().release(memory);
}

// ---- barriers of a block and of a cluster ----

TEST(Asynchrony, BarriersReduceAndForgetWhoHasLeft) {
  // Warp 2 leaves; of the others those vote whose input is not 0.
  const std::string body =
      "setp.ge.u32 %p0, %base, 64;\n@%p0 ret;\nsetp.ne.s64 %p1, %in0, 0;\n"
      "bar.red.or.pred %p2, 0, %p1;\nbar.red.and.pred %p3, 0, !%p1;\nbar.red.popc.u32 %r0, 0, "
      "%p1;\n"
      "selp.u64 %out0, 1, 0, %p2;\nselp.u64 %out1, 1, 0, %p3;\ncvt.u64.u32 %out2, %r0;";
  for (const uint64_t vote : {0, 1}) {
    Words in(1, std::vector<uint64_t>(96));
    in[0][5] = in[0][40] = vote;
    Words expected(3, std::vector<uint64_t>(96));
    for (size_t thread = 0; thread < 96; ++thread) {
      const bool left = thread >= 64;
      expected[0][thread] = left ? ~uint64_t{0} : vote;
      expected[1][thread] = left ? ~uint64_t{0} : 1 - vote;
      expected[2][thread] = left ? ~uint64_t{0} : 2 * vote;
    }
    EXPECT_EQ(wrong_seeds({.body = body, .threads = 96}, in, expected), 0);
  }
}

TEST(Asynchrony, BarriersOrderWarpsAndBlocks) {
  // Every thread gives its value to the one `distance` threads behind, in another warp.
  const auto body = [](std::string_view barrier) {
    return fmt::format(
        "mov.u32 %r0, memory;\nshl.b32 %r1, %base, 3;\nadd.s32 %r1, %r1, %r0;\n"
        "st.shared.u64 [%r1], %in0;\n{}\nxor.b32 %r2, %base, 32;\nshl.b32 %r2, %r2, 3;\n"
        "add.s32 %r2, %r2, %r0;\nld.shared.u64 %out0, [%r2];",
        barrier);
  };
  const Words in = {counted(64, 3)};
  Words expected(1, std::vector<uint64_t>(64));
  for (size_t thread = 0; thread < 64; ++thread) expected[0][thread] = in[0][thread ^ 32];
  for (const std::string barrier :
       {"bar.sync 0;", "mov.u32 %r9, 3;\nbar.sync %r9, 64;", "barrier.sync 2, 64;",
        "barrier.cluster.arrive.relaxed.aligned;\nbarrier.cluster.wait.acquire.aligned;"})
    EXPECT_EQ(wrong_seeds({.body = body(barrier), .threads = 64}, in, expected), 0) << barrier;
  EXPECT_GT(wrong_seeds({.body = body(""), .threads = 64}, in, expected), 0);
}

}  // namespace
}  // namespace qnext::emulator
