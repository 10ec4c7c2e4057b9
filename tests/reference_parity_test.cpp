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
  testing::Way way;
};

std::string case_name(const ::testing::TestParamInfo<Case>& info) {
  std::string name = info.param.folder.substr(info.param.folder.find_last_of('/') + 1);
  std::erase(name, '-');
  return fmt::format("{}_{}_chunk{}_{}", name, isa_name(info.param.isa), info.param.chunk,
                     info.param.way.name());
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
  const auto backend = model.backend(2, param.way);
  const SafetensorsFile vectors(param.folder + "/vectors.safetensors");
  // Tensor cores and narrow caches round more, and say how much.
  const bool exact = param.way.eager && param.way.kv == DType::f32;
  EXPECT_EQ(backend->capabilities().relative_error == fp32_tolerance, exact);
  const auto checks = app::verify(*backend, vectors, {.tolerance = {}, .chunk = param.chunk});
  EXPECT_GE(checks.size(), 12u);
  for (const app::VerifyCheck& check : checks)
    EXPECT_TRUE(check.passed) << check.what << ": error " << check.largest_error << " of "
                              << check.scale << ", " << check.tokens_equal << " of " << check.tokens
                              << " tokens equal"
                              << (check.rows
                                      ? fmt::format(", {} of {} judged rows beyond {}",
                                                    check.rows->judged_beyond, check.rows->judged,
                                                    check.rows->tolerance)
                                      : "");
}

std::vector<Case> cases() {
  std::vector<Case> all;
  std::vector<Isa> isas{Isa::scalar, Isa::avx2, Isa::avx512};
  if (testing::on_cuda) isas.resize(1);  // it means nothing there
  for (const std::string& folder : {data_folder("g1-small"), data_folder("g2-heads"),
                                    data_folder("g3-yarn"), testing::tiny_shakespeare}) {
    for (Isa isa : isas)
      for (const testing::Way& way : testing::exact_ways())
        for (int64_t chunk : {7, 512}) all.push_back({folder, isa, chunk, way});
    // How narrow caches are read is judged by the operation's own test; here, what they cost.
    if (!testing::on_cuda)
      for (const DType kv : {DType::bf16, DType::q8_0})
        all.push_back({folder, Isa::avx2, 7, {std::nullopt, true, kv}});
  }
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

// A backend that claims to round, around one that need not.
class ClaimsToRound : public backend::Backend {
 public:
  ClaimsToRound(std::unique_ptr<Backend> inner, double relative_error)
      : inner_(std::move(inner)), capabilities_(inner_->capabilities()) {
    capabilities_.relative_error = relative_error;
  }
  const Config& config() const override { return inner_->config(); }
  const backend::Capabilities& capabilities() const override { return capabilities_; }
  void reserve(const backend::Reservation& wanted) override { inner_->reserve(wanted); }
  size_t reservation_bytes(const backend::Reservation& wanted) const override {
    return inner_->reservation_bytes(wanted);
  }
  std::vector<backend::SequenceResult> step(const backend::Batch& batch) override {
    return inner_->step(batch);
  }
  void copy_state(int32_t from, int32_t to) override { inner_->copy_state(from, to); }
  void export_state(int32_t slot, std::span<std::byte> out) const override {
    inner_->export_state(slot, out);
  }
  void import_state(int32_t slot, std::span<const std::byte> in) override {
    inner_->import_state(slot, in);
  }
  void export_page(int32_t page, std::span<std::byte> out) const override {
    inner_->export_page(page, out);
  }
  void import_page(int32_t page, std::span<const std::byte> in) override {
    inner_->import_page(page, in);
  }
  void observe(backend::Observer* observer) override { inner_->observe(observer); }
  const backend::Traffic& traffic() const override { return inner_->traffic(); }
  double measure_read_bandwidth() override { return inner_->measure_read_bandwidth(); }

 private:
  std::unique_ptr<Backend> inner_;
  backend::Capabilities capabilities_;
};

constexpr double bf16_error_of_4_layers = 0x1p-5;

TEST(RowsParity, RightNumbersPassAndEveryRowIsJudged) {
  for (const char* folder : {"g1-small", "g2-heads", "g3-yarn"}) {
    const TestModel model(data_folder(folder));
    ClaimsToRound backend(model.backend(1), bf16_error_of_4_layers);
    const SafetensorsFile vectors(data_folder(folder) + "/vectors.safetensors");
    for (const app::VerifyCheck& check : app::verify(backend, vectors, {})) {
      EXPECT_TRUE(check.passed) << folder << ": " << check.what;
      EXPECT_EQ(check.rows.has_value(), !check.is_tokens());
      if (!check.rows) continue;
      EXPECT_EQ(check.rows->beyond, 0) << folder << ": " << check.what;
      const bool known = check.what.find("mtp") != 0 && check.what.find("greedy") != 0;
      EXPECT_EQ(check.rows->judged, known ? check.rows->rows : 0) << folder << ": " << check.what;
    }
  }
}

// Mistakes in reading the config are found at bf16's tolerance too, where they move rows by more
// than it. YaRN left out of g3-yarn does not: the weights are random, so its one attention layer
// averages over all positions, wherever they are, and most rows move by less.
TEST(RowsParity, WrongFormulasAreFound) {
  const auto failed = [](const std::string& folder, auto&& spoil) {
    TestModel model(folder);
    spoil(model.config);
    ClaimsToRound backend(model.backend(1), bf16_error_of_4_layers);
    const SafetensorsFile vectors(folder + "/vectors.safetensors");
    std::vector<std::string> names;
    for (const app::VerifyCheck& check : app::verify(backend, vectors, {}))
      if (!check.passed) names.push_back(check.what);
    return names;
  };
  const std::string small = data_folder("g1-small"), heads = data_folder("g2-heads");
  EXPECT_FALSE(failed(small, [](Config& c) { c.norm_topk_prob = false; }).empty());
  EXPECT_FALSE(failed(small, [](Config& c) { c.experts_per_token = 1; }).empty());
  EXPECT_FALSE(failed(small, [](Config& c) { c.rms_norm_eps = 1; }).empty());
  EXPECT_FALSE(failed(heads, [](Config& c) { c.norm_topk_prob = false; }).empty());
  EXPECT_FALSE(failed(heads, [](Config& c) { c.experts_per_token = 9; }).empty());
  const std::string& trained = testing::tiny_shakespeare;
  EXPECT_FALSE(failed(trained, [](Config& c) { c.norm_topk_prob = false; }).empty());
  EXPECT_FALSE(failed(trained, [](Config& c) { c.rope.theta = 100; }).empty());
  EXPECT_FALSE(failed(trained, [](Config& c) { c.experts_per_token = 3; }).empty());
}

// Where the tolerance explains another choice, a token that differs is a near tie; what the
// reference chose runs on, so that later rows are judged by the same text.
TEST(ReferenceParity, TokensMayDifferAsFarAsTheToleranceExplains) {
  TestModel model(testing::tiny_shakespeare);
  model.config.rope.theta = 100;  // not what it was trained with
  const auto backend = model.backend(1);
  const SafetensorsFile vectors(testing::tiny_shakespeare + "/vectors.safetensors");
  const auto tokens_at = [&](double tolerance) {
    for (const app::VerifyCheck& check : app::verify(*backend, vectors, {.tolerance = tolerance}))
      if (check.is_tokens()) return check;
    return app::VerifyCheck{};
  };
  const app::VerifyCheck strict = tokens_at(1e-4);
  EXPECT_LT(strict.tokens_equal, strict.tokens);
  EXPECT_FALSE(strict.passed);
  const app::VerifyCheck loose = tokens_at(1);
  EXPECT_EQ(loose.tokens_equal, strict.tokens_equal);
  EXPECT_EQ(loose.tokens_equal + loose.near_ties, loose.tokens);
  EXPECT_TRUE(loose.passed);
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
