#include "app/interrupt.h"

#include <csignal>

namespace qnext::app {
namespace {

volatile std::sig_atomic_t noted = 0;
struct sigaction previous {};

void note(int) {
  noted = 1;
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

}  // namespace qnext::app
