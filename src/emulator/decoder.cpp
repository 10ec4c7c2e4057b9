#include "emulator/decoder.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <vector>

#include "base/error.h"
#include "emulator/alignment.h"
#include "emulator/names.h"
#include "emulator/warp.h"

namespace qnext::emulator {
namespace {

using Symbols = std::unordered_map<std::string_view, uint64_t>;

const Decoders& all_decoders() {
  static const Decoders all = [] {
    Decoders joined;
    for (const Decoders* one :
         {&control_decoders(), &integer_decoders(), &float_decoders(), &conversion_decoders(),
          &selection_decoders(), &memory_decoders(), &warp_wide_decoders(), &matrix_decoders(),
          &warpgroup_decoders(), &copy_decoders(), &barrier_decoders()})
      joined.insert(one->begin(), one->end());
    return joined;
  }();
  return all;
}

// A function's own places, known before any body is decoded, so that calls can name them.
struct Function {
  const FunctionText* text = nullptr;
  std::vector<NamedMemory> parameters, results;
  Operand return_place = no_operand;
  uint32_t begin = 0;  // of its instructions
};

// operands: the callee's register for the place behind the call.
void call(Warp& warp, const Instruction& instruction, LaneMask active) {
  uint32_t* places = warp.lanes<uint32_t>(instruction.operands[0]);
  for_lanes(active, [&](int lane) { places[lane] = warp.place() + 1; });
  warp.branch(instruction.target, active);
}

void return_to(Warp& warp, const Instruction& instruction, LaneMask active) {
  const uint32_t* places = warp.lanes<uint32_t>(instruction.operands[0]);
  while (active != 0) {
    const uint32_t place = places[std::countr_zero(active)];
    LaneMask same = 0;
    for_lanes(active, [&](int lane) { same |= places[lane] == place ? lane_bit(lane) : 0; });
    warp.branch(place, same);
    active &= ~same;
  }
}

// A parameter or result, from each thread's own memory to its own: detail[0] bytes.
void copy_parameter(Warp& warp, const Instruction& instruction, LaneMask active) {
  const auto bytes = static_cast<size_t>(instruction.detail[0]);
  std::byte* to = warp.lanes<std::byte>(instruction.operands[0]);
  const std::byte* from = warp.lanes<std::byte>(instruction.operands[1]);
  for_lanes(active, [&](int lane) {
    const size_t at = static_cast<size_t>(lane) * bytes;
    std::memcpy(to + at, from + at, bytes);
  });
}

class Decoding {
 public:
  Decoding(const ModuleText& module, const Symbols& globals, std::string_view name)
      : module_(module), symbols_(globals), places_(kernel_) {
    kernel_.name = name;
  }

  Kernel run();

 private:
  // A branch whose label is not known yet.
  struct Open {
    uint32_t instruction;
    std::string_view label;
  };
  struct Labels {
    std::unordered_map<std::string_view, uint32_t> places;
    std::vector<Open> open;
  };

  void find_functions(const FunctionText& caller);
  std::vector<Variable> shared_arrays() const;
  void place_shared();
  void place_parameters(const FunctionText& entry);
  void place_function(Function& function);
  void decode(const FunctionText& text, Function* function);
  void decode_instruction(const BodyReader& reader, Function* function, FunctionNames& names);
  void decode_call(const Statement& statement, FunctionNames& names);
  void add(Instruction instruction, std::string_view text);
  void close_labels();

  const ModuleText& module_;
  Symbols symbols_;
  Kernel kernel_;
  Places places_;
  std::vector<NamedMemory> parameters_;  // of the kernel
  std::map<std::string_view, Function> functions_;
  std::vector<std::pair<uint32_t, std::string_view>> calls_;
  std::vector<Labels> labels_;  // of the scopes
};

// By looking for names: what stands in a body is called by it.
void Decoding::find_functions(const FunctionText& caller) {
  for (const FunctionText& one : module_.functions) {
    if (one.is_entry || functions_.contains(one.name)) continue;
    if (caller.body.find(one.name) == std::string_view::npos) continue;
    functions_[one.name].text = &one;
    find_functions(one);
  }
}

// Shared arrays that stand in the functions, or in the module and are named by one of them.
std::vector<Variable> Decoding::shared_arrays() const {
  std::vector<Variable> arrays;
  const auto add_from = [&](const FunctionText& text) {
    for (const Variable& variable : module_.variables) {
      const bool known = std::any_of(arrays.begin(), arrays.end(), [&](const Variable& one) {
        return one.name == variable.name;
      });
      if (variable.space == "shared" && !known &&
          text.body.find(variable.name) != std::string_view::npos)
        arrays.push_back(variable);
    }
    BodyReader reader(text.body, text.line);
    for (auto item = reader.next(); item != BodyReader::Item::end; item = reader.next()) {
      if (item != BodyReader::Item::declaration) continue;
      for (const Variable& variable : parse_variables(reader.text())) {
        if (variable.space == "shared") arrays.push_back(variable);
      }
    }
  };
  for (const FunctionText& text : module_.functions) {
    if (text.name == kernel_.name || functions_.contains(text.name)) add_from(text);
  }
  return arrays;
}

// Those of the launch's size lie behind the others.
void Decoding::place_shared() {
  std::vector<Variable> arrays = shared_arrays();
  std::stable_partition(arrays.begin(), arrays.end(),
                        [](const Variable& variable) { return !variable.is_external; });
  size_t top = 0;
  for (const Variable& variable : arrays) {
    top = round_up(top, variable.alignment);
    symbols_[variable.name] = top;
    top += variable.bytes;
  }
  kernel_.static_shared_bytes = top;
}

void Decoding::place_parameters(const FunctionText& entry) {
  size_t top = 0;
  for (const Variable& one : entry.parameters) {
    top = round_up(top, one.alignment);
    kernel_.parameters.push_back({std::string(one.name), top, one.bytes});
    top += one.bytes;
  }
  kernel_.parameter_bytes = top;
  for (const Parameter& one : kernel_.parameters) {
    NamedMemory memory;
    memory.bytes = one.bytes;
    memory.address = places_.own_memory(OwnMemory::Where::launch, one.offset, one.bytes);
    memory.of_launch = true;
    parameters_.push_back(memory);
  }
}

void Decoding::place_function(Function& function) {
  const auto place = [&](const std::vector<Variable>& from, std::vector<NamedMemory>& to) {
    for (const Variable& one : from) to.push_back(places_.take_parameter(one.bytes));
  };
  place(function.text->parameters, function.parameters);
  place(function.text->results, function.results);
  function.return_place = places_.registers(sizeof(uint32_t) * warp_size);
}

void Decoding::add(Instruction instruction, std::string_view text) {
  kernel_.code.push_back(std::move(instruction));
  kernel_.lines.push_back(text);
}

void Decoding::decode_call(const Statement& statement, FunctionNames& names) {
  std::vector<std::string_view> results, parameters;
  std::string_view name;
  for (const Argument& argument : statement.arguments) {
    if (argument.kind == Argument::Kind::list)
      (name.empty() ? results : parameters) = argument.elements;
    else
      name = argument.text;
  }
  const auto found = functions_.find(name);
  if (found == functions_.end()) names.refuse(fmt::format("there is no function {}", name));
  const Function& callee = found->second;
  if (parameters.size() != callee.parameters.size() || results.size() != callee.results.size())
    names.refuse(fmt::format("{} takes other parameters", name));
  const auto copy = [&](const NamedMemory& to, const NamedMemory& from) {
    Instruction instruction;
    instruction.handler = copy_parameter;
    instruction.operands = {to.registers, from.registers};
    instruction.detail[0] = static_cast<int32_t>(to.bytes);
    instruction.line = statement.line;
    add(instruction, statement.opcode);
  };
  for (size_t i = 0; i < parameters.size(); ++i)
    copy(callee.parameters[i], names.memory(parameters[i]));
  Instruction jump;
  jump.handler = call;
  jump.operands[0] = callee.return_place;
  jump.line = statement.line;
  calls_.emplace_back(static_cast<uint32_t>(kernel_.code.size()), name);
  add(jump, statement.opcode);
  for (size_t i = 0; i < results.size(); ++i) copy(names.memory(results[i]), callee.results[i]);
}

void Decoding::decode_instruction(const BodyReader& reader, Function* function,
                                  FunctionNames& names) {
  const Statement& statement = reader.statement();
  names.now_at(statement);
  const std::string_view operation = statement.parts[0];
  if (operation == "call") {
    if (!statement.guard.empty()) names.refuse("a call behind a predicate is not known here");
    return decode_call(statement, names);
  }
  Instruction instruction;
  if (operation == "ret" && function != nullptr) {
    instruction.handler = return_to;
    instruction.operands[0] = function->return_place;
  } else {
    const auto decoder = all_decoders().find(operation == "ret" ? "exit" : operation);
    if (decoder == all_decoders().end()) names.refuse("the instruction is not known here");
    decoder->second(statement, names, instruction);
  }
  instruction.line = statement.line;
  if (!statement.guard.empty()) {
    instruction.guard = names.source(statement.guard, Type::pred);
    instruction.guard_flip = statement.guard_inverted ? all_lanes : 0;
  }
  if (operation == "bra") {
    labels_.back().open.push_back(
        {static_cast<uint32_t>(kernel_.code.size()), statement.arguments.at(0).text});
  }
  add(std::move(instruction), reader.text());
}

// Labels of a scope are seen in it and in the scopes inside of it.
void Decoding::close_labels() {
  const Labels closed = std::move(labels_.back());
  labels_.pop_back();
  for (const Open& open : closed.open) {
    const auto found = closed.places.find(open.label);
    if (found != closed.places.end())
      kernel_.code[open.instruction].target = found->second;
    else if (labels_.empty())
      fail("PTX of kernel {}: there is no label {}", kernel_.name, open.label);
    else
      labels_.back().open.push_back(open);
  }
}

void Decoding::decode(const FunctionText& text, Function* function) {
  FunctionNames names(places_, symbols_);
  if (function != nullptr) {
    function->begin = static_cast<uint32_t>(kernel_.code.size());
    for (size_t i = 0; i < text.parameters.size(); ++i)
      names.declare_memory(text.parameters[i].name, function->parameters[i]);
    for (size_t i = 0; i < text.results.size(); ++i)
      names.declare_memory(text.results[i].name, function->results[i]);
  } else {
    for (size_t i = 0; i < text.parameters.size(); ++i)
      names.declare_memory(text.parameters[i].name, parameters_[i]);
  }
  labels_.emplace_back();
  BodyReader reader(text.body, text.line);
  for (auto item = reader.next(); item != BodyReader::Item::end; item = reader.next()) {
    switch (item) {
      case BodyReader::Item::open_scope:
        names.open_scope();
        labels_.emplace_back();
        break;
      case BodyReader::Item::close_scope:
        names.close_scope();
        close_labels();
        break;
      case BodyReader::Item::label:
        labels_.back().places[reader.text()] = static_cast<uint32_t>(kernel_.code.size());
        break;
      case BodyReader::Item::declaration:
        for (const Variable& variable : parse_variables(reader.text())) names.declare(variable);
        break;
      default:
        decode_instruction(reader, function, names);
    }
  }
  close_labels();
}

Kernel Decoding::run() {
  const auto entry = std::find_if(
      module_.functions.begin(), module_.functions.end(),
      [&](const FunctionText& text) { return text.is_entry && text.name == kernel_.name; });
  if (entry == module_.functions.end()) fail("the module has no kernel {}", kernel_.name);
  find_functions(*entry);
  place_shared();
  place_parameters(*entry);
  const std::vector<int> cluster = numbers_behind(entry->directives, ".reqnctapercluster");
  std::copy_n(cluster.begin(), std::min<size_t>(cluster.size(), 3), kernel_.cluster.begin());
  const std::vector<int> largest = numbers_behind(entry->directives, ".maxntid");
  if (!largest.empty()) {
    kernel_.largest_block = 1;
    for (const int size : largest) kernel_.largest_block *= size;
  }
  for (auto& [name, function] : functions_) place_function(function);
  decode(*entry, nullptr);
  for (auto& [name, function] : functions_) decode(*function.text, &function);
  for (const auto& [instruction, name] : calls_)
    kernel_.code[instruction].target = functions_.at(name).begin;
  return std::move(kernel_);
}

}  // namespace

Kernel decode_kernel(const ModuleText& module, const Symbols& globals, std::string_view name) {
  return Decoding(module, globals, name).run();
}

}  // namespace qnext::emulator
