// The PTX of one .cu file. Kernels are decoded when they are first asked for.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "emulator/instruction.h"

namespace qnext::emulator {

class Module {
 public:
  explicit Module(std::string ptx);
  ~Module();
  Module(const Module&) = delete;
  Module& operator=(const Module&) = delete;

  // Throws Error where there is none of this (mangled) name, or PTX in it that is not known here.
  const Kernel& kernel(std::string_view name);

 private:
  struct Source;
  std::unique_ptr<Source> source_;
  std::map<std::string, std::unique_ptr<Kernel>, std::less<>> kernels_;
};

}  // namespace qnext::emulator
