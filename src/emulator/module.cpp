#include "emulator/module.h"

#include <algorithm>
#include <cstring>
#include <unordered_map>

#include "base/error.h"
#include "emulator/decoder.h"
#include "emulator/device_memory.h"
#include "emulator/names.h"
#include "emulator/parser.h"

namespace qnext::emulator {

struct Module::Source {
  std::string text;
  ModuleText parts;
  std::unordered_map<std::string_view, uint64_t> globals;  // addresses of .global and .const
};

namespace {

// {1, 2, 3} or 5, in values of the variable's type; what is not named is zero.
void initialise(const Variable& variable, std::byte* memory) {
  std::memset(memory, 0, variable.bytes);
  std::string_view list = variable.initial;
  if (list.starts_with('{')) list = list.substr(1, list.size() - 2);
  const auto width = static_cast<size_t>(std::max(bits_of(variable.type), 8)) / 8;
  for (size_t at = 0; !list.empty(); at += width) {
    const size_t comma = std::min(list.find(','), list.size());
    std::string_view one = list.substr(0, comma);
    one.remove_prefix(std::min(one.find_first_not_of(" \n"), one.size()));
    uint64_t bits = 0;
    if (!parse_immediate(one, variable.type, bits) || at + width > variable.bytes)
      fail("PTX: {} cannot begin with {}", variable.name, variable.initial);
    std::memcpy(memory + at, &bits, width);
    list.remove_prefix(std::min(comma + 1, list.size()));
  }
}

}  // namespace

Module::Module(std::string ptx) : source_(std::make_unique<Source>()) {
  source_->text = std::move(ptx);
  blank_comments(source_->text);
  source_->parts = parse_module(source_->text);
  for (const Variable& variable : source_->parts.variables) {
    if (variable.space != "global" && variable.space != "const") continue;
    std::byte* memory = device_memory().allocate(variable.bytes);
    initialise(variable, memory);
    source_->globals[variable.name] = reinterpret_cast<uint64_t>(memory);
  }
}

Module::~Module() {
  for (const auto& [name, address] : source_->globals)
    device_memory().release(reinterpret_cast<const void*>(address));
}

const Kernel& Module::kernel(std::string_view name) {
  const auto known = kernels_.find(name);
  if (known != kernels_.end()) return *known->second;
  auto kernel = std::make_unique<Kernel>(decode_kernel(source_->parts, source_->globals, name));
  return *kernels_.emplace(std::string(name), std::move(kernel)).first->second;
}

}  // namespace qnext::emulator
