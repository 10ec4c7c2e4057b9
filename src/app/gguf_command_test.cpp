// Every command on a GGUF file: the bundled model, converted, says what it says from its folder.
#include "app/testing/commands.h"
#include "checkpoint/testing/gguf_tokenizer.h"
#include "model/testing/gguf_conversion.h"

namespace qnext::app {
namespace {

using qnext::testing::FloatTensors;
using qnext::testing::GgufConversion;
using qnext::testing::GgufTokenizer;
using qnext::testing::GgufWriter;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

class GgufCommands : public Commands {
 protected:
  static constexpr const char* chat_template =
      "{% for m in messages %}{{ m.role }}: {{ m.content }}{{ eos_token }}{% endfor %}";

  // The bundled model with its matrices in this type, but for the z rows of in_proj_qkvz.
  std::string write_model(DType dtype) const { return write_model(dtype, dtype); }
  std::string write_model(DType dtype, DType gate) const {
    const Config config = load_config(bundled);
    const GgufConversion conversion(config, {});
    FloatTensors tensors = conversion.to_gguf(Checkpoint(bundled));
    GgufTokenizer tokenizer(json::parse_file(bundled + "/tokenizer.json"));
    tokenizer.ids["eos"] = 2045;
    GgufWriter writer;
    conversion.add_metadata(writer);
    tokenizer.add_to(writer);
    writer.add("tokenizer.chat_template", chat_template);
    writer.add("general.sampling.temp", 0.8f);
    writer.add("general.sampling.top_p", 0.95f);
    writer.add("general.sampling.top_k", 40u);
    qnext::testing::add_tensors(writer, tensors, [&](const std::string& name) {
      return name.find("attn_gate") != std::string::npos ? gate : dtype;
    });
    const std::string file = path(std::string(dtype_name(dtype)) + ".gguf");
    write_file(file, writer.bytes());
    return file;
  }
};

TEST_F(GgufCommands, GiveTheTextOfTheFolder) {
  const std::string model = write_model(DType::bf16);
  const auto generate = [&](std::vector<std::string> more) {
    std::vector<std::string> arguments{"generate", "ROMEO:", "--max-tokens", "24"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const Outcome outcome = run(arguments);
    EXPECT_EQ(outcome.status, 0) << outcome.err;
    return outcome.out;
  };
  for (const auto& options :
       std::vector<std::vector<std::string>>{{"--temperature", "0"},
                                             {"--seed", "5"},  // with the model's own sampling
                                             {"--temperature", "0", "--speculate", "2"}}) {
    std::vector<std::string> of_file = options;
    of_file.insert(of_file.end(), {"--model", model});
    EXPECT_EQ(generate(of_file), generate(options));
  }
  EXPECT_EQ(run({"tokenize", "To be", "--model", model}).out, "405 308\n");
  const std::string messages = R"({"messages": [{"role": "user", "content": "hi"}]})";
  EXPECT_EQ(run({"render", "--model", model}, messages).out, "user: hi<|endoftext|>");
  const Outcome chat =
      run({"chat", "--temperature", "0", "--max-tokens", "4", "--model", model}, "ROMEO:\n");
  EXPECT_EQ(chat.status, 0) << chat.err;
  EXPECT_FALSE(chat.out.empty());
  const Outcome verified = run({"verify", model, bundled + "/vectors.safetensors"});
  EXPECT_EQ(verified.status, 0) << verified.out << verified.err;
  const Outcome bench =
      run({"bench", "--model", model, "--prompt", "8", "--generate", "2", "--repeat", "1"});
  EXPECT_EQ(bench.status, 0) << bench.err;
}

TEST_F(GgufCommands, SayWhatIsHeldInAnotherType) {
  const std::string model = write_model(DType::q4_1, DType::q5_1);
  const std::string line = model + ": matrices that mix Q4_1 and Q5_1 are held as Q8_0\n";
  const Outcome loaded =
      run({"generate", "ROMEO:", "--max-tokens", "2", "--temperature", "0", "--model", model});
  EXPECT_EQ(loaded.status, 0) << loaded.err;
  EXPECT_THAT(loaded.err, StartsWith(line));
  EXPECT_THAT(run({"inspect", "--model", model}).out,
              AllOf(HasSubstr("matrices that mix Q4_1 and Q5_1 are held as Q8_0"),
                    HasSubstr("yes: --speculate")));
  const json::Value report =
      json::parse(run({"inspect", "--model", model, "--json", "--tensors"}).out, "output");
  EXPECT_EQ(report.find("held_as")->find("Q4_1")->as_string(), "Q8_0");
  EXPECT_EQ(report.find("tensors")->as_array()[0].find("dtype")->as_string(), "Q4_1");
  const auto weights = [&](const std::vector<std::string>& more) {
    std::vector<std::string> arguments{"inspect", "--json"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return json::parse(run(arguments).out, "output")
        .find("memory")
        ->find("weights_bytes")
        ->as_integer();
  };
  // 5 bits a weight in most matrices, between the 8.5 and the 4.5 of what --quantize makes.
  EXPECT_LT(weights({"--model", model}), weights({"--model", model, "--quantize", "q8_0"}));
  EXPECT_LT(weights({"--model", model, "--quantize", "q4_0"}), weights({"--model", model}));

  // What was asked for, or stays as it is, is not worth a word.
  for (const auto& arguments : std::vector<std::vector<std::string>>{
           {"--model", model, "--quantize", "q4_0"}, {"--model", write_model(DType::q4_1)}}) {
    std::vector<std::string> all{"generate", "a", "--max-tokens", "1"};
    all.insert(all.end(), arguments.begin(), arguments.end());
    EXPECT_THAT(run(all).err, AllOf(StartsWith("prompt"), Not(HasSubstr("held"))));
  }
}

TEST_F(GgufCommands, DamagedFilesGetOneLine) {
  const std::string model = write_model(DType::q8_0);
  const std::string bytes = read_file(model);
  const auto generate = [&] { return run({"generate", "x", "--model", model}); };
  write_file(model, bytes.substr(0, bytes.size() / 2));
  expect_error(generate(), "it is cut short");
  write_file(model, bytes.substr(0, 1000));
  expect_error(generate(), model + ": ");
  write_file(model, "not a model");
  expect_error(generate(), model + ": this is not a GGUF file");
  write_file(model, "");
  expect_error(generate(), model + ": this is not a GGUF file");
  for (const char* command : {"tokenize", "render", "inspect", "bench", "chat"})
    expect_error(run({command, "--model", model}), model + ": this is not a GGUF file");

  expect_error(run({"generate", "x", "--model", path("")}), "name one with --model " + model);

  GgufWriter other;
  other.add("general.architecture", "llama");
  write_file(model, other.bytes());
  expect_error(generate(), "general.architecture is \"llama\"; qnext runs \"qwen3next\"");
  GgufWriter empty;
  empty.add("general.architecture", "qwen3next");
  write_file(model, empty.bytes());
  expect_error(generate(), "metadata qwen3next.block_count is missing");
}

}  // namespace
}  // namespace qnext::app
