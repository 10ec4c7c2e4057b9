#include "app/load_scenario.h"

#include <gmock/gmock.h>

#include <algorithm>

#include "app/event_stream.h"
#include "base/error.h"

namespace qnext::app {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::StartsWith;

json::Value body_of(const std::optional<LoadRequest>& request) {
  return json::parse(request->body, "request");
}

std::string prompt_of(ScenarioSource& source) {
  return body_of(source.begin()->next()).find("prompt")->as_string();
}

TEST(LengthRanges, AreANumberOrTwo) {
  EXPECT_EQ(parse_length_range("7", "--x", 1).most, 7);
  const LengthRange range = parse_length_range("64:256", "--x", 1);
  EXPECT_EQ(range.least, 64);
  EXPECT_EQ(range.most, 256);
  std::mt19937_64 random(1);
  for (int i = 0; i < 1000; ++i) {
    const int64_t drawn = range.draw(random);
    EXPECT_TRUE(drawn >= 64 && drawn <= 256) << drawn;
  }
  for (const char* wrong : {"", "0", "x", "1:", ":1", "5:4", "1:2:3", "-1", "1 "})
    EXPECT_THROW(parse_length_range(wrong, "--x", 1), Error) << wrong;
}

TEST(Scenarios, AreTheSameForOneSeedAndDifferForEachUser) {
  const ScenarioOptions options{.chat = false, .model = "m", .seed = 5};
  ScenarioSource one(options);
  ScenarioSource same(options);
  const std::string first = prompt_of(one);
  EXPECT_EQ(first, prompt_of(same));
  const std::string second = prompt_of(one);
  EXPECT_NE(first, second);
  EXPECT_EQ(second, prompt_of(same));
}

TEST(Scenarios, PromptsShareTheirBeginning) {
  ScenarioSource source({.scenario = Scenario::shared_prefix,
                         .chat = false,
                         .model = "m",
                         .prompt_tokens = {10, 10},
                         .prefix_tokens = 200,
                         .words_per_token = 0.5});
  const std::string first = prompt_of(source);
  const std::string second = prompt_of(source);
  const std::string prefix = first.substr(0, first.find('\n'));
  EXPECT_EQ(std::ranges::count(prefix, ' '), 99);
  EXPECT_THAT(second, StartsWith(prefix + "\n"));
  EXPECT_NE(first, second);
}

TEST(Scenarios, TurnsCarryWhatWasAnswered) {
  ScenarioSource source({.scenario = Scenario::multi_turn,
                         .model = "m",
                         .generate = {8, 8},
                         .turns = 3,
                         .ignore_eos = true});
  const auto conversation = source.begin();
  const json::Value first = body_of(conversation->next());
  EXPECT_EQ(first.find("messages")->as_array().size(), 1u);
  EXPECT_EQ(first.find("max_tokens")->as_integer(), 8);
  EXPECT_TRUE(first.find("ignore_eos")->as_bool());
  EXPECT_TRUE(first.find("stream_options")->find("include_usage")->as_bool());
  conversation->answered("so be it");
  const json::Value second = body_of(conversation->next());
  const json::Array& messages = second.find("messages")->as_array();
  ASSERT_EQ(messages.size(), 3u);
  EXPECT_EQ(messages[0], first.find("messages")->as_array()[0]);
  EXPECT_EQ(messages[1].find("role")->as_string(), "assistant");
  EXPECT_EQ(messages[1].find("content")->as_string(), "so be it");
  conversation->answered("and so on");
  EXPECT_TRUE(conversation->next());
  conversation->answered("to the end");
  EXPECT_FALSE(conversation->next());
}

TEST(EventStreams, ComeInAnyPieces) {
  const std::string body =
      ": a comment\r\ndata: one\r\n\r\ndata:two\ndata: lines\nid: 7\n\nevent: x\n\ndata\n\ndata: "
      "rest";
  const std::vector<std::string> expected = {"one", "two\nlines", ""};
  EXPECT_EQ(EventStream().push(body), expected);
  for (size_t cut = 0; cut <= body.size(); ++cut) {
    EventStream stream;
    std::vector<std::string> events = stream.push(body.substr(0, cut));
    for (std::string& event : stream.push(body.substr(cut))) events.push_back(std::move(event));
    EXPECT_EQ(events, expected) << cut;
  }
  EXPECT_THAT(EventStream().push(""), IsEmpty());
}

}  // namespace
}  // namespace qnext::app
