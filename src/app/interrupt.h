// Ctrl-C as a question that a loop asks, instead of the end of the program.
#pragma once

namespace qnext::app {

// While one lives, the first Ctrl-C (SIGINT) is only noted; a second one, for a program that does
// not react, ends it as usual. One at a time.
class InterruptScope {
 public:
  InterruptScope();
  ~InterruptScope();
  InterruptScope(const InterruptScope&) = delete;
  InterruptScope& operator=(const InterruptScope&) = delete;

  // Whether Ctrl-C came since this scope began.
  bool interrupted() const;
};

}  // namespace qnext::app
