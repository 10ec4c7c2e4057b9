#include "app/load_report.h"

#include <gmock/gmock.h>

#include "base/json.h"

namespace qnext::app {
namespace {

using testing::HasSubstr;

TEST(LoadReport, PercentilesAreNearestRanks) {
  std::vector<double> values;
  for (int i = 100; i >= 1; --i) values.push_back(i);
  const Distribution hundred = distribution(values);
  EXPECT_EQ(hundred.count, 100u);
  EXPECT_EQ(hundred.mean, 50.5);
  EXPECT_EQ(hundred.p50, 50);
  EXPECT_EQ(hundred.p90, 90);
  EXPECT_EQ(hundred.p99, 99);
  EXPECT_EQ(hundred.most, 100);
  const Distribution one = distribution({3});
  EXPECT_EQ(one.p50, 3);
  EXPECT_EQ(one.p99, 3);
  const Distribution two = distribution({2, 1});
  EXPECT_EQ(two.p50, 1);
  EXPECT_EQ(two.p90, 2);
  EXPECT_EQ(distribution({}).count, 0u);
  EXPECT_EQ(distribution({}).p99, 0);
}

LoadRecord finished(double begin, double first, double last, int64_t tokens) {
  LoadRecord record;
  record.end = RequestEnd::finished;
  record.begin = begin;
  record.first_piece = first;
  record.last_piece = last;
  record.finish = last;
  record.prompt_tokens = 10;
  record.cached_tokens = 4;
  record.completion_tokens = tokens;
  record.gaps = {static_cast<float>(last - first)};
  return record;
}

TEST(LoadReport, SaysWhatCameOfTheRequests) {
  LoadRun run;
  run.seconds = 10;
  run.records.push_back(finished(1, 2, 4, 5));
  run.records.push_back(finished(2, 2.5, 6.5, 9));
  LoadRecord cut = finished(0, 1, 2, 3);
  cut.end = RequestEnd::cut;
  run.records.push_back(cut);
  for (const char* error : {"HTTP 429", "HTTP 429", "connecting: timeout"}) {
    LoadRecord failed;
    failed.error = error;
    run.records.push_back(failed);
  }
  const LoadSummary summary = summarize(run);
  EXPECT_EQ(summary.finished, 2);
  EXPECT_EQ(summary.cut, 1);
  EXPECT_EQ(summary.failed, 3);
  EXPECT_EQ(summary.errors.at("HTTP 429"), 2);
  EXPECT_EQ(summary.completion_tokens, 17);
  EXPECT_EQ(summary.tokens_per_second(), 1.7);
  EXPECT_EQ(summary.requests_per_second(), 0.2);
  EXPECT_EQ(summary.cached_share(), 0.4);
  EXPECT_EQ(summary.first_token.p50, 0.5);
  EXPECT_EQ(summary.first_token.most, 1);
  EXPECT_EQ(summary.token.p50, 0.5);
  EXPECT_EQ(summary.token.count, 2u);
  EXPECT_EQ(summary.gap.most, 4);
  EXPECT_EQ(summary.whole.p99, 4.5);

  const std::string text = load_text(summary);
  EXPECT_THAT(text, HasSubstr("6 in 10.0 s: 2 finished, 1 cut off, 3 failed"));
  EXPECT_THAT(text, HasSubstr("2  HTTP 429"));
  EXPECT_THAT(text, HasSubstr("20 tokens, of which 40.0 % were cached"));
  const json::Value value = json::parse(load_json(summary), "report");
  EXPECT_EQ(value.find("errors")->find("connecting: timeout")->as_integer(), 1);
  EXPECT_EQ(value.find("request_seconds")->find("p90")->as_double(), 4.5);
}

TEST(LoadReport, NothingAtAllIsNoNumberByZero) {
  const LoadSummary summary = summarize({});
  EXPECT_EQ(summary.tokens_per_second(), 0);
  EXPECT_EQ(summary.cached_share(), 0);
  EXPECT_THAT(load_text(summary), HasSubstr("0 in 0 ms"));
}

}  // namespace
}  // namespace qnext::app
