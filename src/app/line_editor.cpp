#include "app/line_editor.h"

#include <histedit.h>
#include <langinfo.h>
#include <unistd.h>

#include <clocale>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <iostream>
#include <system_error>

#include "app/terminal.h"
#include "base/error.h"

namespace qnext::app {

// libedit's handles, and what its callbacks need.
struct LineEditor::Editor {
  EditLine* line = nullptr;
  History* history = nullptr;
  std::string prompt;
  bool cancelled = false;

  Editor();
  ~Editor() {
    if (line) el_end(line);
    if (history) history_end(history);
  }
  Editor(const Editor&) = delete;
  Editor& operator=(const Editor&) = delete;

  static Editor& of(EditLine* line) {
    void* data = nullptr;
    el_get(line, EL_CLIENTDATA, &data);
    return *static_cast<Editor*>(data);
  }

  static char* show_prompt(EditLine* line) { return of(line).prompt.data(); }

  static unsigned char cancel_line(EditLine* line, int) {
    of(line).cancelled = true;
    // Below what is there, which may be of several lines.
    const LineInfo* info = el_line(line);
    el_cursor(line, static_cast<int>(info->lastchar - info->cursor));
    el_set(line, EL_REFRESH);
    return CC_NEWLINE;
  }

  static unsigned char insert_line_end(EditLine* line, int) {
    return el_insertstr(line, "\n") == 0 ? CC_REFRESH : CC_ERROR;
  }

  static unsigned char paste(EditLine* line, int);
};

namespace {

constexpr int history_length = 1000;

// Terminals put pasted text between these once asked to.
constexpr const char* bracketed_paste_on = "\x1b[?2004h";
constexpr const char* bracketed_paste_off = "\x1b[?2004l";
constexpr const char* paste_begin = "\\e[200~";
constexpr std::wstring_view paste_end = L"\x1b[201~";

// libedit edits wide characters and asks the locale how they are written.
void use_utf8() {
  setlocale(LC_CTYPE, "");
  if (std::strcmp(nl_langinfo(CODESET), "UTF-8") != 0) setlocale(LC_CTYPE, "C.UTF-8");
}

}  // namespace

unsigned char LineEditor::Editor::paste(EditLine* line, int) {
  std::wstring text;
  while (!text.ends_with(paste_end)) {
    wchar_t c = 0;
    if (el_wgetc(line, &c) != 1) return CC_EOF;
    text += c == L'\r' ? L'\n' : c;
  }
  text.resize(text.size() - paste_end.size());
  while (text.ends_with(L'\n')) text.pop_back();
  return text.empty() || el_winsertstr(line, text.c_str()) == 0 ? CC_REFRESH : CC_ERROR;
}

LineEditor::Editor::Editor() {
  use_utf8();
  history = history_init();
  line = el_init("qnext", stdin, stdout, stderr);
  if (!history || !line) fail("cannot edit lines on this terminal; check TERM");
  HistEvent event{};
  ::history(history, &event, H_SETSIZE, history_length);
  ::history(history, &event, H_SETUNIQUE, 1);
  el_set(line, EL_CLIENTDATA, this);
  el_set(line, EL_PROMPT, &Editor::show_prompt);
  el_set(line, EL_EDITOR, "emacs");
  el_set(line, EL_HIST, ::history, history);
  // Ctrl-C as a key like others, but only while a line is edited.
  el_set(line, EL_SETTY, "-d", "-isig", nullptr);
  el_set(line, EL_ADDFN, "cancel-line", "Drop the line", &Editor::cancel_line);
  el_set(line, EL_ADDFN, "insert-line-end", "Start a new line", &Editor::insert_line_end);
  el_set(line, EL_ADDFN, "paste", "Insert pasted text", &Editor::paste);
  el_set(line, EL_BIND, "^C", "cancel-line", nullptr);
  el_set(line, EL_BIND, "\\e\r", "insert-line-end", nullptr);
  el_set(line, EL_BIND, "\\e\n", "insert-line-end", nullptr);
  el_set(line, EL_BIND, paste_begin, "paste", nullptr);
  el_set(line, EL_BIND, "^R", "em-inc-search-prev", nullptr);
}

LineEditor::LineEditor(const std::string& history_file) : history_file_(history_file) {
  if (!is_terminal(STDIN_FILENO) || !is_terminal(STDOUT_FILENO)) return;
  editor_ = std::make_unique<Editor>();
  if (history_file_.empty()) return;
  std::error_code ignored;  // no history is no reason not to chat
  std::filesystem::create_directories(std::filesystem::path(history_file_).parent_path(), ignored);
  HistEvent event{};
  history(editor_->history, &event, H_LOAD, history_file_.c_str());
}

LineEditor::~LineEditor() = default;

LineEditor::Event LineEditor::read(const std::string& prompt, std::string& line) {
  line.clear();
  if (!editor_) return std::getline(std::cin, line) ? Event::line : Event::end;
  editor_->prompt = prompt;
  editor_->cancelled = false;
  write_output(bracketed_paste_on);
  int length = 0;
  const char* read = el_gets(editor_->line, &length);
  write_output(bracketed_paste_off);
  if (editor_->cancelled) {
    el_reset(editor_->line);
    write_output("\n");
    return Event::cancelled;
  }
  if (!read || length <= 0) return Event::end;
  line.assign(read, static_cast<size_t>(length));
  while (line.ends_with('\n')) line.pop_back();
  if (!line.empty()) remember(line);
  return Event::line;
}

void LineEditor::remember(const std::string& line) {
  HistEvent event{};
  history(editor_->history, &event, H_ENTER, line.c_str());
  if (!history_file_.empty()) history(editor_->history, &event, H_SAVE, history_file_.c_str());
}

std::string default_history_file() {
  namespace fs = std::filesystem;
  if (const char* state = std::getenv("XDG_STATE_HOME"); state && *state)
    return fs::path(state) / "qnext" / "history";
  if (const char* home = std::getenv("HOME"); home && *home)
    return fs::path(home) / ".local" / "state" / "qnext" / "history";
  return {};
}

}  // namespace qnext::app
