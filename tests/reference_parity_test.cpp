// The engine and the fp64 oracle against the vectors of an independent implementation.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "app/verify.h"
#include "base/cpu_features.h"
#include "base/error.h"
#include "model/oracle_forward.h"
#include "tests/models.h"

namespace qnext {
namespace {

using testing::data_folder;
using testing::TestModel;

// fp32 sums in another order than the reference's move its logits by 1e-5 of the largest; a wrong
// formula moves them by far more.
constexpr double fp32_tolerance = 1e-4;

struct Case {
  std::string folder;
  Isa isa;
  int64_t chunk;  // 7: boundaries at awkward places; 512: the whole prompt at once
};

std::string case_name(const ::testing::TestParamInfo<Case>& info) {
  std::string name = info.param.folder.substr(info.param.folder.find_last_of('/') + 1);
  std::erase(name, '-');
  return fmt::format("{}_{}_chunk{}", name, isa_name(info.param.isa), info.param.chunk);
}

class ReferenceParity : public ::testing::TestWithParam<Case> {
 protected:
  void TearDown() override { limit_isa(Isa::avx512); }
};

TEST_P(ReferenceParity, EveryVectorWithinTolerance) {
  const Case& param = GetParam();
  if (param.isa > best_isa()) GTEST_SKIP() << "this machine has no " << isa_name(param.isa);
  limit_isa(param.isa);
  const TestModel model(param.folder);
  const auto backend = model.backend(2);
  const SafetensorsFile vectors(param.folder + "/vectors.safetensors");
  const auto checks =
      app::verify(*backend, vectors, {.tolerance = fp32_tolerance, .chunk = param.chunk});
  EXPECT_GE(checks.size(), 12u);
  for (const app::VerifyCheck& check : checks)
    EXPECT_TRUE(check.passed) << check.what << ": error " << check.largest_error << " of "
                              << check.scale << ", " << check.tokens_equal << " of " << check.tokens
                              << " tokens equal";
}

std::vector<Case> cases() {
  std::vector<Case> all;
  std::vector<Isa> isas{Isa::scalar, Isa::avx2, Isa::avx512};
  if (testing::on_cuda) isas.resize(1);  // it means nothing there
  for (const std::string& folder : {data_folder("g1-small"), data_folder("g2-heads"),
                                    data_folder("g3-yarn"), testing::tiny_shakespeare})
    for (Isa isa : isas)
      for (int64_t chunk : {7, 512}) all.push_back({folder, isa, chunk});
  return all;
}
INSTANTIATE_TEST_SUITE_P(Folders, ReferenceParity, ::testing::ValuesIn(cases()), case_name);

TEST(ReferenceParity, WrongVectorsAreFound) {
  // The vectors of g3 were made with YaRN; without it the same weights give other numbers.
  TestModel model(data_folder("g3-yarn"));
  model.config.rope.yarn.reset();
  const auto backend = model.backend(1);
  const SafetensorsFile vectors(data_folder("g3-yarn") + "/vectors.safetensors");
  int failed = 0;
  for (const app::VerifyCheck& check : app::verify(*backend, vectors, {})) failed += !check.passed;
  EXPECT_GT(failed, 3);
}

TEST(ReferenceParity, VectorsOfAnotherModelAreRefused) {
  const TestModel model(data_folder("g3-yarn"));
  const auto backend = model.backend(1);
  const SafetensorsFile vectors(data_folder("g2-heads") + "/vectors.safetensors");
  EXPECT_THROW(app::verify(*backend, vectors, {}), Error);
}

class OracleParity : public ::testing::TestWithParam<std::string> {};

// The fp64 forward is at least as close to the reference as fp32 arithmetic allows.
TEST_P(OracleParity, LogitsWithinTolerance) {
  const TestModel model(data_folder(GetParam()));
  const SafetensorsFile vectors(data_folder(GetParam()) + "/vectors.safetensors");
  const StoredTensor& ids = vectors.get("input_ids");
  std::vector<int32_t> tokens(static_cast<size_t>(ids.shape[1]));
  std::memcpy(tokens.data(), ids.data, tokens.size() * sizeof(int32_t));
  const OracleOutputs out = oracle_forward(model.config, model.checkpoint, tokens);

  const auto compare = [&](const char* name, const std::vector<double>& found) {
    std::vector<float> expected(found.size());
    convert_to_float(DType::f32, vectors.get(name).data, expected.data(), expected.size());
    double error = 0, scale = 0;
    for (size_t i = 0; i < found.size(); ++i) {
      error = std::max(error, std::abs(found[i] - expected[i]));
      scale = std::max(scale, std::abs(static_cast<double>(expected[i])));
    }
    EXPECT_LE(error, fp32_tolerance * scale) << name;
  };
  compare("logits", out.logits);
  compare("mtp_hidden", out.mtp_hidden);
  compare("mtp_logits", out.mtp_logits);
}
INSTANTIATE_TEST_SUITE_P(Folders, OracleParity,
                         ::testing::Values("g1-small", "g2-heads", "g3-yarn"),
                         [](const auto& test) { return test.param.substr(0, 2); });

}  // namespace
}  // namespace qnext
