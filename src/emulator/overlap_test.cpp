// Launches that overlap: a kernel that does before its wait what belongs behind it has to give a
// wrong result for some seed, one that does not a right one for all.
#include <fatbinary_section.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "emulator/runtime.h"
#include "emulator/runtime_test.h"

namespace qnext::emulator {
namespace {

using ::testing::HasSubstr;

constexpr uint32_t seeds = 24;
constexpr int count = 256, threads = 64;
constexpr int most_blocks = 80;  // that buffers have room for

// What a kernel does, a letter each: (t)rigger: let the next one start, (w)ait for earlier ones,
// (l)oad in[thread], (s)tore out[thread] = loaded + addend, (d)elay, (h)ang, take much (m)emory.
constexpr std::array<const char*, 11> kernels = {"twls", "tlws", "tlsw",  "wls",   "wtls", "tls",
                                                 "lsw",  "th",   "mtwls", "mtlws", "twdls"};

std::string_view step(char letter) {
  switch (letter) {
    case 't':
      return "griddepcontrol.launch_dependents;\n";
    case 'w':
      return "griddepcontrol.wait;\n";
    case 'l':
      return "ld.global.u32 %r6, [%rd5];\n";
    case 's':
      return "add.s32 %r7, %r6, %r1;\nst.global.u32 [%rd6], %r7;\n";
    case 'd':
      return "mov.u32 %r8, 0;\nagain:\nadd.s32 %r8, %r8, 1;\nsetp.lt.u32 %p1, %r8, 4000;\n"
             "@%p1 bra again;\n";
    case 'h':
      return "setp.gt.u32 %p1, %r4, 31;\n@%p1 bra over;\nbar.sync 1, 64;\nover:\n";
    default:  // 16 MB a warp
      return ".local .align 8 .b8 much[524288];\n";
  }
}

std::string ptx_of_all() {
  std::string text = ".version 9.0\n.target sm_90a\n.address_size 64\n";
  for (const std::string_view steps : kernels) {
    text += fmt::format(
        "\n.visible .entry {0}(\n.param .u64 {0}_param_0,\n.param .u64 {0}_param_1,\n"
        ".param .u32 {0}_param_2\n)\n{{\n.reg .pred %p<2>;\n.reg .b32 %r<9>;\n.reg .b64 %rd<7>;\n\n"
        "ld.param.u64 %rd1, [{0}_param_0];\n"
        "mov.u32 %r2, %ctaid.x;\nmov.u32 %r3, %ntid.x;\nmov.u32 %r4, %tid.x;\n"
        "mad.lo.s32 %r5, %r2, %r3, %r4;\nmul.wide.s32 %rd4, %r5, 4;\n"
        "add.s64 %rd5, %rd1, %rd4;\n",
        steps);
    for (const char letter : steps) {
      // Parameters are read late: they are the launch's own for as long as it runs.
      if (letter == 's')
        text += fmt::format(
            "ld.param.u64 %rd2, [{0}_param_1];\nadd.s64 %rd6, %rd2, %rd4;\n"
            "ld.param.u32 %r1, [{0}_param_2];\n",
            steps);
      text += step(letter);
    }
    text += "ret;\n\n}\n";
  }
  return text;
}

// Buffers by name: 'a' holds the threads' numbers, others are zeros until a kernel has written
// them.
struct Step {
  std::string_view kernel;
  char in = 'a', out = 'b';
  bool early = true;
  int grid = count / threads;
};
using Chain = std::vector<Step>;
constexpr int addend = 1000;

class Overlap : public ::testing::Test {
 protected:
  void SetUp() override {
    handle_ = __cudaRegisterFatBinary(&wrapper_);
    for (const char*& kernel : functions_)
      __cudaRegisterFunction(handle_, reinterpret_cast<const char*>(&kernel), nullptr, kernel, -1,
                             nullptr, nullptr, nullptr, nullptr, nullptr);
    ASSERT_EQ(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), cudaSuccess);
    for (char name = 'a'; name <= 'f'; ++name)
      ASSERT_EQ(cudaMalloc(reinterpret_cast<void**>(&buffers_[name]),
                           most_blocks * threads * sizeof(int)),
                cudaSuccess);
  }

  void TearDown() override {
    forget_fault();
    for (const auto& [name, buffer] : buffers_) cudaFree(buffer);
    cudaStreamDestroy(stream_);
    __cudaUnregisterFatBinary(handle_);
    set_seed(0);
  }

  void fill() {
    for (const auto& [name, buffer] : buffers_) {
      std::vector<int> values(count);
      for (int i = 0; name == 'a' && i < count; ++i) values[static_cast<size_t>(i)] = i;
      ASSERT_EQ(cudaMemcpy(buffer, values.data(), count * sizeof(int), cudaMemcpyHostToDevice),
                cudaSuccess);
    }
  }

  cudaError_t launch(const Step& step) {
    int* in = buffers_[step.in];
    int* out = buffers_[step.out];
    int added = addend;
    void* arguments[] = {&in, &out, &added};
    cudaLaunchAttribute attribute{};
    attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attribute.val.programmaticStreamSerializationAllowed = step.early ? 1 : 0;
    cudaLaunchConfig_t config{};
    config.gridDim = dim3(static_cast<unsigned>(step.grid));
    config.blockDim = dim3(threads);
    config.stream = stream_;
    config.attrs = &attribute;
    config.numAttrs = 1;
    for (const char*& kernel : functions_)
      if (step.kernel == kernel) return cudaLaunchKernelExC(&config, &kernel, arguments);
    return cudaErrorInvalidValue;
  }

  // 'a' + times * addend everywhere?
  bool is_right(char name, int times) {
    std::vector<int> values(count);
    EXPECT_EQ(
        cudaMemcpy(values.data(), buffers_[name], count * sizeof(int), cudaMemcpyDeviceToHost),
        cudaSuccess);
    for (int i = 0; i < count; ++i)
      if (values[static_cast<size_t>(i)] != i + times * addend) return false;
    return true;
  }

  // The number of seeds that give something else in buffer `name`.
  uint32_t wrong_seeds(const Chain& chain, char name, int times) {
    uint32_t wrong = 0;
    const LaunchCounts before = launch_counts();
    for (uint32_t seed = 0; seed < seeds; ++seed) {
      set_seed(seed);
      fill();
      for (const Step& step : chain) EXPECT_EQ(launch(step), cudaSuccess);
      wrong += is_right(name, times) ? 0 : 1;
    }
    overlapped_ = launch_counts().overlapped - before.overlapped;
    in_order_ = launch_counts().in_order - before.in_order;
    too_large_ = launch_counts().too_large - before.too_large;
    return wrong;
  }

  // For some seeds but not for all.
  void expect_found(const Chain& chain, char name, int times) {
    const uint32_t wrong = wrong_seeds(chain, name, times);
    EXPECT_GT(wrong, 0u);
    EXPECT_LT(wrong, seeds);
  }

  std::vector<std::byte> fat_binary_ = fat_binary_of(ptx_of_all(), 0, 0);
  __fatBinC_Wrapper_t wrapper_{FATBINC_MAGIC, FATBINC_VERSION,
                               reinterpret_cast<const unsigned long long*>(fat_binary_.data()),
                               nullptr};
  std::array<const char*, kernels.size()> functions_ =
      kernels;  // their places: the host's functions
  void** handle_ = nullptr;
  cudaStream_t stream_ = nullptr;
  std::map<char, int*> buffers_;
  uint64_t overlapped_ = 0, in_order_ = 0, too_large_ = 0;
};

TEST_F(Overlap, WhoWaitsFirstReadsWhatIsWritten) {
  EXPECT_EQ(wrong_seeds({{"twls", 'a', 'b'}, {"twls", 'b', 'c'}, {"twls", 'c', 'd'}}, 'd', 3), 0u);
  EXPECT_GT(overlapped_, seeds / 4) << "two launches of a kernel may be open";
  EXPECT_GT(in_order_, seeds);
}

TEST_F(Overlap, WhoReadsBeforeItsWaitIsFound) {
  expect_found({{"twls", 'a', 'b'}, {"tlws", 'b', 'c'}}, 'c', 2);
  EXPECT_EQ(wrong_seeds({{"twls", 'a', 'b'}, {"tlws", 'b', 'c', false}}, 'c', 2), 0u)
      << "launched without leave to start early";
  EXPECT_EQ(overlapped_, 0u);
}

TEST_F(Overlap, WhoWritesBeforeItsWaitIsFound) {
  const Chain chain = {{"twls", 'a', 'b'}, {"tlsw", 'c', 'a'}};
  expect_found(chain, 'b', 1);
  EXPECT_EQ(wrong_seeds({{"twls", 'a', 'b'}, {"tlws", 'c', 'a'}}, 'b', 1), 0u);
}

TEST_F(Overlap, OneThatIsTwoAheadMayRunStill) {
  expect_found({{"twls", 'a', 'b'}, {"twls", 'e', 'd'}, {"tlws", 'b', 'c'}}, 'c', 2);
  expect_found({{"twls", 'a', 'b'}, {"twls", 'e', 'd'}, {"tlsw", 'e', 'a'}}, 'b', 1);
}

TEST_F(Overlap, WhoNeverTriggersIsWaitedFor) {
  EXPECT_EQ(wrong_seeds({{"wls", 'a', 'b'}, {"tlws", 'b', 'c'}}, 'c', 2), 0u);
  EXPECT_EQ(overlapped_, 0u);
}

TEST_F(Overlap, WhoTriggersBehindItsWaitMayStillRun) {
  expect_found({{"wtls", 'a', 'b'}, {"tlws", 'b', 'c'}}, 'c', 2);
  EXPECT_EQ(wrong_seeds({{"wtls", 'a', 'b'}, {"twls", 'b', 'c'}}, 'c', 2), 0u);
}

// The wait is for the one before alone, and that has ended.
TEST_F(Overlap, WhoNeverWaitsLetsTheNextPastThoseBefore) {
  expect_found({{"twls", 'a', 'b'}, {"tls", 'e', 'd'}, {"twls", 'b', 'c'}}, 'c', 2);
  EXPECT_EQ(wrong_seeds({{"twls", 'a', 'b'}, {"tls", 'e', 'd'}, {"twls", 'b', 'c', false}}, 'c', 2),
            0u);
}

TEST_F(Overlap, AllElseEndsWhatIsOpen) {
  for (uint32_t seed = 0; seed < seeds; ++seed) {
    set_seed(seed);
    fill();
    EXPECT_EQ(launch({"twls", 'a', 'b'}), cudaSuccess);
    EXPECT_EQ(cudaMemsetAsync(buffers_['f'], 0, sizeof(int), stream_), cudaSuccess);
    EXPECT_EQ(launch({"tlws", 'b', 'c'}), cudaSuccess);
    EXPECT_EQ(cudaStreamSynchronize(stream_), cudaSuccess);
    EXPECT_EQ(launch({"tlws", 'c', 'd'}), cudaSuccess);
    EXPECT_TRUE(is_right('d', 3));
  }
}

TEST_F(Overlap, LaunchesOfAGraphOverlapToo) {
  for (const bool waits : {true, false}) {
    fill();
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t ready = nullptr;
    ASSERT_EQ(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal), cudaSuccess);
    EXPECT_EQ(launch({"twls", 'a', 'b'}), cudaSuccess);
    EXPECT_EQ(launch({"twls", 'b', 'c'}), cudaSuccess);
    EXPECT_EQ(launch({waits ? "twls" : "tlws", 'c', 'd'}), cudaSuccess);
    ASSERT_EQ(cudaStreamEndCapture(stream_, &graph), cudaSuccess);
    ASSERT_EQ(cudaGraphInstantiate(&ready, graph, 0), cudaSuccess);
    uint32_t wrong = 0;
    for (uint32_t seed = 0; seed < seeds; ++seed) {
      set_seed(seed);
      fill();
      EXPECT_EQ(launch({"tls", 'e', 'f'}), cudaSuccess);
      ASSERT_EQ(cudaGraphLaunch(ready, stream_), cudaSuccess);
      // Nothing overlaps what stands behind or in front of a graph.
      EXPECT_EQ(launch({"tlsw", 'd', 'e'}), cudaSuccess);
      wrong += is_right('d', 3) ? 0 : 1;
      EXPECT_EQ(is_right('d', 3), is_right('e', 4));
    }
    EXPECT_EQ(wrong == 0, waits);
    EXPECT_LT(wrong, seeds);
    EXPECT_EQ(cudaGraphExecDestroy(ready), cudaSuccess);
    EXPECT_EQ(cudaGraphDestroy(graph), cudaSuccess);
  }
}

// It depends on more than the launch before it.
TEST_F(Overlap, WhoWaitsForAnotherStreamInAGraphDoesNotOverlap) {
  cudaStream_t other = nullptr;
  cudaEvent_t forked = nullptr, joined = nullptr;
  ASSERT_EQ(cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking), cudaSuccess);
  ASSERT_EQ(cudaEventCreate(&forked), cudaSuccess);
  ASSERT_EQ(cudaEventCreate(&joined), cudaSuccess);
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t ready = nullptr;
  ASSERT_EQ(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal), cudaSuccess);
  EXPECT_EQ(cudaEventRecord(forked, stream_), cudaSuccess);
  EXPECT_EQ(cudaStreamWaitEvent(other, forked, 0), cudaSuccess);
  EXPECT_EQ(cudaMemsetAsync(buffers_['f'], 0, sizeof(int), other), cudaSuccess);
  EXPECT_EQ(cudaEventRecord(joined, other), cudaSuccess);
  EXPECT_EQ(launch({"twls", 'a', 'b'}), cudaSuccess);
  EXPECT_EQ(cudaStreamWaitEvent(stream_, joined, 0), cudaSuccess);
  EXPECT_EQ(launch({"tlws", 'b', 'c'}), cudaSuccess);
  ASSERT_EQ(cudaStreamEndCapture(stream_, &graph), cudaSuccess);
  ASSERT_EQ(cudaGraphInstantiate(&ready, graph, 0), cudaSuccess);
  for (uint32_t seed = 0; seed < seeds; ++seed) {
    set_seed(seed);
    fill();
    ASSERT_EQ(cudaGraphLaunch(ready, stream_), cudaSuccess);
    EXPECT_TRUE(is_right('c', 2));
  }
  EXPECT_EQ(cudaGraphExecDestroy(ready), cudaSuccess);
  EXPECT_EQ(cudaGraphDestroy(graph), cudaSuccess);
  EXPECT_EQ(cudaEventDestroy(forked), cudaSuccess);
  EXPECT_EQ(cudaEventDestroy(joined), cudaSuccess);
  EXPECT_EQ(cudaStreamDestroy(other), cudaSuccess);
}

TEST_F(Overlap, AFaultBehindAWaitIsOfItsKernel) {
  set_seed(1);
  fill();
  EXPECT_EQ(launch({"twdls", 'a', 'b', true, most_blocks + 1}), cudaSuccess);
  ::testing::internal::CaptureStderr();
  EXPECT_EQ(cudaStreamSynchronize(stream_), cudaErrorLaunchFailure);
  EXPECT_THAT(::testing::internal::GetCapturedStderr(),
              HasSubstr("kernel twdls, block (80, 0, 0)"));
  EXPECT_EQ(launch({"twls", 'a', 'b'}), cudaErrorLaunchFailure);
  forget_fault();
  EXPECT_EQ(launch({"twls", 'a', 'b'}), cudaSuccess);
  EXPECT_TRUE(is_right('b', 1));
}

TEST_F(Overlap, WhoWaitsForNobodyIsADeadlockInTheEnd) {
  ::testing::internal::CaptureStderr();
  EXPECT_EQ(launch({"twls", 'a', 'b'}), cudaSuccess);
  EXPECT_EQ(launch({"th", 'a', 'b'}), cudaSuccess);
  EXPECT_EQ(cudaStreamSynchronize(stream_), cudaErrorLaunchFailure);
  EXPECT_THAT(::testing::internal::GetCapturedStderr(), HasSubstr("kernel th: all"));
}

TEST_F(Overlap, OnlyAsFarAsMemoryGoes) {
  // 32 MB a block.
  const Chain small = {{"mtwls", 'a', 'b'}, {"mtlws", 'b', 'c'}};
  EXPECT_GT(wrong_seeds(small, 'c', 2), 0u);
  EXPECT_EQ(too_large_, 0u);
  set_seed(0);
  const LaunchCounts before = launch_counts();
  fill();
  EXPECT_EQ(launch({"twls", 'a', 'b'}), cudaSuccess);
  EXPECT_EQ(launch({"mtlws", 'b', 'c', true, most_blocks}), cudaSuccess);
  EXPECT_EQ(launch_counts().overlapped, before.overlapped);
  EXPECT_EQ(launch_counts().too_large, before.too_large + 1);
}

}  // namespace
}  // namespace qnext::emulator
