// qnext perplexity as a user runs it.
#include <cmath>

#include "app/testing/commands.h"

namespace qnext::app {
namespace {

using testing::HasSubstr;

const std::string romeo =
    "ROMEO:\nBut, soft! what light through yonder window breaks?\nIt is the east, and Juliet is "
    "the sun.\nArise, fair sun, and kill the envious moon,\nWho is already sick and pale with "
    "grief,\nThat thou her maid art far more fair than she:\n";

double number(const json::Value& value, const std::string& name) {
  return value.find(name)->as_double();
}

TEST_F(Commands, PerplexityOfAText) {
  write_file(path("text"), romeo);
  const Outcome lines = run({"perplexity", "--text", path("text")});
  EXPECT_EQ(lines.status, 0) << lines.err;
  EXPECT_EQ(lines.err, "");
  for (const char* what : {"perplexity  ", "loss  ", "bits a byte  ", "tokens scored  ", "time  "})
    EXPECT_THAT(lines.out, HasSubstr(what));

  const Outcome outcome = run({"perplexity", "--text", "-", "--json"}, romeo);
  ASSERT_EQ(outcome.status, 0) << outcome.err;
  const json::Value found = json::parse(outcome.out, "output");
  // The model knows its Shakespeare: far better than the 2048 of a guess, and never perfect.
  const double perplexity = number(*found.find("perplexity"), "value");
  EXPECT_GT(perplexity, 1);
  EXPECT_LT(perplexity, 100);
  const double loss = number(*found.find("loss"), "value");
  EXPECT_NEAR(std::log(perplexity), loss, 1e-9);
  const double scored = number(found, "scored_tokens");
  EXPECT_EQ(scored + 1, number(found, "tokens"));
  EXPECT_EQ(number(found, "bytes"), static_cast<double>(romeo.size()));
  // All but the first token, "RO" or longer.
  EXPECT_NEAR(number(found, "bits_per_byte"),
              loss * scored / std::log(2) / static_cast<double>(romeo.size() - 2), 0.05 * loss);
  EXPECT_THAT(found.find("device")->as_string(), HasSubstr("cpu"));
}

TEST_F(Commands, PerplexityIsTheSameWhateverTheChunkAndTheThreads) {
  write_file(path("text"), romeo);
  const auto loss = [&](std::vector<std::string> more) {
    std::vector<std::string> arguments = {"perplexity", "--text", path("text"), "--context",
                                          "40",         "--json", "--stride",   "11"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const Outcome outcome = run(arguments);
    EXPECT_EQ(outcome.status, 0) << outcome.err;
    return number(*json::parse(outcome.out, "output").find("loss"), "value");
  };
  const double whole = loss({});
  EXPECT_EQ(loss({"--prefill-chunk", "7"}), whole);
  EXPECT_EQ(loss({"--threads", "1"}), whole);
}

TEST_F(Commands, PerplexityAgainstAReference) {
  write_file(path("text"), romeo);
  const auto compare = [&](std::vector<std::string> more) {
    std::vector<std::string> arguments = {"perplexity", "--text",      path("text"),
                                          "--json",     "--reference", bundled};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const Outcome outcome = run(arguments);
    EXPECT_EQ(outcome.status, 0) << outcome.err;
    return json::parse(outcome.out, "output");
  };
  const json::Value same = compare({});
  EXPECT_EQ(number(*same.find("kl_divergence"), "value"), 0);
  EXPECT_EQ(number(*same.find("kl_divergence"), "largest"), 0);
  EXPECT_EQ(number(*same.find("same_top_token"), "value"), 1);
  EXPECT_EQ(number(*same.find("perplexity_ratio"), "value"), 1);

  const json::Value four = compare({"--quantize", "q4_0"});
  const json::Value eight = compare({"--quantize", "q8_0"});
  EXPECT_GT(number(*eight.find("kl_divergence"), "value"), 0);
  EXPECT_GT(number(*four.find("kl_divergence"), "value"),
            10 * number(*eight.find("kl_divergence"), "value"));
  // The reference stays as stored.
  EXPECT_EQ(number(*four.find("reference")->find("loss"), "value"),
            number(*same.find("loss"), "value"));
}

TEST_F(Commands, PerplexitySaysWhatCannotBe) {
  write_file(path("empty"), "");
  expect_error(run({"perplexity", "--text", path("empty")}), "is empty");
  write_file(path("one"), "the");
  expect_error(run({"perplexity", "--text", path("one")}), "1 token;");
  expect_error(run({"perplexity", "--text", path("none")}), "none");
  write_file(path("broken"), "\xff\xfe broken");
  expect_error(run({"perplexity", "--text", path("broken")}), "UTF-8");
  write_file(path("text"), romeo);
  expect_error(run({"perplexity", "--text", path("text"), "--context", "5000"}), "made for 4096");
  expect_error(run({"perplexity", "--text", path("text"), "--context", "32", "--stride", "32"}),
               "a stride of 32");
  expect_error(run({"perplexity"}), "--text", 2);
}

TEST_F(Commands, PerplexityComparesOnlyModelsOfOneTokenizer) {
  write_file(path("text"), romeo);
  const std::string other = copy_model();
  // Without its merges the same text has other tokens.
  const std::string file = other + "/tokenizer.json";
  json::Value tokenizer = json::parse_file(file);
  json::Object model = tokenizer.find("model")->as_object();
  model.set("merges", json::Array());
  tokenizer.as_object().set("model", std::move(model));
  write_file(file, json::write(tokenizer));
  expect_error(run({"perplexity", "--text", path("text"), "--reference", other}),
               "different tokens");
}

}  // namespace
}  // namespace qnext::app
