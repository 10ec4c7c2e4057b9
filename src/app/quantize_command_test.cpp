// qnext quantize: what it writes runs, says what the source says, and is the published layout.
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "app/testing/commands.h"
#include "checkpoint/gguf.h"

namespace qnext::app {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

class QuantizeCommand : public Commands {
 protected:
  Outcome quantize(std::vector<std::string> more) const {
    more.insert(more.begin(), "quantize");
    return run(std::move(more));
  }
  std::string generate(const std::string& model, std::vector<std::string> more = {}) const {
    std::vector<std::string> arguments{"generate", "ROMEO:", "--max-tokens", "24"};
    if (!model.empty()) arguments.insert(arguments.end(), {"--model", model});
    arguments.insert(arguments.end(), more.begin(), more.end());
    const Outcome outcome = run(arguments);
    EXPECT_EQ(outcome.status, 0) << outcome.err;
    return outcome.out;
  }
  std::vector<std::string> gguf_files() const {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(path("")))
      if (entry.path().string().find(".gguf") != std::string::npos)
        names.push_back(entry.path().filename());
    return names;
  }
};

TEST_F(QuantizeCommand, FloatFilesSayWhatTheFolderSays) {
  for (const char* type : {"f32", "bf16"}) {  // the bundled model is bf16: nothing is lost
    const std::string file = path(std::string(type) + ".gguf");
    const Outcome written = quantize({bundled, file, "--type", type});
    EXPECT_EQ(written.status, 0) << written.err;
    EXPECT_EQ(written.err, "");
    const Outcome verified = run({"verify", file, bundled + "/vectors.safetensors"});
    EXPECT_EQ(verified.status, 0) << verified.out << verified.err;
    for (const auto& options :
         std::vector<std::vector<std::string>>{{"--temperature", "0"},
                                               {"--seed", "5"},  // with the model's own sampling
                                               {"--temperature", "0", "--speculate", "2"}})
      EXPECT_EQ(generate(file, options), generate("", options)) << type;
    EXPECT_EQ(run({"tokenize", "To be", "--model", file}).out, "405 308\n");
  }
  const json::Value sizes = json::parse(run({"inspect", "--json"}).out, "output");
  const json::Value found =
      json::parse(run({"inspect", "--json", "--model", path("f32.gguf")}).out, "output");
  EXPECT_EQ(*found.find("config"), *sizes.find("config"));
}

TEST_F(QuantizeCommand, EveryTypeRuns) {
  const std::string file = path("x.gguf");
  for (const char* type : {"f16", "q8_0", "q6_k", "q5_k", "q5_1", "q5_0", "q4_k", "q4_1", "q4_0",
                           "iq4_nl", "iq4_xs", "q3_k", "q2_k"}) {
    const Outcome written = quantize({bundled, file, "--type", type, "--force"});
    EXPECT_EQ(written.status, 0) << written.err;
    EXPECT_THAT(written.out,
                AllOf(HasSubstr("experts"), HasSubstr("MTP head"), HasSubstr("total")));
    EXPECT_FALSE(generate(file, {"--temperature", "0"}).empty()) << type;
  }
  // Near: with 8 bits most of the reference's tokens still come next.
  quantize({bundled, file, "--type", "q8_0", "--force"});
  const std::string checks = run({"verify", file, bundled + "/vectors.safetensors"}).out;
  int equal = 0, all = 0;
  for (size_t at = 0; (at = checks.find(".greedy", at)) != std::string::npos; at += 7) {
    int of_this = 0, in_this = 0;
    ASSERT_EQ(std::sscanf(checks.c_str() + at, ".greedy %d/%d", &of_this, &in_this), 2) << checks;
    equal += of_this;
    all += in_this;
  }
  EXPECT_GT(equal, all * 3 / 4) << checks;
  EXPECT_GE(all, 200);
}

TEST_F(QuantizeCommand, AGgufFileIsASourceToo) {
  const std::string first = path("first.gguf"), second = path("second.gguf");
  EXPECT_EQ(quantize({bundled, first, "--type", "f32"}).status, 0);
  EXPECT_EQ(quantize({first, second, "--type", "q8_0"}).status, 0);
  EXPECT_EQ(quantize({bundled, first, "--type", "q8_0", "--force"}).status, 0);
  const GgufFiles expected(first), found(second);
  ASSERT_EQ(found.tensors().size(), expected.tensors().size());
  for (const StoredTensor& tensor : expected.tensors()) {
    if (tensor.name.ends_with("ssm_a")) continue;  // through a logarithm and back
    const StoredTensor& same = *found.find(tensor.name);
    EXPECT_EQ(widened(same), widened(tensor)) << tensor.name;
  }
  EXPECT_EQ(found.metadata().integer("general.file_type"), 7);
  EXPECT_EQ(generate(second, {"--seed", "3"}), generate(first, {"--seed", "3"}));
  // Over itself: the file is replaced when the new one is complete.
  EXPECT_EQ(quantize({second, second, "--type", "q4_1", "--force"}).status, 0);
  EXPECT_FALSE(generate(second).empty());
}

TEST_F(QuantizeCommand, TypesCanBeChosenByName) {
  const std::string file = path("x.gguf");
  const Outcome written = quantize({bundled, file, "--type", "q4_0", "--no-mtp", "--tensor-type",
                                    "*.attn_*=q8_0", "--tensor-type", "blk.3.attn_q.weight=f16"});
  EXPECT_EQ(written.status, 0) << written.err;
  EXPECT_THAT(written.out, Not(HasSubstr("MTP head")));
  const GgufFiles files(file);
  EXPECT_EQ(files.find("blk.0.attn_qkv.weight")->dtype, DType::q8_0);
  EXPECT_EQ(files.find("blk.3.attn_q.weight")->dtype, DType::f16);
  EXPECT_EQ(files.find("blk.0.ffn_up_exps.weight")->dtype, DType::q4_0);
  EXPECT_EQ(files.metadata().find("qwen3next.nextn_predict_layers"), nullptr);
  EXPECT_FALSE(generate(file).empty());
}

// A text that the model wrote itself says which columns matter; on sonnets, which it has not seen,
// less is lost for it.
TEST_F(QuantizeCommand, CalibrationLowersTheDivergence) {
  const Outcome text =
      run({"generate", "ROMEO:", "--seed", "1", "--max-tokens", "1000", "--ignore-eos"});
  ASSERT_EQ(text.status, 0) << text.err;
  write_file(path("calibration.txt"), text.out);
  const std::string file = path("x.gguf");
  const auto divergence = [&](std::vector<std::string> more) {
    more.insert(more.begin(), {bundled, file, "--type", "q4_0", "--force", "--evaluate",
                               QNEXT_SOURCE_DIR "/tests/data/sonnets.txt"});
    const Outcome written = quantize(more);
    EXPECT_EQ(written.status, 0) << written.err;
    EXPECT_THAT(written.out, AllOf(HasSubstr("total"), HasSubstr("\nreference ")));
    constexpr std::string_view name = "\nKL divergence";
    const size_t line = written.out.find(name);
    if (line == std::string::npos) return -1.0;
    return std::strtod(written.out.c_str() + line + name.size(), nullptr);
  };
  const double plain = divergence({});
  const double weighted = divergence({"--calibrate", path("calibration.txt")});
  EXPECT_GT(weighted, 0);
  EXPECT_LT(weighted, 0.97 * plain);
}

TEST_F(QuantizeCommand, SaysInOneLineWhatIsWrong) {
  const std::string file = path("x.gguf");
  expect_error(quantize({path("absent"), file, "--type", "q8_0"}), "there is no ");
  expect_error(quantize({bundled, file, "--type", "q9"}), "q4_k", 2);
  expect_error(quantize({bundled, file}), "--type", 2);
  expect_error(quantize({bundled, file, "--type", "q8_0", "--tensor-type", "x"}), "PATTERN=TYPE");
  expect_error(quantize({bundled, file, "--type", "q8_0", "--tensor-type", "x=q9"}),
               "there is no type \"q9\"");
  expect_error(quantize({bundled, file, "--type", "q8_0", "--tensor-type", "x=q8_0"}),
               "no matrix of the file is called x");
  expect_error(quantize({bundled, path("none/x.gguf"), "--type", "q8_0"}), "No such file");
  expect_error(quantize({bundled, path(""), "--type", "q8_0"}), "is a folder");
  write_file(path("empty.txt"), "");
  for (const char* option : {"--calibrate", "--evaluate"})
    expect_error(quantize({bundled, file, "--type", "q8_0", option, path("empty.txt")}),
                 "is empty");
  EXPECT_TRUE(gguf_files().empty());

  write_file(file, "precious");
  expect_error(quantize({bundled, file, "--type", "q8_0"}), "exists; name another file");
  EXPECT_EQ(read_file(file), "precious");

  const std::string model = copy_model();
  fs::remove(model + "/tokenizer.json");
  EXPECT_EQ(quantize({model, file, "--type", "q8_0", "--force"}).status, 0);
  expect_error(run({"tokenize", "x", "--model", file}), "tokenizer.ggml.model is missing");
}

TEST_F(QuantizeCommand, CtrlCLeavesNothingBehind) {
  // Half a minute of work for one thread.
  EXPECT_EQ(run({"synth", path("big"), "--layers", "4", "--hidden-size", "512", "--experts", "128",
                 "--expert-width", "512", "--vocabulary-size", "1000"})
                .status,
            0);
  const std::string file = path("x.gguf");
  const pid_t child = fork();
  if (child == 0) {
    execl(QNEXT_PROGRAM, QNEXT_PROGRAM, "quantize", path("big").c_str(), file.c_str(), "--type",
          "iq4_xs", "--threads", "1", nullptr);
    _exit(127);
  }
  for (int i = 0; i < 1000 && gguf_files().empty(); ++i) usleep(10000);
  kill(child, SIGINT);
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 130);
  EXPECT_TRUE(gguf_files().empty());
}

}  // namespace
}  // namespace qnext::app
