// The commands as a user runs them: exit status, what goes to which stream, one-line errors.
#include <fstream>

#include "app/testing/commands.h"
#include "checkpoint/checkpoint.h"

namespace qnext::app {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using testing::MatchesRegex;
using testing::StartsWith;

const std::vector<std::string> command_names = {"generate",   "chat",    "serve",    "tokenize",
                                                "render",     "inspect", "verify",   "bench",
                                                "perplexity", "synth",   "quantize", "loadtest"};

TEST_F(Commands, HelpIsThereForAllWithExamples) {
  const Outcome all = run({"--help"});
  EXPECT_EQ(all.status, 0);
  EXPECT_EQ(all.err, "");
  for (const std::string& name : command_names) {
    EXPECT_THAT(all.out, HasSubstr("  " + name + " "));
    const Outcome one = run({name, "--help"});
    EXPECT_EQ(one.status, 0) << name;
    EXPECT_EQ(one.err, "") << name;
    EXPECT_THAT(one.out, HasSubstr("Usage: qnext " + name));
    EXPECT_THAT(one.out, HasSubstr("Examples:\n  "));
  }
  EXPECT_EQ(run({}).out, all.out);
  EXPECT_THAT(run({"--version"}).out, MatchesRegex("qnext [0-9]+\\.[0-9]+\\.[0-9]+\n"));
}

TEST_F(Commands, SlipsOnTheCommandLineGetASuggestion) {
  expect_error(run({"genrate", "ROMEO:"}), "did you mean generate?", 2);
  expect_error(run({"generate", "x", "--max-token", "5"}), "did you mean --max-tokens?", 2);
  expect_error(run({"generate", "x", "--max-token=5"}), "no option --max-token", 2);
  expect_error(run({"train"}), "qnext --help", 2);
  expect_error(run({"generate", "two", "words"}), "quotes", 2);
  expect_error(run({"generate"}), "qnext generate --help", 2);
  expect_error(run({"generate", "x", "--temperature", "warm"}), "--temperature", 2);
  expect_error(run({"generate", "x", "--quantize", "q5"}), "q8_0", 2);
  expect_error(run({"generate", "x", "--threads", "0"}), "--threads", 2);
}

TEST_F(Commands, GenerateHoldsToAForm) {
  const std::string schema = R"({"type": "object", "properties": {"who": {"enum": ["Romeo",
      "Juliet"]}, "age": {"type": "integer", "minimum": 10, "maximum": 19}}, "required": ["who",
      "age"], "additionalProperties": false})";
  write_file(path("schema.json"), schema);
  for (const std::string& given : {schema, path("schema.json")}) {
    const Outcome outcome = run({"generate", "ROMEO:", "--json-schema", given, "--temperature",
                                 "1.5", "--seed", "3", "--max-tokens", "200"});
    ASSERT_EQ(outcome.status, 0) << outcome.err;
    const json::Value answer = json::parse(outcome.out, "answer");
    EXPECT_EQ(answer.as_object().size(), 2u);
    EXPECT_THAT(answer.find("who")->as_string(), ::testing::AnyOf("Romeo", "Juliet"));
    EXPECT_EQ(answer.find("age")->as_integer() / 10, 1);
  }
  const Outcome matched = run({"generate", "ROMEO:", "--regex", "[A-Z]{3}-(one|two)", "--speculate",
                               "2", "--max-tokens", "50"});
  EXPECT_EQ(matched.status, 0) << matched.err;
  EXPECT_THAT(matched.out, MatchesRegex("[A-Z][A-Z][A-Z]-(one|two)"));
  const auto refused = [&](const std::string& option, const std::string& value,
                           const std::string& error) {
    expect_error(run({"generate", "ROMEO:", option, value}), error);
  };
  refused("--json-schema", R"({"not": {}})", "--json-schema#: not cannot be enforced");
  refused("--json-schema", "{", "--json-schema");
  refused("--json-schema", path("absent"), "absent");
  refused("--regex", "(", "--regex");
  expect_error(run({"generate", "ROMEO:", "--regex", "a", "--ignore-eos"}), "--ignore-eos");
  expect_error(run({"generate", "ROMEO:", "--regex", "a", "--json-schema", "{}"}), "--regex", 2);
}

TEST_F(Commands, GenerateContinuesAsTheReferenceDoes) {
  const json::Value expected = json::parse_file(bundled + "/expected.json");
  const json::Value& first = expected.as_array().front();
  const std::string prompt = first.find("prompt")->as_string();
  const std::string text = first.find("greedy_text")->as_string();
  const std::vector<std::string> greedy = {"generate", prompt,         "--temperature",
                                           "0",        "--max-tokens", "64"};
  const Outcome plain = run(greedy);
  EXPECT_EQ(plain.status, 0) << plain.err;
  EXPECT_EQ(prompt + plain.out, text);
  EXPECT_THAT(plain.err, HasSubstr("answer 64 tokens"));
  EXPECT_EQ(std::ranges::count(plain.err, '\n'), 1);

  auto with = [&](std::vector<std::string> more) {
    std::vector<std::string> arguments = greedy;
    arguments.insert(arguments.end(), more.begin(), more.end());
    return run(arguments);
  };
  EXPECT_EQ(with({"--echo"}).out, text);
  for (const std::vector<std::string>& how :
       {std::vector<std::string>{"--speculate", "2"}, {"--speculate", "2", "--speculate-fixed"}}) {
    const Outcome speculative = with(how);
    EXPECT_EQ(speculative.out, plain.out);
    EXPECT_THAT(speculative.err, HasSubstr("tokens/step"));
  }
  EXPECT_EQ(with({"--stop", "rapier"}).out, plain.out.substr(0, plain.out.find("rapier")));
}

TEST_F(Commands, GenerateRepeatsItselfWithASeedWhateverTheThreads) {
  const auto sampled = [&](const std::string& threads) {
    return run({"generate", "ROMEO:", "--seed", "7", "--max-tokens", "24", "--threads", threads});
  };
  const Outcome one = sampled("1");
  EXPECT_EQ(one.status, 0) << one.err;
  EXPECT_THAT(one.err, HasSubstr("seed 7"));
  EXPECT_EQ(sampled("2").out, one.out);
  // Without --seed, the one that statistics name repeats the text.
  const Outcome random = run({"generate", "ROMEO:", "--max-tokens", "24"});
  const std::string seed = random.err.substr(random.err.find("seed ") + 5);
  EXPECT_EQ(
      run({"generate", "ROMEO:", "--max-tokens", "24", "--seed", seed.substr(0, seed.find('\n'))})
          .out,
      random.out);
}

TEST_F(Commands, GenerateWritesJson) {
  const Outcome outcome =
      run({"generate", "-", "--json", "--temperature", "0", "--max-tokens", "5", "--logprobs", "2"},
          "ROMEO:");
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  const json::Value value = json::parse(outcome.out, "output");
  EXPECT_EQ(value.find("tokens")->as_array().size(), 5u);
  EXPECT_EQ(value.find("finish_reason")->as_string(), "length");
  const json::Array& logprobs = value.find("logprobs")->as_array();
  ASSERT_EQ(logprobs.size(), 5u);
  EXPECT_EQ(logprobs[0].find("top")->as_array().size(), 2u);
  // Greedy: the chosen token is the most probable one.
  EXPECT_EQ(*logprobs[0].find("token"), *logprobs[0].find("top")->as_array()[0].find("token"));
}

TEST_F(Commands, BadPromptsAndRequestsGetOneLine) {
  expect_error(run({"generate", "-"}, "a\xff"), "offset 1");
  expect_error(run({"generate", ""}), "prompt is empty");
  expect_error(run({"generate", "x", "--context", "1000000"}), "4096");
  expect_error(run({"generate", "ROMEO: ROMEO: ROMEO:", "--context", "4"}), "context");
  expect_error(run({"generate", "x", "--temperature", "-1"}), "temperature");
  expect_error(run({"generate", "x", "--logit-bias", "x=1"}), "--logit-bias");
  expect_error(run({"generate", "x", "--logit-bias", "999999=1"}), "999999");
  expect_error(run({"generate", "x", "--model", path("none")}), "there is no ");
}

TEST_F(Commands, DamagedModelsGetOneLine) {
  const auto generate = [&](const std::string& model) {
    return run({"generate", "ROMEO:", "--max-tokens", "1", "--model", model});
  };
  const std::string model = copy_model();
  const std::string weights = model + "/model.safetensors";

  change_config(model, "model_type", "llama");
  expect_error(generate(model), "model_type");
  change_config(model, "model_type", "qwen3_next");
  change_config(model, "num_experts", 17);
  {
    const Outcome outcome = generate(model);  // the name, what was expected, what was found
    expect_error(outcome, "mlp.gate.weight");
    EXPECT_THAT(outcome.err, HasSubstr("17"));
    EXPECT_THAT(outcome.err, HasSubstr("16"));
  }
  change_config(model, "num_experts", 16);

  const std::string tokenizer = read_file(model + "/tokenizer.json");
  json::Value holes = json::parse(tokenizer, "tokenizer.json");
  json::Object vocabulary;
  for (const auto& [token, id] : holes.find("model")->find("vocab")->as_object()) {
    if (id.as_integer() != 300) vocabulary.set(token, id);
  }
  json::Value bpe = *holes.find("model");
  bpe.as_object().set("vocab", std::move(vocabulary));
  holes.as_object().set("model", std::move(bpe));
  write_file(model + "/tokenizer.json", json::write(holes));
  expect_error(generate(model), "300");
  write_file(model + "/tokenizer.json", tokenizer);

  const std::string bytes = read_file(weights);
  const size_t offset = Checkpoint(model).get("model.layers.0.mlp.gate.weight").offset;
  std::string damaged = bytes;
  damaged.replace(offset + 10, 2, "\xff\xff");  // NaN in bf16
  write_file(weights, damaged);
  expect_error(generate(model), "model.layers.0.mlp.gate.weight");
  write_file(weights, bytes.substr(0, bytes.size() / 2));
  expect_error(generate(model), "model.safetensors");
  write_file(weights, bytes.substr(0, 4));
  expect_error(generate(model), "model.safetensors");
  write_file(weights, "\xff\xff\xff\xff\xff\xff\xff\x7f" + bytes.substr(8));
  expect_error(generate(model), "model.safetensors");

  fs::remove(weights);
  write_file(model + "/model.safetensors.index.json",
             R"({"weight_map": {"model.norm.weight": "model-00001-of-00002.safetensors"}})");
  expect_error(generate(model), "model-00001-of-00002.safetensors");
  fs::remove(model + "/config.json");
  expect_error(generate(model), "config.json");
}

TEST_F(Commands, TokenizeThereAndBack) {
  EXPECT_EQ(run({"tokenize", "To be"}).out, "405 308\n");
  EXPECT_EQ(run({"tokenize"}, "To be").out, "405 308\n");
  EXPECT_EQ(run({"tokenize", "--decode", "405 308"}).out, "To be");
  EXPECT_EQ(run({"tokenize", "--json"}, "\"To be\"\n\"\"\n\"To\\nbe\"").out,
            "[405, 308]\n[]\n" + run({"tokenize", "--json"}, "\"To\\nbe\"\n").out);
  EXPECT_EQ(run({"tokenize", "--json", "--decode"}, "[405, 308]\n").out, "\"To be\"\n");
  const Outcome wrong = run({"tokenize", "--json"}, "\"To be\"\n5\n");
  EXPECT_EQ(wrong.status, 1);
  EXPECT_EQ(wrong.out, "[405, 308]\n");
  EXPECT_THAT(wrong.err, HasSubstr("line 2"));
  expect_error(run({"tokenize", "--decode", "40x"}), "40x");
  expect_error(run({"tokenize", "\xff"}), "UTF-8");
}

TEST_F(Commands, RenderWritesTheTextExactly) {
  write_file(path("chat.jinja"),
             "{% for m in messages %}[{{ m.role }}] {{ m.content }};{% endfor %}");
  const std::string variables = R"({"messages": [{"role": "user", "content": "Hi"}]})";
  EXPECT_EQ(run({"render", "--template", path("chat.jinja")}, variables).out, "[user] Hi;");
  expect_error(run({"render", "--template", path("chat.jinja")}, "[1]"), "JSON object");
  expect_error(run({"render", "--template", path("none.jinja")}, variables), "none.jinja");
  expect_error(run({"render"}, variables), "--template");
  write_file(path("endless.jinja"),
             "{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}"
             "{% endfor %}{% endfor %}{% endfor %}");
  expect_error(run({"render", "--template", path("endless.jinja")}, "{}"), "template");
  write_file(path("wrong.jinja"), "\n{% if %}");
  expect_error(run({"render", "--template", path("wrong.jinja")}, "{}"), "line 2");
}

TEST_F(Commands, InspectCountsWhatIsThere) {
  const Outcome text = run({"inspect"});
  EXPECT_EQ(text.status, 0) << text.err;
  EXPECT_THAT(text.out, HasSubstr("2 times (3 Gated DeltaNet, 1 attention)"));
  const json::Value value = json::parse(run({"inspect", "--json", "--tensors"}).out, "output");
  int64_t bytes = 0;
  for (const json::Value& tensor : value.find("tensors")->as_array())
    bytes += tensor.find("bytes")->as_integer();
  EXPECT_EQ(value.find("total")->find("bytes")->as_integer(), bytes);
  const auto memory = [&](const char* field, std::vector<std::string> more) {
    more.insert(more.begin(), {"inspect", "--json"});
    return json::parse(run(more).out, "output").find("memory")->find(field)->as_integer();
  };
  EXPECT_EQ(memory("kv_bytes", {"--context", "2048"}) * 2,
            memory("kv_bytes", {"--context", "4096"}));
  EXPECT_EQ(memory("kv_bytes", {"--kv-type", "bf16"}) * 2, memory("kv_bytes", {}));
  EXPECT_EQ(memory("kv_bytes", {"--kv", "q8_0"}) * 128, memory("kv_bytes", {}) * 34);
  EXPECT_LT(memory("weights_bytes", {"--quantize", "q4_0"}),
            memory("weights_bytes", {"--quantize", "q8_0"}));
  // Rows that are no whole blocks of 256 become q8_0.
  EXPECT_LT(memory("weights_bytes", {"--quantize", "q4_k"}),
            memory("weights_bytes", {"--quantize", "q8_0"}));
  EXPECT_EQ(run({"generate", "a", "--max-tokens", "2", "--quantize", "q5_k"}).status, 0);
}

TEST_F(Commands, SynthWritesWhatBenchAndInspectRead) {
  const std::string folder = path("synth");
  const std::vector<std::string> sizes = {"synth",
                                          folder,
                                          "--layers",
                                          "4",
                                          "--hidden-size",
                                          "64",
                                          "--experts",
                                          "4",
                                          "--experts-per-token",
                                          "2",
                                          "--vocabulary-size",
                                          "96"};
  Outcome outcome = run(sizes);
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  expect_error(run(sizes), "--force");
  std::vector<std::string> forced = sizes;
  forced.push_back("--force");
  EXPECT_EQ(run(forced).status, 0);
  EXPECT_EQ(run({"inspect", "--model", folder}).status, 0);
  outcome = run(
      {"bench", "--model", folder, "--prompt", "16", "--generate", "4", "--repeat", "2", "--json"});
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  const json::Value all = json::parse(outcome.out, "output");
  ASSERT_EQ(all.find("measurements")->as_array().size(), 1u);
  json::Value report = all.find("measurements")->as_array()[0];
  EXPECT_GT(report.find("decode_tokens_per_second")->as_double(), 0);
  EXPECT_GT(report.find("read_bandwidth_bytes_per_second")->as_double(), 1e8);
  EXPECT_EQ(report.find("repeats")->as_array().size(), 2u);
  expect_error(run({"generate", "x", "--model", folder}), "tokenizer.json");
  expect_error(run({"synth", path("other"), "--preset", "unknown"}), "qwen3-next-80b-a3b", 2);
}

TEST_F(Commands, BenchMeasuresEveryBatchAtEveryContext) {
  const Outcome outcome = run({"bench", "--prompt", "40", "--batch", "1,3", "--context", "20,30",
                               "--generate", "4", "--repeat", "1"});
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_THAT(outcome.out, HasSubstr("\nprefill      1        40"));
  for (const char* line :
       {"     1        20", "     3        20", "     1        30", "     3        30"})
    EXPECT_THAT(outcome.out, HasSubstr(std::string("\ndecode  ") + line));
  EXPECT_THAT(run({"bench", "--prompt", "8", "--generate", "1", "--repeat", "1", "--profile"}).out,
              HasSubstr("experts"));
  expect_error(run({"bench", "--batch", "1,0"}), "--batch", 2);
  expect_error(run({"bench", "--preset", "qwen3-next-80b-a3b"}), "--weights", 2);
  expect_error(run({"bench", "--speculate", "1", "--force-acceptance", "2"}), "--speculate 2");
}

TEST_F(Commands, WhatOnlyGpusDoGetsOneLineOnTheCpu) {
  expect_error(run({"bench", "--weights", "random", "--layers", "4"}), "qnext synth");
  expect_error(run({"bench", "--quantize", "f8"}), "q4_k or q4_0");
  expect_error(run({"generate", "x", "--kv", "f8"}), "--kv f8");
  expect_error(run({"generate", "x", "--state", "bf16"}), "--state");
  expect_error(
      run({"verify", bundled, bundled + "/vectors.safetensors", "--backend-path", "graph"}),
      "--backend-path");
  expect_error(run({"inspect", "--quantize", "f8"}), "--quantize f8");
}

TEST_F(Commands, ChatAnswersLinesOfAFile) {
  const Outcome outcome =
      run({"chat", "--temperature", "0", "--max-tokens", "8"}, "ROMEO:\n/stats\n/nonsense\n");
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_FALSE(outcome.out.empty());
  EXPECT_EQ(outcome.out.back(), '\n');
  EXPECT_THAT(outcome.err, HasSubstr("answer 8 tokens"));
  EXPECT_THAT(outcome.err, HasSubstr("there is no /nonsense"));
  EXPECT_EQ(outcome.out,
            run({"generate", "ROMEO:\n", "--temperature", "0", "--max-tokens", "8"}).out + "\n");
  EXPECT_EQ(run({"chat"}, "a\xff\n").status, 1);
}

TEST_F(Commands, ChatComputesWhatIsNew) {
  const std::string lines = "ROMEO:\nJULIET:\nROMEO:\n/stats\n";
  const std::vector<std::string> chat = {"chat", "--temperature", "0", "--max-tokens", "150"};
  const Outcome cached = run(chat, lines);
  EXPECT_THAT(cached.err, HasSubstr(" cached)"));
  std::vector<std::string> without = chat;
  without.insert(without.end(), {"--cache-memory", "0"});
  const Outcome afresh = run(without, lines);
  EXPECT_THAT(afresh.err, Not(HasSubstr("cached")));
  EXPECT_EQ(cached.out, afresh.out);
}

TEST_F(Commands, ChatRemembersAfterARestart) {
  const std::vector<std::string> chat = {"chat", "--temperature", "0",          "--max-tokens",
                                         "150",  "--cache-dir",   path("cache")};
  std::string lines;
  for (int i = 0; i < 30; ++i) lines += "To be, or not to be: ";
  lines += "\n/stats\n";
  const Outcome first = run(chat, lines);
  const Outcome again = run(chat, lines);
  EXPECT_EQ(again.out, first.out);
  EXPECT_THAT(first.err, Not(HasSubstr("cached")));
  EXPECT_THAT(again.err, HasSubstr(" cached)"));
  expect_error(run({"chat", "--cache-dir", "/dev/null/x"}, "a\n"), "/dev/null/x");
}

TEST_F(Commands, AClosedPipeIsNoError) {
  const std::string command = std::string("'") + QNEXT_PROGRAM + "' tokenize --json 2>'" +
                              path("err") + "' < '" + path("lines") + "' | head -n 1 > /dev/null";
  std::string lines;
  for (int i = 0; i < 100000; ++i) lines += "\"To be, or not to be\"\n";
  write_file(path("lines"), lines);
  EXPECT_EQ(std::system(command.c_str()), 0);
  EXPECT_EQ(read_file(path("err")), "");
}

TEST_F(Commands, AFullDiskIsAnError) {
  const std::string command =
      std::string("'") + QNEXT_PROGRAM + "' tokenize hello > /dev/full 2>'" + path("err") + "'";
  EXPECT_EQ(WEXITSTATUS(std::system(command.c_str())), 1);
  EXPECT_THAT(read_file(path("err")), StartsWith("qnext: cannot write to standard output"));
}

}  // namespace
}  // namespace qnext::app
