#include "app/judgement.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <random>

namespace qnext::app {
namespace {

constexpr double tolerance = 0.03;
constexpr int64_t rows = 300;

// What roundings leave: every row well within.
std::vector<double> quiet_errors() {
  std::mt19937 random(7);
  std::uniform_real_distribution<double> error(0.1 * tolerance, 0.5 * tolerance);
  std::vector<double> out(rows);
  for (double& value : out) value = error(random);
  return out;
}

// Two of four experts a row; `flipped` rows have a gap of 1/100 between the second and the third,
// and the backend has them the other way round.
struct Routers {
  explicit Routers(const std::vector<int>& flipped, float gap = 0.01f) {
    for (int row = 0; row < rows; ++row) {
      const bool flips = std::ranges::count(flipped, row) > 0;
      const float third = flips ? 0.5f - gap : -0.5f;
      expected.insert(expected.end(), {1.0f, 0.5f, third, -1.0f});
      found.insert(found.end(), {1.0f, flips ? third : 0.5f, flips ? 0.5f : third, -1.0f});
    }
  }
  DivertedRows experts() const {
    DivertedRows out(rows);
    out.pass(found, expected, 2, tolerance);
    return out;
  }
  std::vector<float> expected, found;
};

TEST(JudgeRows, RoundingsPass) {
  const RowJudgement judged = judge_rows(quiet_errors(), DivertedRows(rows), 1, tolerance);
  EXPECT_TRUE(judged.passed);
  EXPECT_EQ(judged.beyond, 0);
  EXPECT_EQ(judged.judged, rows);
  EXPECT_EQ(judged.diverted(), 0);
}

TEST(JudgeRows, AFlippedRowPassesOnlyWhereItsExpertsExplainIt) {
  std::vector<double> errors = quiet_errors();
  errors[41] = errors[200] = 0.9;
  EXPECT_TRUE(judge_rows(errors, Routers({41, 200}).experts(), 1, tolerance).passed);
  // The same errors in rows that met the reference's experts.
  EXPECT_FALSE(judge_rows(errors, Routers({}).experts(), 1, tolerance).passed);
  EXPECT_FALSE(judge_rows(errors, Routers({42, 201}).experts(), 1, tolerance).passed);
  // Other experts that no rounding explains.
  EXPECT_FALSE(judge_rows(errors, Routers({41, 200}, 0.2f).experts(), 1, tolerance).passed);
  const RowJudgement judged = judge_rows(errors, Routers({41, 200}).experts(), 1, tolerance);
  EXPECT_EQ(judged.beyond, 2);
  EXPECT_EQ(judged.judged_beyond, 0);
  EXPECT_EQ(judged.diverted(), 2);
}

TEST(JudgeRows, ANarrowGapThatWasNotTakenExcusesNothing) {
  Routers routers({41, 200});
  routers.found = routers.expected;
  EXPECT_FALSE(routers.experts().diverted(41));
}

TEST(JudgeRows, AWrongFormulaIsFound) {
  std::vector<double> errors = quiet_errors();
  for (double& error : errors) error += 1.1 * tolerance;
  EXPECT_FALSE(judge_rows(errors, DivertedRows(rows), 4, tolerance).passed);
  DivertedRows unknown(rows);
  unknown.pass_unknown();
  EXPECT_FALSE(judge_rows(errors, unknown, 4, tolerance).passed);
}

// A fault in one row of 64, say at the edge of a block.
TEST(JudgeRows, WrongRowsInPlacesAreFound) {
  std::vector<double> errors = quiet_errors();
  for (size_t row = 63; row < errors.size(); row += 64) errors[row] = 0.5;
  EXPECT_FALSE(judge_rows(errors, DivertedRows(rows), 1, tolerance).passed);
}

TEST(JudgeRows, MagnifiedRowsPassWhileTheyAreFewAndFewerFurtherOut) {
  std::vector<double> errors = quiet_errors();
  for (size_t row = 0; row < 12; ++row) errors[row * 20] = 1.5 * tolerance;
  errors[7] = 5 * tolerance;
  EXPECT_TRUE(judge_rows(errors, DivertedRows(rows), 1, tolerance).passed);
  for (size_t row = 0; row < 12; ++row) errors[row * 20] = 5 * tolerance;
  EXPECT_FALSE(judge_rows(errors, DivertedRows(rows), 1, tolerance).passed);
}

TEST(JudgeRows, WhatIsNoNumberFailsEvenWhereExpertsDiffer) {
  for (const double bad : {std::numeric_limits<double>::quiet_NaN(), 2.5}) {
    std::vector<double> errors = quiet_errors();
    errors[41] = bad;
    EXPECT_FALSE(judge_rows(errors, Routers({41}).experts(), 4, tolerance).passed) << bad;
  }
}

TEST(JudgeRows, TheFirstLayersMustHaveRowsToJudge) {
  std::vector<int> every(rows);
  for (int row = 0; row < rows; ++row) every[static_cast<size_t>(row)] = row;
  const DivertedRows experts = Routers(every).experts();
  EXPECT_FALSE(judge_rows(quiet_errors(), experts, 1, tolerance).passed);
  const RowJudgement later = judge_rows(quiet_errors(), experts, 2, tolerance);
  EXPECT_TRUE(later.passed);
  EXPECT_EQ(later.diverted(), rows);
}

TEST(DivertedRows, StayDivertedAndTiesGoToTheLowerExpert) {
  DivertedRows experts = Routers({5}).experts();
  const Routers quiet({});
  experts.pass(quiet.found, quiet.expected, 2, tolerance);
  EXPECT_TRUE(experts.diverted(5));
  EXPECT_FALSE(experts.diverted(6));
  DivertedRows one(1);
  const std::vector<float> found{1, 0, 0}, expected{1, 0, -1e-3f};
  one.pass(found, expected, 2, tolerance);
  EXPECT_FALSE(one.diverted(0));
}

TEST(JudgeRows, TolerancesGrowLikeTheRootOfTheLayers) {
  EXPECT_DOUBLE_EQ(tolerance_after(12, 48, 0.1), 0.05);
  EXPECT_DOUBLE_EQ(tolerance_after(48, 48, 0.1), 0.1);
}

}  // namespace
}  // namespace qnext::app
