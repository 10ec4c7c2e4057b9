// Skips a whole program of GPU tests on a machine without a GPU.
#include <gtest/gtest.h>

#include "backend/cuda/cuda_backend.h"

namespace qnext {
namespace {

class GpuRequired : public ::testing::Environment {
 public:
  void SetUp() override {
    if (const auto reason = backend::why_no_cuda()) GTEST_SKIP() << *reason;
  }
};

const ::testing::Environment* const gpu_required =
    ::testing::AddGlobalTestEnvironment(new GpuRequired);

}  // namespace
}  // namespace qnext
