#include "app/command.h"

int main(int argument_count, char** arguments) {
  return qnext::app::run_command_line(argument_count, arguments);
}
