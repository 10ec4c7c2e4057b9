// Lines typed by a person, with editing and history; or plain lines where standard input is no
// terminal.
#pragma once

#include <memory>
#include <string>

namespace qnext::app {

// Emacs keys. Alt-Enter starts a new line inside the message, pasted text keeps its lines, Ctrl-C
// drops what was typed. One at a time.
class LineEditor {
 public:
  enum class Event { line, cancelled, end };

  // History is kept in `history_file` (empty: for this run only); its folder is created.
  explicit LineEditor(const std::string& history_file);
  ~LineEditor();
  LineEditor(const LineEditor&) = delete;
  LineEditor& operator=(const LineEditor&) = delete;

  // The next message, without its line end; it may hold line ends inside.
  Event read(const std::string& prompt, std::string& line);
  bool interactive() const { return editor_ != nullptr; }

 private:
  struct Editor;

  void remember(const std::string& line);

  std::unique_ptr<Editor> editor_;  // null where standard input is no terminal
  std::string history_file_;
};

// Where the XDG base directory specification puts it; empty where there is no home folder.
std::string default_history_file();

}  // namespace qnext::app
