// Lists of rows by expert against a plain stable sort.
#include "ops/moe/expert_lists_cuda.h"

#include <gtest/gtest.h>

#include <random>

#include "ops/cuda_test.h"

namespace qnext::ops::cuda {
namespace {

void expect_lists(const std::vector<int32_t>& ids, int64_t rows, int64_t slots, int64_t experts) {
  const OnDevice<int32_t> device_ids(ids);
  const OnDevice<uint8_t> workspace(
      std::vector<uint8_t>(expert_lists_bytes(experts, rows * slots), 0xFF));
  const ExpertLists lists =
      list_experts(nullptr, device_ids.get(), rows, slots, experts, workspace.get());
  EXPECT_EQ(lists.experts, experts);
  EXPECT_EQ(lists.pairs, rows * slots);

  std::vector<std::vector<int32_t>> of_expert(static_cast<size_t>(experts));
  for (size_t pair = 0; pair < ids.size(); ++pair)
    of_expert[static_cast<size_t>(ids[pair])].push_back(static_cast<int32_t>(pair));
  std::vector<int32_t> offsets{0}, pairs, used;
  for (size_t e = 0; e < of_expert.size(); ++e) {
    pairs.insert(pairs.end(), of_expert[e].begin(), of_expert[e].end());
    offsets.push_back(static_cast<int32_t>(pairs.size()));
    if (!of_expert[e].empty()) used.push_back(static_cast<int32_t>(e));
  }
  const auto fetch = [&](const int32_t* from, size_t count) {
    std::vector<int32_t> values(count);
    check_cuda(cudaMemcpy(values.data(), from, count * sizeof(int32_t), cudaMemcpyDeviceToHost),
               "cudaMemcpy");
    return values;
  };
  ASSERT_EQ(fetch(lists.offsets, offsets.size()), offsets);
  ASSERT_EQ(fetch(lists.pair, pairs.size()), pairs);
  ASSERT_EQ(fetch(lists.used_count, 1)[0], static_cast<int32_t>(used.size()));
  ASSERT_EQ(fetch(lists.used, used.size()), used);
}

TEST_F(CudaOps, ExpertListsAreAStableSort) {
  std::mt19937 random(4);
  // One launch and three; a chunk's last pair cut in every way.
  for (int64_t rows : {1, 2, 33, 186, 744, 745, 1000, 8192})
    for (int64_t experts : {1, 2, 60, 513, 1024, 1500}) {
      std::vector<int32_t> ids(static_cast<size_t>(rows * 11));
      for (int32_t& id : ids) id = static_cast<int32_t>(random() % static_cast<uint32_t>(experts));
      expect_lists(ids, rows, 11, experts);
    }
}

TEST_F(CudaOps, ExpertListsAllToOneAndToFew) {
  for (int64_t rows : {5, 5000}) {
    expect_lists(std::vector<int32_t>(static_cast<size_t>(rows * 2), 70), rows, 2, 71);
    std::vector<int32_t> few(static_cast<size_t>(rows * 2));
    for (size_t i = 0; i < few.size(); ++i) few[i] = i % 2 == 0 ? 512 : 3;
    expect_lists(few, rows, 2, 513);
  }
}

TEST_F(CudaOps, ExpertListsOfNothing) {
  expect_lists({}, 0, 11, 513);
}

}  // namespace
}  // namespace qnext::ops::cuda
