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

// The same for a program that ends in two steps: while one lives, Ctrl-C and SIGTERM are counted.
// One at a time, and none beside an InterruptScope.
class StopSignals {
 public:
  StopSignals();
  ~StopSignals();
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;

  // How many came since this began.
  int count() const;
};

}  // namespace qnext::app
