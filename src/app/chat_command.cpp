// qnext chat: a conversation in the terminal.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>

#include "app/answer_stream.h"
#include "app/command.h"
#include "app/conversation.h"
#include "app/fingerprint.h"
#include "app/line_editor.h"
#include "app/model_files.h"
#include "app/options.h"
#include "app/terminal.h"
#include "base/error.h"
#include "engine/engine.h"
#include "text/chat_template.h"

namespace qnext::app {
namespace {

struct ChatOptions {
  std::string model;
  std::string system;
  std::string history = default_history_file();
  MachineOptions machine;
  SamplingOptions sampling;
  AnswerOptions answer;
};

// Without a chat template nothing tells the model to stop.
constexpr int64_t plain_answer_tokens = 200;

constexpr const char* examples =
    "  qnext chat\n"
    "  qnext chat --model ~/models/Qwen3-Next-80B-A3B-Instruct --quantize q4_0 --speculate 2\n"
    "Ctrl-C stops an answer, Ctrl-D leaves, /help tells more. Where standard input is no "
    "terminal,\n"
    "each of its lines is a message.";

constexpr const char* help =
    "  /reset          forget the conversation\n"
    "  /regenerate     another answer to the last message\n"
    "  /system TEXT    set the system text and forget the conversation (no TEXT: none)\n"
    "  /stats          speed of the last answer\n"
    "  /exit           leave, as Ctrl-D does\n"
    "  //...           a message that begins with /\n"
    "Ctrl-C stops an answer or drops the line; Alt-Enter starts a new line in a message; arrow up\n"
    "and Ctrl-R find earlier messages.\n";

class Chat {
 public:
  explicit Chat(const ChatOptions& options)
      : options_(options),
        files_(options.model),
        tokenizer_(load_tokenizer(files_)),
        conversation_(files_.source.chat_template()),
        sampling_(options.sampling.resolve(files_.generation)) {
    require_utf8(options.system, "--system");
    if (conversation_.is_transcript() && !options_.answer.max_tokens)
      options_.answer.max_tokens = plain_answer_tokens;
    conversation_.set_system(options.system);
    backend_ = load_backend(files_, options.machine, options.answer.speculate > 0);
    engine::EngineOptions engine = options.answer.engine_options(files_.stop_tokens());
    if (!engine.cache_folder.empty())
      engine.cache_fingerprint = fingerprint(files_, options.machine, backend_->capabilities());
    engine_ = std::make_unique<engine::Engine>(*backend_, &tokenizer_, engine);
  }

  int run() {
    LineEditor editor(options_.history);
    interactive_ = editor.interactive();
    greet();
    std::string line;
    for (;;) {
      const LineEditor::Event event = editor.read("> ", line);
      if (event == LineEditor::Event::end) break;
      if (event == LineEditor::Event::cancelled) {
        notice("(Ctrl-D leaves)");
        continue;
      }
      if (!handle(line)) break;
    }
    if (interactive_) write_output("\n");
    return failed_ ? exit_status::failure : exit_status::success;
  }

 private:
  // For the person, not part of the answers.
  void notice(std::string_view text) const {
    if (interactive_) fmt::print(stderr, "{}\n", text);
  }

  void greet() const {
    if (conversation_.is_transcript()) {
      notice(
          fmt::format("No chat template in this model: it goes on from your lines, {} tokens at a "
                      "time.",
                      *options_.answer.max_tokens));
    }
    notice("/help tells what you can do here.");
  }

  // False: leave.
  bool handle(const std::string& line) {
    if (line.empty()) return true;
    if (line.starts_with("//")) {
      say(line.substr(1));
      return true;
    }
    if (!line.starts_with("/")) {
      say(line);
      return true;
    }
    const size_t space = line.find(' ');
    const std::string command = line.substr(0, space);
    const std::string rest = space == std::string::npos ? "" : line.substr(space + 1);
    if (command == "/exit" || command == "/quit") return false;
    if (command == "/help") {
      fmt::print(stderr, "{}", help);
    } else if (command == "/reset") {
      conversation_.clear();
      notice("(the conversation begins anew)");
    } else if (command == "/system") {
      conversation_.set_system(rest);
      conversation_.clear();
      notice("(the conversation begins anew)");
    } else if (command == "/regenerate") {
      regenerate();
    } else if (command == "/stats") {
      fmt::print(stderr, "{}\n", statistics_.empty() ? "no answer yet" : statistics_);
    } else {
      fmt::print(stderr, "there is no {}; /help lists what there is\n", command);
    }
    return true;
  }

  void say(const std::string& message) {
    try {
      require_utf8(message, "the message");
    } catch (const Error& error) {
      report(error);
      return;
    }
    conversation_.add_user(message);
    if (!answer()) conversation_.drop_user();
  }

  void regenerate() {
    if (!conversation_.drop_answer()) {
      fmt::print(stderr, "there is no answer to make again\n");
      return;
    }
    ++sampling_.seed;  // the same one would give the same answer
    answer();
  }

  // Answers the conversation so far. False: it could not, and said why.
  bool answer() {
    bool ends_line = false;
    AnswerStream stream([&](std::string_view piece) {
      write_output(piece);
      ends_line = piece.ends_with('\n');
    });
    try {
      stream.run(*engine_,
                 options_.answer.request(tokenizer_.encode(conversation_.prompt()), sampling_));
    } catch (const Error& error) {
      if (!stream.text.empty()) write_output("\n");
      report(error);
      return false;
    }
    if (!ends_line) write_output("\n");
    if (stream.finish.reason == engine::FinishReason::cancelled) notice("(stopped)");
    if (stream.finish.reason == engine::FinishReason::context)
      notice("(the context is full: /reset begins anew)");
    conversation_.add_answer(stream.text);
    statistics_ = statistics_line(stream.finish.counts, stream.timing());
    if (sampling_.temperature > 0) statistics_ += fmt::format("; seed {}", sampling_.seed);
    return true;
  }

  void report(const Error& error) {
    fmt::print(stderr, "qnext: {}\n", error.what());
    failed_ = failed_ || !interactive_;
  }

  ChatOptions options_;
  ModelFiles files_;
  Tokenizer tokenizer_;
  Conversation conversation_;
  ops::SamplingParameters sampling_;
  std::unique_ptr<backend::Backend> backend_;
  std::unique_ptr<engine::Engine> engine_;
  std::string statistics_;  // of the last answer
  bool interactive_ = false;
  bool failed_ = false;  // without a person who saw it
};

}  // namespace

void register_chat(CLI::App& app) {
  auto options = std::make_shared<ChatOptions>();
  CLI::App& command = add_command(app, "chat", "Talk with a model", examples);
  add_model_option(command, options->model);
  command.add_option("--system", options->system, "system text [none]")->type_name("TEXT");
  command
      .add_option("--history", options->history, "file of typed lines [in ~/.local/state/qnext]")
      ->type_name("FILE");
  add_answer_options(command, options->answer);
  add_sampling_options(command, options->sampling);
  add_machine_options(command, options->machine);
  options->answer.cache_bytes = size_t{1} << 30;
  add_cache_options(command, options->answer);
  on_run(command, [options] { return Chat(*options).run(); });
}

}  // namespace qnext::app
