// Kernels that order their accesses and the same with one order left out: only the latter have a
// race, for every seed, whether or not their results show it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "emulator/ptx_test.h"

namespace qnext::emulator {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr uint32_t seeds = 16;

// One message a seed, empty where nothing is found.
std::vector<std::string> messages(PtxTest test) {
  test.declarations = ".extern .shared .align 1024 .b8 memory[];";
  test.dynamic_shared_bytes = 32768;
  test.race_check = RaceCheck::fails;
  std::vector<std::string> all;
  for (test.seed = 0; test.seed < seeds; ++test.seed) {
    try {
      run_ptx(test, {std::vector<uint64_t>(1024)}, 1);
      all.emplace_back();
    } catch (const Error& error) {
      all.emplace_back(error.what());
    }
  }
  return all;
}

void expect_none(const PtxTest& test) {
  EXPECT_THAT(messages(test), testing::Each(std::string())) << test.body;
}

void expect_races(const PtxTest& test, std::string_view words) {
  EXPECT_THAT(messages(test),
              testing::Each(AllOf(HasSubstr("a race for byte"), HasSubstr(std::string(words)))))
      << test.body;
}

// The same of a kernel that other checks stop as well.
void expect_faults(const PtxTest& test, std::string_view words) {
  const std::vector<std::string> all = messages(test);
  EXPECT_THAT(all, testing::Each(testing::Not(std::string()))) << test.body;
  EXPECT_THAT(all,
              testing::Contains(AllOf(HasSubstr("a race for byte"), HasSubstr(std::string(words)))))
      << test.body;
}

// Each thread stores, and reads what one of the other warp has stored.
std::string exchange(std::string_view between) {
  return fmt::format(
      "mov.u32 %r0, memory;\nshl.b32 %r1, %base, 3;\nadd.s32 %r1, %r1, %r0;\n"
      "st.shared.u64 [%r1], %in0;\n{}\nxor.b32 %r2, %base, 32;\nshl.b32 %r2, %r2, 3;\n"
      "add.s32 %r2, %r2, %r0;\nld.shared.u64 %out0, [%r2];",
      between);
}

TEST(Races, BarriersOfABlock) {
  for (const std::string_view barrier : {"bar.sync 0;", "barrier.sync 3, 64;",
                                         "setp.ne.s64 %p1, %in0, 0; bar.red.or.pred %p2, 0, %p1;",
                                         "barrier.cluster.arrive;\nbarrier.cluster.wait;"})
    expect_none({.body = exchange(barrier), .threads = 64});
  for (const std::string_view barrier :
       {"", "bar.warp.sync -1;", "barrier.cluster.arrive.relaxed;\nbarrier.cluster.wait;"})
    expect_races({.body = exchange(barrier), .threads = 64}, "ld.shared.u64");
}

// Warp 0 stores and arrives, warp 1 waits; the other way round nothing is ordered.
TEST(Races, ArrivalsOrderOneWay) {
  const auto body = [](std::string_view first, std::string_view second) {
    return fmt::format(
        "mov.u32 %r0, memory;\nsetp.ge.u32 %p0, %base, 32;\n@%p0 bra other;\n"
        "st.shared.u64 [%r0], %in0;\n{}\nbra end;\nother:\n{}\nld.shared.u64 %out0, [%r0];\nend:",
        first, second);
  };
  const std::string_view arrives = "bar.arrive 1, 64;", waits = "bar.sync 1, 64;";
  expect_none({.body = body(arrives, waits), .threads = 64});
  expect_races({.body = body(waits, arrives), .threads = 64}, "st.shared.u64");
}

TEST(Races, BytesOfOneWordAreApart) {
  const auto body = [](std::string_view address, std::string_view access) {
    return fmt::format(
        "mov.u32 %r0, memory;\nshr.u32 %r1, %base, 5;\nadd.s32 %r1, %r0, %r1;\n"
        "{} [{}], 1;",
        access, address);
  };
  expect_none({.body = body("%r1", "st.shared.u8"), .threads = 128});
  expect_races({.body = body("%r0", "st.shared.u8"), .threads = 128}, "byte 0 ");
  expect_none({.body = body("%r0", "red.shared.add.u32"), .threads = 128});
  expect_races(
      {.body = body("%r0", "red.shared.add.u32") + "\nld.shared.u8 %rs0, [%r0+3];", .threads = 128},
      "byte 3 ");
  expect_races({.body = body("%r0", "red.shared.add.u32") +
                        "\ncvt.u64.u32 %rd1, %r0;\ncvta.shared.u64 %rd0, %rd1;\n"
                        "ld.u32 %r5, [%rd0];",
                .threads = 128},
               "ld.u32");
}

// ---- a pipeline of bulk copies ----

// Thread 0 brings 6 times 512 bytes through 2 slots; threads 32 to 63 and 64 to 95 read them.
// Barriers: full at 0 and 8, empty at 16 and 24; slots from 1,024 on.
struct Pipeline {
  bool waits_for_room = true, waits_for_bytes = true, arrives_too_early = false;
};

std::string pipeline(const Pipeline& is) {
  const std::string arrives = "mbarrier.arrive.shared::cta.b64 _, [%r3+16];\n";
  return fmt::format(
      R"(
mov.u32 %r0, memory;
setp.ne.s32 %p0, %base, 0;
@%p0 bra ready;
mbarrier.init.shared::cta.b64 [%r0], 1;
mbarrier.init.shared::cta.b64 [%r0+8], 1;
mbarrier.init.shared::cta.b64 [%r0+16], 64;
mbarrier.init.shared::cta.b64 [%r0+24], 64;
ready:
bar.sync 0;
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
cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%r6+1024], [%place1], 512, [%r3];
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
shl.b32 %r7, %base, 2;
add.s32 %r6, %r6, %r7;
{}
ld.shared.u32 %r8, [%r6+1024];
{}
add.s32 %r1, %r1, 1;
setp.lt.u32 %p2, %r1, 6;
@%p2 bra consume;
end:)",
      is.waits_for_room ? wait("room", "%r5", "%r4") : "",
      is.waits_for_bytes ? wait("bytes", "%r3", "%r4") : "", is.arrives_too_early ? arrives : "",
      is.arrives_too_early ? "" : arrives);
}

TEST(Races, PipelineOfBulkCopies) {
  const auto test = [](const std::string& body) { return PtxTest{.body = body, .threads = 96}; };
  const std::string right = pipeline({});
  expect_none(test(right));
  const std::string no_room = pipeline({.waits_for_room = false});
  expect_faults(test(no_room), "cp.async.bulk");
  const std::string no_bytes = pipeline({.waits_for_bytes = false});
  expect_faults(test(no_bytes), "what the mbarrier at");
  const std::string early = pipeline({.arrives_too_early = true});
  expect_races(test(early), "ld.shared.u32");
}

// ---- other copies ----

// Blocks write into each other, and read what came.
TEST(Races, StoresToTheOtherBlock) {
  const auto body = [](std::string_view waits, std::string_view store) {
    return fmt::format(
        "mov.u32 %r0, memory;\nmov.u32 %r9, %tid.x;\nsetp.ne.s32 %p0, %r9, 0;\n"
        "@!%p0 mbarrier.init.shared::cta.b64 [%r0], 1;\n"
        "@!%p0 mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r0], 128;\n"
        "barrier.cluster.arrive;\nbarrier.cluster.wait;\n"
        "mov.u32 %r1, %cluster_ctarank;\nxor.b32 %r1, %r1, 1;\n"
        "mapa.shared::cluster.u32 %r2, %r0, %r1;\n"
        "shl.b32 %r3, %r9, 2;\nadd.s32 %r4, %r2, %r3;\nadd.s32 %r5, %r0, %r3;\n"
        "{}\n{}\nld.shared.u32 %r6, [%r5+64];\nbarrier.cluster.arrive;\nbarrier.cluster.wait;",
        store, waits);
  };
  const std::string_view sends =
      "st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.b32 [%r4+64], %r9, [%r2];";
  const std::string waits = wait("sent", "%r0", "0");
  const auto test = [](const std::string& text) {
    return PtxTest{.body = text, .blocks = 2, .cluster = 2};
  };
  const std::string right = body(waits, sends), hasty = body("", sends);
  expect_none(test(right));
  expect_faults(test(hasty), "st.async");
  const std::string meets = "barrier.cluster.arrive;\nbarrier.cluster.wait;";
  const std::string met = body(meets, "st.shared::cluster.u32 [%r4+64], %r9;");
  expect_none(test(met));
  const std::string unmet = body("", "st.shared::cluster.u32 [%r4+64], %r9;");
  expect_races(test(unmet), "of the cluster's block 1");
}

// Copies of warp 0 that it or, by an mbarrier, the others wait for.
TEST(Races, SmallCopies) {
  const auto body = [](std::string_view before, std::string_view after) {
    return fmt::format(
        "mov.u32 %r0, memory;\nsetp.ge.u32 %p0, %base, 32;\nsetp.ne.s32 %p1, %base, 0;\n"
        "@!%p1 mbarrier.init.shared::cta.b64 [%r0], 32;\nbar.sync 0;\n"
        "shl.b32 %r1, %base, 3;\nadd.s32 %r1, %r1, %r0;\n@%p0 bra over;\n"
        "cp.async.ca.shared.global [%r1+64], [%place1], 8;\n{}\nover:\n{}\n"
        "sub.s32 %r1, %r1, 192;\n@%p0 ld.shared.u64 %out0, [%r1];\ncp.async.wait_all;\n",
        before, after);
  };
  const auto test = [](const std::string& text) { return PtxTest{.body = text, .threads = 64}; };
  const std::string waits = wait("here", "%r0", "0");
  const std::string_view arrives = "cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%r0];";
  const std::string waited = body("cp.async.wait_all;", "bar.sync 0;"),
                    arrived = body(arrives, waits), unwaited = body("", "bar.sync 0;"),
                    late = body(arrives, "bar.sync 0;") + waits;
  expect_none(test(waited));
  expect_none(test(arrived));
  expect_races(test(unwaited), "cp.async.ca");
  expect_races(test(late), "cp.async.ca");
}

// The second barrier's arrival, which waits for both copies, may come before the first's.
TEST(Races, SmallCopiesOfTwoBarriers) {
  const auto body = [](std::string_view second) {
    return fmt::format(
        "mov.u32 %r0, memory;\nsetp.ge.u32 %p0, %base, 32;\nsetp.ne.s32 %p1, %base, 0;\n"
        "@!%p1 mbarrier.init.shared::cta.b64 [%r0], 32;\n"
        "@!%p1 mbarrier.init.shared::cta.b64 [%r0+8], 32;\nbar.sync 0;\n"
        "shl.b32 %r1, %base, 3;\nadd.s32 %r1, %r1, %r0;\nadd.s32 %r2, %r0, 8;\n@%p0 bra over;\n"
        "cp.async.ca.shared.global [%r1+64], [%place1], 8;\n"
        "cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%r0];\n"
        "cp.async.ca.shared.global [%r1+512], [%place1], 8;\n"
        "cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%r2];\n"
        "bra end;\nover:\nsub.s32 %r1, %r1, 192;\n{}ld.shared.u64 %rd0, [%r1];\n{}"
        "add.s32 %r1, %r1, 448;\nld.shared.u64 %rd1, [%r1];\nend:\n{}{}",
        wait("first", "%r0", "0"), second, wait("late_first", "%r0", "0"),
        wait("late_second", "%r2", "0"));
  };
  const std::string both = body(wait("second", "%r2", "0")), one = body("");
  expect_none({.body = both, .threads = 64});
  expect_races({.body = one, .threads = 64}, "[%r1+512]");
}

TEST(Races, BulkCopiesToGlobalMemory) {
  const auto body = [](std::string_view waits) {
    return fmt::format(
        "mov.u32 %r0, memory;\nshl.b32 %r1, %base, 3;\nadd.s32 %r1, %r1, %r0;\n"
        "st.shared.u64 [%r1], %in0;\nbar.sync 0;\nsetp.ne.s32 %p0, %base, 0;\n@%p0 bra end;\n"
        "cp.async.bulk.global.shared::cta.bulk_group [%place2], [%r0], 256;\n"
        "cp.async.bulk.commit_group;\n{}\n"
        "end:\nbar.sync 0;\nst.shared.u64 [%r1], %in0;\n"
        "@!%p0 cp.async.bulk.wait_group.read 0;",
        waits);
  };
  const std::string right = body("cp.async.bulk.wait_group.read 0;"), wrong = body("");
  expect_none({.body = right, .threads = 64});
  expect_races({.body = wrong, .threads = 64}, "cp.async.bulk.global");
}

// Warp 0 of four overwrites what all multiply.
TEST(Races, OperandsOfProducts) {
  const auto body = [](std::string_view before, std::string_view after) {
    std::string sums;
    for (int i = 0; i < 4; ++i) sums += fmt::format("{}%f{}", i == 0 ? "" : ", ", i);
    return fmt::format(
        "mov.u32 %r0, memory;\nshl.b32 %r1, %base, 4;\nadd.s32 %r1, %r1, %r0;\n"
        "st.shared.v2.u64 [%r1], {{%in0, %in0}};\nst.shared.v2.u64 [%r1+2048], {{%in0, %in0}};\n"
        "bar.sync 0;\nsetp.eq.s32 %p1, %r0, %r0;\nmov.u64 %rd0, {};\nmov.u64 %rd1, {};\n"
        "wgmma.fence.sync.aligned;\n"
        "wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {{{}}}, %rd0, %rd1, %p1, 1, 1, 0, 0;\n"
        "wgmma.commit_group.sync.aligned;\n{}\nbar.sync 0;\n{}\nsetp.ge.u32 %p0, %base, 32;\n"
        "@%p0 bra end;\nst.shared.v2.u64 [%r1+2048], {{%in0, %in0}};\nend:\n"
        "wgmma.wait_group.sync.aligned 0;",
        uint64_t{128 >> 4} << 16 | uint64_t{256 >> 4} << 32,
        2048u >> 4 | uint64_t{128 >> 4} << 16 | uint64_t{256 >> 4} << 32, sums, before, after);
  };
  const std::string_view waits = "wgmma.wait_group.sync.aligned 0;";
  const auto test = [](const std::string& text) { return PtxTest{.body = text, .threads = 128}; };
  expect_none(test(body(waits, "")));
  expect_races(test(body("", "")), "wgmma.mma_async");
  expect_races(test(body("", waits)), "wgmma.mma_async");
}

}  // namespace
}  // namespace qnext::emulator
