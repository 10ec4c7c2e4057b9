#include "app/interrupt.h"

#include <csignal>

namespace qnext::app {
namespace {

volatile std::sig_atomic_t noted = 0;
struct sigaction previous {};
struct sigaction previous_terminate {};

void note(int) {
  noted = 1;
}

void count_signal(int) {
  noted = noted + 1;
}

}  // namespace

InterruptScope::InterruptScope() {
  noted = 0;
  struct sigaction action {};
  action.sa_handler = note;
  // SA_RESETHAND: the second signal finds the default action.
  action.sa_flags = static_cast<int>(SA_RESETHAND) | SA_RESTART;
  sigaction(SIGINT, &action, &previous);
}

InterruptScope::~InterruptScope() {
  sigaction(SIGINT, &previous, nullptr);
}

bool InterruptScope::interrupted() const {
  return noted != 0;
}

StopSignals::StopSignals() {
  noted = 0;
  struct sigaction action {};
  action.sa_handler = count_signal;
  action.sa_flags = static_cast<int>(SA_RESTART);
  sigaction(SIGINT, &action, &previous);
  sigaction(SIGTERM, &action, &previous_terminate);
}

StopSignals::~StopSignals() {
  sigaction(SIGINT, &previous, nullptr);
  sigaction(SIGTERM, &previous_terminate, nullptr);
}

int StopSignals::count() const {
  return static_cast<int>(noted);
}

}  // namespace qnext::app
