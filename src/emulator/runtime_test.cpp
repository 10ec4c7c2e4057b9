// The runtime around the kernels: registration, checks of a launch, captures, descriptors.
#include "emulator/runtime.h"

#include <cuda.h>
#include <cuda_runtime_api.h>
#include <fatbinary_section.h>
#include <gtest/gtest.h>
#include <zstd.h>

#include <array>
#include <cmath>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "emulator/fat_binary.h"
#include "emulator/runtime_test.h"

namespace qnext::emulator {
namespace {

// values[thread] += addend, in blocks of 64 threads at most.
constexpr std::string_view ptx = R"(.version 9.0
.target sm_90a
.address_size 64

.visible .entry add(
.param .u64 .ptr .align 1 add_param_0,
.param .u32 add_param_1
)
.maxntid 64
{
.reg .b32 %r<7>;
.reg .b64 %rd<5>;

ld.param.u64 %rd1, [add_param_0];
ld.param.u32 %r1, [add_param_1];
cvta.to.global.u64 %rd2, %rd1;
mov.u32 %r2, %ctaid.x;
mov.u32 %r3, %ntid.x;
mov.u32 %r4, %tid.x;
mad.lo.s32 %r5, %r2, %r3, %r4;
mul.wide.s32 %rd3, %r5, 4;
add.s64 %rd4, %rd2, %rd3;
ld.global.u32 %r6, [%rd4];
add.s32 %r6, %r6, %r1;
st.global.u32 [%rd4], %r6;
ret;

}
)";

// What the host calls for a kernel, and one that is no kernel's.
void add() {}
void unknown() {}

class Runtime : public ::testing::Test {
 protected:
  static constexpr int count = 256;

  void SetUp() override {
    handle_ = __cudaRegisterFatBinary(&wrapper_);
    __cudaRegisterFunction(handle_, static_cast<const char*>(host(add)), nullptr, "add", -1,
                           nullptr, nullptr, nullptr, nullptr, nullptr);
    ASSERT_EQ(cudaMalloc(reinterpret_cast<void**>(&values_), count * sizeof(int)), cudaSuccess);
    ASSERT_EQ(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), cudaSuccess);
  }

  void TearDown() override {
    cudaStreamDestroy(stream_);
    cudaFree(values_);
    __cudaUnregisterFatBinary(handle_);
    forget_fault();
  }

  cudaError_t launch(dim3 grid, dim3 block, unsigned cluster = 1, size_t shared_bytes = 0,
                     int* values = nullptr) {
    int* first = values ? values : values_;
    unsigned addend = 3;
    void* arguments[] = {&first, &addend};
    cudaLaunchAttribute attributes[2]{};
    attributes[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attributes[1].id = cudaLaunchAttributeClusterDimension;
    attributes[1].val.clusterDim.x = cluster;
    attributes[1].val.clusterDim.y = attributes[1].val.clusterDim.z = 1;
    cudaLaunchConfig_t config{};
    config.gridDim = grid;
    config.blockDim = block;
    config.dynamicSmemBytes = shared_bytes;
    config.stream = stream_;
    config.attrs = attributes;
    config.numAttrs = 2;
    return cudaLaunchKernelExC(&config, host(add), arguments);
  }

  std::vector<int> read() {
    std::vector<int> out(count);
    EXPECT_EQ(cudaMemcpy(out.data(), values_, count * sizeof(int), cudaMemcpyDeviceToHost),
              cudaSuccess);
    return out;
  }

  std::vector<std::byte> fat_binary_ = fat_binary_of(ptx, 0, 0);
  __fatBinC_Wrapper_t wrapper_{FATBINC_MAGIC, FATBINC_VERSION,
                               reinterpret_cast<const unsigned long long*>(fat_binary_.data()),
                               nullptr};
  void** handle_ = nullptr;
  int* values_ = nullptr;
  cudaStream_t stream_ = nullptr;
};

TEST(FatBinary, PtxIsFoundPlainAndCompressed) {
  EXPECT_EQ(ptx_in(fat_binary_of(ptx, 0, 0)), ptx);
  std::string packed(ZSTD_compressBound(ptx.size()), '\0');
  packed.resize(ZSTD_compress(packed.data(), packed.size(), ptx.data(), ptx.size(), 3));
  EXPECT_EQ(ptx_in(fat_binary_of(packed, 0x8000, ptx.size())), ptx);
  EXPECT_THROW(ptx_in(fat_binary_of(packed, 0x8000, ptx.size() + 1)), Error);
  EXPECT_THROW(ptx_in(fat_binary_of(packed, 0x2000, ptx.size())), Error);
  EXPECT_THROW(ptx_in(fat_binary_of(packed.substr(0, packed.size() / 2), 0x8000, ptx.size())),
               Error);
  std::vector<std::byte> cut = fat_binary_of(ptx, 0, 0);
  cut.resize(cut.size() / 2);
  EXPECT_THROW(ptx_in(cut), Error);
}

TEST_F(Runtime, FreshMemoryIsPoisonedAndCopiesKeepToIt) {
  EXPECT_EQ(read(), std::vector<int>(count, -1));
  std::array<int, 4> some{};
  EXPECT_EQ(cudaMemcpy(some.data(), values_ + count - 3, sizeof some, cudaMemcpyDeviceToHost),
            cudaErrorInvalidValue);
  EXPECT_EQ(cudaMemcpy(some.data(), values_, sizeof some, cudaMemcpyHostToDevice),
            cudaErrorInvalidValue);
  EXPECT_EQ(cudaMemset(some.data(), 0, sizeof some), cudaErrorInvalidValue);
  EXPECT_EQ(cudaFree(some.data()), cudaErrorInvalidValue);
  EXPECT_EQ(cudaGetLastError(), cudaErrorInvalidValue);
  EXPECT_EQ(cudaGetLastError(), cudaSuccess);
  size_t available = 0, left = 0, total = 0;
  void* all = nullptr;
  EXPECT_EQ(cudaMemGetInfo(&available, &total), cudaSuccess);
  EXPECT_EQ(cudaMalloc(&all, 4096), cudaSuccess);
  EXPECT_EQ(cudaMemGetInfo(&left, &total), cudaSuccess);
  EXPECT_EQ(left, available - 4096);
  EXPECT_EQ(cudaFree(all), cudaSuccess);
  EXPECT_EQ(cudaMalloc(&all, total), cudaErrorMemoryAllocation);
}

TEST_F(Runtime, LaunchesTheWayNvccWritesThem) {
  ASSERT_EQ(cudaMemset(values_, 0, count * sizeof(int)), cudaSuccess);
  EXPECT_EQ(__cudaPushCallConfiguration(4, 64, 0, stream_), 0u);
  dim3 grid, block;
  size_t shared_bytes = 1;
  cudaStream_t stream = nullptr;
  ASSERT_EQ(__cudaPopCallConfiguration(&grid, &block, &shared_bytes, &stream), cudaSuccess);
  EXPECT_EQ(stream, stream_);
  EXPECT_NE(__cudaPopCallConfiguration(&grid, &block, &shared_bytes, &stream), cudaSuccess);
  cudaKernel_t kernel = nullptr;
  ASSERT_EQ(__cudaGetKernel(&kernel, host(add)), cudaSuccess);
  unsigned addend = 5;
  void* arguments[] = {&values_, &addend};
  EXPECT_EQ(__cudaLaunchKernel(kernel, grid, block, arguments, shared_bytes, stream), cudaSuccess);
  EXPECT_EQ(read(), std::vector<int>(count, 5));
}

TEST_F(Runtime, KernelsReachPageLockedMemory) {
  int* locked = nullptr;
  ASSERT_EQ(cudaMallocHost(reinterpret_cast<void**>(&locked), 64 * sizeof(int)), cudaSuccess);
  for (int i = 0; i < 64; ++i) locked[i] = i;
  EXPECT_EQ(launch(1, 64, 1, 0, locked), cudaSuccess);
  for (int i = 0; i < 64; ++i) EXPECT_EQ(locked[i], i + 3);
  EXPECT_EQ(cudaFreeHost(locked), cudaSuccess);
}

TEST_F(Runtime, RefusesWhatADriverRefuses) {
  ASSERT_EQ(cudaMemset(values_, 0, count * sizeof(int)), cudaSuccess);
  EXPECT_EQ(launch(1, 65), cudaErrorInvalidValue) << "above .maxntid";
  EXPECT_EQ(launch(1, 0), cudaErrorInvalidConfiguration);
  EXPECT_EQ(launch(dim3(1, 65'536), 32), cudaErrorInvalidConfiguration);
  EXPECT_EQ(launch(3, 32, 2), cudaErrorInvalidClusterSize) << "does not divide the grid";
  EXPECT_EQ(launch(16, 16, 16), cudaErrorInvalidClusterSize);
  EXPECT_EQ(launch(1, 32, 1, (48 << 10) + 1), cudaErrorInvalidValue);
  EXPECT_EQ(
      cudaFuncSetAttribute(host(add), cudaFuncAttributeMaxDynamicSharedMemorySize, (227 << 10) + 1),
      cudaErrorInvalidValue);
  EXPECT_EQ(cudaFuncSetAttribute(host(add), cudaFuncAttributeMax, 1), cudaErrorNotSupported);
  EXPECT_EQ(cudaFuncSetAttribute(host(unknown), cudaFuncAttributeMaxDynamicSharedMemorySize, 1),
            cudaErrorInvalidDeviceFunction);
  EXPECT_EQ(cudaLaunchKernel(host(unknown), 1, 1, nullptr, 0, stream_),
            cudaErrorInvalidDeviceFunction);
  int value = 0;
  EXPECT_EQ(cudaDeviceGetAttribute(&value, cudaDevAttrMaxTexture1DWidth, 0), cudaErrorNotSupported);
  EXPECT_EQ(read(), std::vector<int>(count, 0)) << "something ran";

  EXPECT_EQ(cudaFuncSetAttribute(host(add), cudaFuncAttributeMaxDynamicSharedMemorySize, 227 << 10),
            cudaSuccess);
  EXPECT_EQ(cudaFuncSetAttribute(host(add), cudaFuncAttributeNonPortableClusterSizeAllowed, 1),
            cudaSuccess);
  EXPECT_EQ(launch(16, 16, 16, 227 << 10), cudaSuccess);
  EXPECT_EQ(read(), std::vector<int>(count, 3));
}

TEST_F(Runtime, AFaultAnswersEveryLaterCall) {
  EXPECT_EQ(launch(5, 64), cudaErrorLaunchFailure) << "256 values, 320 threads";
  EXPECT_EQ(cudaStreamSynchronize(stream_), cudaErrorLaunchFailure);
  EXPECT_EQ(cudaGetLastError(), cudaErrorLaunchFailure);
  EXPECT_EQ(cudaGetLastError(), cudaErrorLaunchFailure);
}

TEST_F(Runtime, AGraphRepeatsWhatWasCaptured) {
  std::vector<int> from(count, 7), to(count, 0);
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t ready = nullptr;
  ASSERT_EQ(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal), cudaSuccess);
  EXPECT_EQ(
      cudaMemcpyAsync(values_, from.data(), count * sizeof(int), cudaMemcpyHostToDevice, stream_),
      cudaSuccess);
  EXPECT_EQ(cudaMemsetAsync(values_, 0, 64 * sizeof(int), stream_), cudaSuccess);
  EXPECT_EQ(launch(4, 64), cudaSuccess);
  EXPECT_EQ(
      cudaMemcpyAsync(to.data(), values_, count * sizeof(int), cudaMemcpyDeviceToHost, stream_),
      cudaSuccess);
  ASSERT_EQ(cudaStreamEndCapture(stream_, &graph), cudaSuccess);
  ASSERT_EQ(cudaGraphInstantiate(&ready, graph, 0), cudaSuccess);
  EXPECT_EQ(cudaGraphDestroy(graph), cudaSuccess);
  EXPECT_EQ(read(), std::vector<int>(count, -1)) << "a capture does nothing yet";
  for (int value : {7, 11}) {
    from.assign(count, value);
    ASSERT_EQ(cudaGraphLaunch(ready, stream_), cudaSuccess);
    std::vector<int> expected(64, 3);
    expected.resize(count, value + 3);
    EXPECT_EQ(to, expected);
  }
  EXPECT_EQ(cudaGraphExecDestroy(ready), cudaSuccess);
  EXPECT_EQ(cudaGraphLaunch(ready, stream_), cudaErrorInvalidValue);
}

TEST_F(Runtime, EventsBringOtherStreamsIntoACapture) {
  cudaStream_t other = nullptr;
  cudaEvent_t forked = nullptr, joined = nullptr;
  ASSERT_EQ(cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking), cudaSuccess);
  ASSERT_EQ(cudaEventCreate(&forked), cudaSuccess);
  ASSERT_EQ(cudaEventCreate(&joined), cudaSuccess);
  for (bool join : {true, false}) {
    cudaGraph_t graph = nullptr;
    ASSERT_EQ(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal), cudaSuccess);
    EXPECT_EQ(cudaEventRecord(forked, stream_), cudaSuccess);
    EXPECT_EQ(cudaStreamWaitEvent(other, forked, 0), cudaSuccess);
    EXPECT_EQ(cudaMemsetAsync(values_, 0, count * sizeof(int), other), cudaSuccess);
    EXPECT_EQ(cudaEventRecord(joined, other), cudaSuccess);
    EXPECT_EQ(cudaEventSynchronize(joined), cudaErrorCapturedEvent);
    if (join) {
      EXPECT_EQ(cudaStreamWaitEvent(stream_, joined, 0), cudaSuccess);
    }
    EXPECT_EQ(cudaStreamEndCapture(stream_, &graph),
              join ? cudaSuccess : cudaErrorStreamCaptureUnjoined);
    EXPECT_EQ(graph != nullptr, join);
    if (graph) {
      EXPECT_EQ(cudaGraphDestroy(graph), cudaSuccess);
    }
    EXPECT_EQ(read(), std::vector<int>(count, -1));
  }
  EXPECT_EQ(cudaEventRecord(forked, stream_), cudaSuccess);
  EXPECT_EQ(launch(4, 64), cudaSuccess);
  EXPECT_EQ(cudaEventRecord(joined, stream_), cudaSuccess);
  float milliseconds = 0;
  EXPECT_EQ(cudaEventElapsedTime(&milliseconds, forked, joined), cudaSuccess);
  EXPECT_GT(milliseconds, 0);
  EXPECT_EQ(cudaEventDestroy(forked), cudaSuccess);
  EXPECT_EQ(cudaEventDestroy(joined), cudaSuccess);
  EXPECT_EQ(cudaStreamDestroy(other), cudaSuccess);
}

TEST_F(Runtime, ACaptureForbidsWhatWouldWait) {
  cudaGraph_t graph = nullptr;
  void* more = nullptr;
  ASSERT_EQ(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal), cudaSuccess);
  EXPECT_EQ(cudaMalloc(&more, 16), cudaErrorStreamCaptureUnsupported);
  EXPECT_EQ(cudaMemsetAsync(values_, 0, 16, stream_), cudaErrorStreamCaptureInvalidated);
  EXPECT_EQ(cudaStreamEndCapture(stream_, &graph), cudaErrorStreamCaptureInvalidated);
  EXPECT_EQ(graph, nullptr);
  EXPECT_EQ(cudaStreamSynchronize(stream_), cudaSuccess);
}

// A descriptor that is right, but for what a test changes.
struct Descriptor {
  alignas(64) CUtensorMap map{};
  char* base = nullptr;
  CUtensorMapDataType type = CU_TENSOR_MAP_DATA_TYPE_BFLOAT16;
  cuuint64_t sizes[2] = {256, 64};
  cuuint64_t strides[1] = {512};
  cuuint32_t box[2] = {64, 64};
  cuuint32_t steps[2] = {1, 1};
  CUtensorMapInterleave interleave = CU_TENSOR_MAP_INTERLEAVE_NONE;

  CUresult encode() {
    void* function = nullptr;
    cudaDriverEntryPointQueryResult found{};
    EXPECT_EQ(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000,
                                               cudaEnableDefault, &found),
              cudaSuccess);
    EXPECT_EQ(found, cudaDriverEntryPointSuccess);
    return reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(function)(
        &map, type, 2, base, sizes, strides, box, steps, interleave, CU_TENSOR_MAP_SWIZZLE_128B,
        CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  }
};

TEST_F(Runtime, TensorMapsAreCheckedAsByTheDriver) {
  const auto encoded = [&](auto&& change) {
    Descriptor descriptor;
    descriptor.base = reinterpret_cast<char*>(values_);
    change(descriptor);
    return descriptor.encode();
  };
  EXPECT_EQ(encoded([](Descriptor&) {}), CUDA_SUCCESS);
  EXPECT_EQ(encoded([](Descriptor& d) { d.box[1] = 256; }), CUDA_SUCCESS);
  EXPECT_EQ(encoded([](Descriptor& d) { d.base += 8; }), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(encoded([](Descriptor& d) { d.strides[0] = 520; }), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(encoded([](Descriptor& d) { d.sizes[1] = 0; }), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(encoded([](Descriptor& d) { d.box[1] = 257; }), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(encoded([](Descriptor& d) { d.box[1] = 0; }), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(encoded([](Descriptor& d) { d.box[0] = 72; }), CUDA_ERROR_INVALID_VALUE)
      << "more than the swizzle's 128 bytes";
  EXPECT_EQ(encoded([](Descriptor& d) { d.box[0] = 4; }), CUDA_ERROR_INVALID_VALUE)
      << "no multiple of 16 bytes";
  EXPECT_EQ(encoded([](Descriptor& d) { d.interleave = CU_TENSOR_MAP_INTERLEAVE_16B; }),
            CUDA_ERROR_NOT_SUPPORTED);
  void* function = &function;
  cudaDriverEntryPointQueryResult found{};
  EXPECT_EQ(
      cudaGetDriverEntryPointByVersion("cuNothing", &function, 12000, cudaEnableDefault, &found),
      cudaSuccess);
  EXPECT_EQ(found, cudaDriverEntryPointSymbolNotFound);
  EXPECT_EQ(function, nullptr);
}

}  // namespace
}  // namespace qnext::emulator
