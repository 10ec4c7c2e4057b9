// qnext tokenize: text to token ids and back.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <array>
#include <charconv>
#include <cstdio>
#include <memory>

#include "app/command.h"
#include "app/model_source.h"
#include "app/terminal.h"
#include "base/error.h"
#include "base/json.h"
#include "text/tokenizer.h"

namespace qnext::app {
namespace {

struct TokenizeOptions {
  std::string text = "-";
  std::string model;
  bool json = false;
  bool decode = false;
  bool plain = false;
};

constexpr const char* examples =
    "  qnext tokenize \"To be, or not to be\"\n"
    "  qnext tokenize --decode \"393 11 273\"\n"
    "  printf '\"To be\"\\n\"or not\"\\n' | qnext tokenize --json\n"
    "--json reads a JSON string a line and writes an array of ids a line, each as soon as its "
    "line\n"
    "is read (with --decode the other way round); it ends at the first line that is wrong.";

std::vector<int32_t> parse_ids(std::string_view text) {
  std::vector<int32_t> ids;
  const auto separates = [](char c) {
    return c == ' ' || c == ',' || c == '\n' || c == '\t' || c == '\r' || c == '[' || c == ']';
  };
  for (size_t at = 0; at < text.size();) {
    if (separates(text[at])) {
      ++at;
      continue;
    }
    size_t end = at;
    while (end < text.size() && !separates(text[end])) ++end;
    const std::string_view word = text.substr(at, end - at);
    int32_t id = 0;
    const auto read = std::from_chars(word.data(), word.data() + word.size(), id);
    if (read.ec != std::errc{} || read.ptr != word.data() + word.size())
      fail("'{}' is no token id; give numbers with spaces or commas between them", word);
    ids.push_back(id);
    at = end;
  }
  return ids;
}

json::Value ids_json(const std::vector<int32_t>& ids) {
  json::Array array;
  array.reserve(ids.size());
  for (const int32_t id : ids) array.emplace_back(int64_t{id});
  return array;
}

std::string convert_json_line(const Tokenizer& tokenizer, const TokenizeOptions& options,
                              std::string_view line, std::string_view where) {
  const json::Value value = json::parse(line, where);
  if (!options.decode) {
    if (!value.is_string()) fail("{}: expected a JSON string, found {}", where, value.kind_name());
    return json::write(ids_json(tokenizer.encode(value.as_string(), !options.plain)));
  }
  if (!value.is_array()) fail("{}: expected an array of ids, found {}", where, value.kind_name());
  std::vector<int32_t> ids;
  for (const json::Value& id : value.as_array()) {
    const int64_t wide = id.is_integer() ? id.as_integer() : -1;
    if (wide < 0 || wide > INT32_MAX) fail("{}: {} is no token id", where, json::write(id));
    ids.push_back(static_cast<int32_t>(wide));
  }
  return json::write(tokenizer.decode(ids));
}

// Lines of standard input as they come, without their ends.
class LineReader {
 public:
  bool next(std::string& line) {
    for (;;) {
      const size_t end = pending_.find('\n', searched_);
      if (end != std::string::npos) {
        line.assign(pending_, taken_, end - taken_);
        taken_ = searched_ = end + 1;
        return true;
      }
      searched_ = pending_.size();
      if (ended_) break;
      pending_.erase(0, taken_);
      searched_ -= taken_;
      taken_ = 0;
      read_more();
    }
    if (taken_ == pending_.size()) return false;
    line.assign(pending_, taken_);
    taken_ = pending_.size();
    return true;
  }

 private:
  void read_more() {
    std::array<char, 1 << 16> buffer;
    const ssize_t got = read(STDIN_FILENO, buffer.data(), buffer.size());
    if (got < 0) fail("cannot read standard input");
    if (got == 0) ended_ = true;
    pending_.append(buffer.data(), static_cast<size_t>(got));
  }

  std::string pending_;
  size_t taken_ = 0;     // bytes of pending_ that were handed out
  size_t searched_ = 0;  // bytes of pending_ without a line end beyond taken_
  bool ended_ = false;
};

int tokenize_lines(const Tokenizer& tokenizer, const TokenizeOptions& options) {
  LineReader reader;
  std::string line;
  for (size_t number = 1; reader.next(line); ++number) {
    const std::string where = fmt::format("line {}", number);
    write_output(convert_json_line(tokenizer, options, line, where) + "\n");
  }
  return exit_status::success;
}

int tokenize(const TokenizeOptions& options) {
  const Tokenizer tokenizer = ModelSource(options.model).tokenizer();
  if (options.json) return tokenize_lines(tokenizer, options);
  const std::string text = options.text == "-" ? read_input() : options.text;
  if (options.decode) {
    write_output(tokenizer.decode(parse_ids(text)));
    if (is_terminal(STDOUT_FILENO)) write_output("\n");
    return exit_status::success;
  }
  require_utf8(text, "the text");
  std::string out;
  for (const int32_t id : tokenizer.encode(text, !options.plain)) {
    if (!out.empty()) out += ' ';
    out += fmt::format("{}", id);
  }
  write_output(out + "\n");
  return exit_status::success;
}

}  // namespace

void register_tokenize(CLI::App& app) {
  auto options = std::make_shared<TokenizeOptions>();
  CLI::App& command =
      add_command(app, "tokenize", "Show the token ids of a text, or the text of ids", examples);
  command.add_option("text", options->text, "the text; - or nothing reads standard input")
      ->type_name("");
  command
      .add_option("-m,--model", options->model,
                  "folder with tokenizer.json, or a GGUF file [bundled]")
      ->type_name("MODEL");
  command.add_flag("--json", options->json, "standard input as JSON, a line each");
  command.add_flag("--decode", options->decode, "from ids to text");
  command.add_flag("--plain", options->plain, "control tokens such as <|im_end|> are plain text");
  on_run(command, [options] { return tokenize(*options); });
}

}  // namespace qnext::app
