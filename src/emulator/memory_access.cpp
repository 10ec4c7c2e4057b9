// ld, st, atom and red, and what turns addresses of one space into those of another.
//
// A generic address is the host's; so are those of global, local and parameter memory. One of
// shared memory is the distance from the block's begin, with the block's rank + 1 in the top byte
// where mapa made it.
#include <algorithm>
#include <cstring>
#include <type_traits>

#include "emulator/copies.h"
#include "emulator/statement.h"
#include "emulator/warp.h"

namespace qnext::emulator {
namespace {

enum class Space { generic, global, shared };

Space space_of(const Statement& statement) {
  for (const std::string_view part : statement.parts) {
    if (part == "global") return Space::global;
    if (part == "shared" || part == "shared::cta" || part == "shared::cluster")
      return Space::shared;
  }
  return Space::generic;  // local and parameters too: their addresses are the host's
}

template <Space space>
std::byte* locate(Warp& warp, uint64_t address, size_t bytes, const Instruction& instruction,
                  int lane) {
  if constexpr (space == Space::shared)
    return warp.shared(static_cast<uint32_t>(address), bytes, instruction, lane, Access::none);
  else if constexpr (space == Space::global)
    return warp.global(address, bytes, instruction, lane);
  else
    return warp.generic(address, bytes, instruction, lane);
}

// Where the accesses of a warp's threads go: operands[0] is the address, 32 bits wide if detail[0]
// is 32.
template <Space space>
class Places {
 public:
  Places(Warp& warp, const Instruction& instruction, size_t bytes, LaneMask active, Access access) {
    find(warp, instruction, bytes, active);
    Races* races = warp.block().races;
    if (space == Space::global || races == nullptr) return;
    for_lanes(active,
              [&](int lane) { races->note(warp, instruction, (*this)[lane], bytes, access); });
  }

  std::byte* operator[](int lane) const { return reinterpret_cast<std::byte*>(address_[lane]); }

 private:
  void find(Warp& warp, const Instruction& instruction, size_t bytes, LaneMask active) {
    if (instruction.detail[0] == 32)
      add_offset(warp.lanes<uint32_t>(instruction.operands[0]), instruction.offset);
    else
      add_offset(warp.lanes<uint64_t>(instruction.operands[0]), instruction.offset);
    if constexpr (space == Space::shared) {
      if (warp.holds_all(true, address_, bytes, active)) {
        const auto begin = reinterpret_cast<uint64_t>(warp.block().shared);
        for (uint64_t& address : address_) address += begin;
        return;
      }
    } else {
      if (warp.holds_all(false, address_, bytes, active)) return;
      // The warp knows the memory of the first access from then on.
      const int first = std::countr_zero(active);
      locate<space>(warp, address_[first], bytes, instruction, first);
      if (warp.holds_all(false, address_, bytes, active)) return;
    }
    for_lanes(active, [&](int lane) {
      address_[lane] =
          reinterpret_cast<uint64_t>(locate<space>(warp, address_[lane], bytes, instruction, lane));
    });
  }

  template <typename Address>
  void add_offset(const Address* base, int64_t offset) {
    for (int lane = 0; lane < warp_size; ++lane)
      address_[lane] = static_cast<Address>(base[lane] + static_cast<Address>(offset));
  }

  uint64_t address_[warp_size];
};

// many: the registers.
template <Space space, typename Element, typename Register>
void load(Warp& warp, const Instruction& instruction, LaneMask active) {
  const size_t count = instruction.many.size();
  const Places<space> places(warp, instruction, sizeof(Element) * count, active, Access::read);
  for (size_t i = 0; i < count; ++i) {
    Register* to = warp.lanes<Register>(instruction.many[i]);
    for_lanes(active, [&](int lane) {
      Element value;
      std::memcpy(&value, places[lane] + i * sizeof(Element), sizeof(Element));
      to[lane] = static_cast<Register>(value);
    });
  }
}

// From an address that all threads share: parameters, mostly.
template <typename Element, typename Register>
void load_one(Warp& warp, const Instruction& instruction, LaneMask active) {
  const size_t count = instruction.many.size();
  const int first = std::countr_zero(active);
  const uint64_t base = warp.lanes<uint64_t>(instruction.operands[0])[first];
  const std::byte* from = warp.generic(base + static_cast<uint64_t>(instruction.offset),
                                       sizeof(Element) * count, instruction, first);
  for (size_t i = 0; i < count; ++i) {
    Element value;
    std::memcpy(&value, from + i * sizeof(Element), sizeof(Element));
    Register* to = warp.lanes<Register>(instruction.many[i]);
    for_lanes(active, [&](int lane) { to[lane] = static_cast<Register>(value); });
  }
}

template <Space space, typename Element, typename Register>
void store(Warp& warp, const Instruction& instruction, LaneMask active) {
  const size_t count = instruction.many.size();
  const Places<space> places(warp, instruction, sizeof(Element) * count, active, Access::write);
  for (size_t i = 0; i < count; ++i) {
    const Register* from = warp.lanes<Register>(instruction.many[i]);
    for_lanes(active, [&](int lane) {
      const auto value = static_cast<Element>(from[lane]);
      std::memcpy(places[lane] + i * sizeof(Element), &value, sizeof(Element));
    });
  }
}

struct LoadKind {
  template <Space space, typename Element, typename Register>
  static constexpr Handler handler = load<space, Element, Register>;
};
struct LoadOneKind {
  template <Space, typename Element, typename Register>
  static constexpr Handler handler = load_one<Element, Register>;
};
struct StoreKind {
  template <Space space, typename Element, typename Register>
  static constexpr Handler handler = store<space, Element, Register>;
};

template <typename Kind, Space space, typename Element>
Handler by_register(int width) {
  switch (width) {
    case 16:
      if constexpr (sizeof(Element) <= 2) return Kind::template handler<space, Element, uint16_t>;
      return nullptr;
    case 32:
      if constexpr (sizeof(Element) <= 4) return Kind::template handler<space, Element, uint32_t>;
      return nullptr;
    case 64:
      return Kind::template handler<space, Element, uint64_t>;
    default:
      return nullptr;
  }
}

template <typename Kind, Space space>
Handler by_element(Type type, int width) {
  switch (bits_of(type)) {
    case 8:
      return is_signed(type) ? by_register<Kind, space, int8_t>(width)
                             : by_register<Kind, space, uint8_t>(width);
    case 16:
      return is_signed(type) ? by_register<Kind, space, int16_t>(width)
                             : by_register<Kind, space, uint16_t>(width);
    case 32:
      return is_signed(type) ? by_register<Kind, space, int32_t>(width)
                             : by_register<Kind, space, uint32_t>(width);
    case 64:
      return by_register<Kind, space, uint64_t>(width);
    default:
      return nullptr;
  }
}

template <typename Kind>
Handler handler_of(Space space, Type type, int width) {
  if (space == Space::global) return by_element<Kind, Space::global>(type, width);
  if (space == Space::shared) return by_element<Kind, Space::shared>(type, width);
  return by_element<Kind, Space::generic>(type, width);
}

void set_address(const Argument& argument, Names& names, Instruction& instruction) {
  if (argument.kind != Argument::Kind::address) names.refuse("an address is expected");
  const bool narrow = names.width(argument.text) == 32;
  instruction.operands[0] = names.source(argument.text, narrow ? Type::u32 : Type::u64);
  instruction.offset = argument.offset;
  instruction.detail[0] = narrow ? 32 : 64;
}

template <typename Kind>
void decode_access(const Statement& statement, const Argument& address, const Argument& values,
                   Names& names, Instruction& instruction) {
  const Type type = statement.type();
  const bool alone = values.kind != Argument::Kind::vector;
  const std::vector<std::string_view> elements =
      alone ? std::vector<std::string_view>{values.text} : values.elements;
  const int natural = std::max(bits_of(type), 16);
  int width = natural;
  for (const std::string_view element : elements) width = std::max(width, names.width(element));
  for (const std::string_view element : elements) {
    if (names.width(element) == width)
      instruction.many.push_back(names.register_of(element));
    else if (names.width(element) != 0)
      names.refuse("registers of several widths are not known here");
    else if (width == natural && element == "_")
      instruction.many.push_back(names.destination(element, type));
    else if (width == natural)
      instruction.many.push_back(names.source(element, type));
    else
      names.refuse("constants beside wider registers are not known here");
  }
  set_address(address, names, instruction);
  const Space space = space_of(statement);
  instruction.handler = handler_of<Kind>(space, type, width);
  if (std::is_same_v<Kind, LoadKind> && space == Space::generic && names.is_uniform(address.text))
    instruction.handler = by_element<LoadOneKind, Space::generic>(type, width);
  if (instruction.handler == nullptr) names.refuse("the type is not known here");
}

void decode_load(const Statement& statement, Names& names, Instruction& instruction) {
  decode_access<LoadKind>(statement, statement.arguments.at(1), statement.arguments.at(0), names,
                          instruction);
}

void decode_store(const Statement& statement, Names& names, Instruction& instruction) {
  if (statement.has("async")) return decode_async_store(statement, names, instruction);
  decode_access<StoreKind>(statement, statement.arguments.at(0), statement.arguments.at(1), names,
                           instruction);
}

// ---- atom, red: one thread after the other ----

struct Add {
  template <typename T>
  static T apply(T old, T value, T) {
    return static_cast<T>(old + value);
  }
};
struct Least {
  template <typename T>
  static T apply(T old, T value, T) {
    return std::min(old, value);
  }
};
struct Greatest {
  template <typename T>
  static T apply(T old, T value, T) {
    return std::max(old, value);
  }
};
struct And {
  template <typename T>
  static T apply(T old, T value, T) {
    return old & value;
  }
};
struct Or {
  template <typename T>
  static T apply(T old, T value, T) {
    return old | value;
  }
};
struct Xor {
  template <typename T>
  static T apply(T old, T value, T) {
    return old ^ value;
  }
};
struct Exchange {
  template <typename T>
  static T apply(T, T value, T) {
    return value;
  }
};
struct CompareAndSwap {
  template <typename T>
  static T apply(T old, T compare, T value) {
    return old == compare ? value : old;
  }
};

// operands: address, destination or none, value, second value or none.
template <Space space, typename T, typename Operation>
void atomic(Warp& warp, const Instruction& instruction, LaneMask active) {
  const T* value = warp.lanes<T>(instruction.operands[2]);
  const T* second =
      instruction.operands[3] == no_operand ? value : warp.lanes<T>(instruction.operands[3]);
  const Places<space> places(warp, instruction, sizeof(T), active, Access::atomic);
  for_lanes(active, [&](int lane) {
    std::byte* at = places[lane];
    T old;
    std::memcpy(&old, at, sizeof old);
    const T changed = Operation::apply(old, value[lane], second[lane]);
    std::memcpy(at, &changed, sizeof changed);
    if (instruction.operands[1] != no_operand) warp.lanes<T>(instruction.operands[1])[lane] = old;
  });
}

template <typename T, typename Operation>
Handler atomic_in(Space space) {
  switch (space) {
    case Space::global:
      return atomic<Space::global, T, Operation>;
    case Space::shared:
      return atomic<Space::shared, T, Operation>;
    default:
      return atomic<Space::generic, T, Operation>;
  }
}

template <typename T>
Handler atomic_of(const Statement& statement, Space space) {
  if (statement.has("add")) return atomic_in<T, Add>(space);
  if (statement.has("min")) return atomic_in<T, Least>(space);
  if (statement.has("max")) return atomic_in<T, Greatest>(space);
  if (statement.has("exch")) return atomic_in<T, Exchange>(space);
  if (statement.has("cas")) return atomic_in<T, CompareAndSwap>(space);
  if constexpr (std::is_integral_v<T>) {
    if (statement.has("and")) return atomic_in<T, And>(space);
    if (statement.has("or")) return atomic_in<T, Or>(space);
    if (statement.has("xor")) return atomic_in<T, Xor>(space);
  }
  return nullptr;
}

Handler atomic_by_type(const Statement& statement, Space space) {
  switch (statement.type()) {
    case Type::u32:
    case Type::b32:
      return atomic_of<uint32_t>(statement, space);
    case Type::s32:
      return atomic_of<int32_t>(statement, space);
    case Type::u64:
    case Type::b64:
      return atomic_of<uint64_t>(statement, space);
    case Type::s64:
      return atomic_of<int64_t>(statement, space);
    case Type::f32:
      return atomic_of<float>(statement, space);
    case Type::f64:
      return atomic_of<double>(statement, space);
    default:
      return nullptr;
  }
}

void decode_atomic(const Statement& statement, Names& names, Instruction& instruction) {
  const bool returns = statement.parts[0] == "atom";
  const Type type = statement.type();
  const size_t first = returns ? 1 : 0;
  set_address(statement.arguments.at(first), names, instruction);
  if (returns && statement.arguments[0].text != "_")
    instruction.operands[1] = names.destination(statement.arguments[0], type);
  instruction.operands[2] = names.source(statement.arguments.at(first + 1), type);
  if (statement.arguments.size() > first + 2)
    instruction.operands[3] = names.source(statement.arguments[first + 2], type);
  instruction.handler = atomic_by_type(statement, space_of(statement));
  if (instruction.handler == nullptr) names.refuse("the operation is not known here");
}

// ---- addresses ----

void copy_address(Warp& warp, const Instruction& instruction, LaneMask active) {
  uint64_t* to = warp.lanes<uint64_t>(instruction.operands[0]);
  const uint64_t* from = warp.lanes<uint64_t>(instruction.operands[1]);
  for_lanes(active, [&](int lane) { to[lane] = from[lane]; });
}

void generic_from_shared(Warp& warp, const Instruction& instruction, LaneMask active) {
  uint64_t* to = warp.lanes<uint64_t>(instruction.operands[0]);
  const uint64_t* from = warp.lanes<uint64_t>(instruction.operands[1]);
  for_lanes(active, [&](int lane) {
    to[lane] = reinterpret_cast<uint64_t>(
        warp.shared(static_cast<uint32_t>(from[lane]), 0, instruction, lane, Access::none));
  });
}

// The block and distance of a generic address of shared memory; a null block where it is none.
struct SharedPlace {
  const Block* block = nullptr;
  uint64_t offset = 0;
};

SharedPlace shared_place(const Warp& warp, uint64_t address) {
  for (const Block* block : warp.block().cluster->blocks) {
    const auto begin = reinterpret_cast<uint64_t>(block->shared);
    if (address >= begin && address - begin <= block->shared_bytes) return {block, address - begin};
  }
  return {};
}

void shared_from_generic(Warp& warp, const Instruction& instruction, LaneMask active) {
  uint64_t* to = warp.lanes<uint64_t>(instruction.operands[0]);
  const uint64_t* from = warp.lanes<uint64_t>(instruction.operands[1]);
  for_lanes(active, [&](int lane) {
    const SharedPlace place = shared_place(warp, from[lane]);
    if (place.block == nullptr) warp.fault(instruction, lane, "this is no shared memory");
    const bool own = place.block == &warp.block();
    to[lane] = place.offset + (own ? 0 : uint64_t{place.block->rank + 1} << Block::rank_shift);
  });
}

// PTX converts by cvta.to.X and cvta.X.
void decode_cvta(const Statement& statement, Names& names, Instruction& instruction) {
  if (statement.type() != Type::u64) names.refuse("only addresses of 64 bits are known here");
  instruction.operands = {names.destination(statement.arguments.at(0), Type::u64),
                          names.source(statement.arguments.at(1), Type::u64)};
  const bool shared = space_of(statement) == Space::shared;
  instruction.handler = !shared               ? copy_address
                        : statement.has("to") ? shared_from_generic
                                              : generic_from_shared;
}

// operands: destination, address in shared memory, rank of a block of the cluster.
void map_shared(Warp& warp, const Instruction& instruction, LaneMask active) {
  uint32_t* to = warp.lanes<uint32_t>(instruction.operands[0]);
  const uint32_t* from = warp.lanes<uint32_t>(instruction.operands[1]);
  const uint32_t* rank = warp.lanes<uint32_t>(instruction.operands[2]);
  constexpr uint32_t offset = (uint32_t{1} << Block::rank_shift) - 1;
  for_lanes(active, [&](int lane) {
    to[lane] = (from[lane] & offset) | (rank[lane] + 1) << Block::rank_shift;
    warp.shared(to[lane], 0, instruction, lane, Access::none);
  });
}

void map_generic(Warp& warp, const Instruction& instruction, LaneMask active) {
  uint64_t* to = warp.lanes<uint64_t>(instruction.operands[0]);
  const uint64_t* from = warp.lanes<uint64_t>(instruction.operands[1]);
  const uint32_t* rank = warp.lanes<uint32_t>(instruction.operands[2]);
  const auto& blocks = warp.block().cluster->blocks;
  for_lanes(active, [&](int lane) {
    const SharedPlace place = shared_place(warp, from[lane]);
    if (place.block == nullptr || rank[lane] >= blocks.size())
      warp.fault(instruction, lane, "this is no shared memory, or no block of the cluster");
    to[lane] = reinterpret_cast<uint64_t>(blocks[rank[lane]]->shared) + place.offset;
  });
}

void decode_mapa(const Statement& statement, Names& names, Instruction& instruction) {
  const Type type = statement.type();
  instruction.operands = {names.destination(statement.arguments.at(0), type),
                          names.source(statement.arguments.at(1), type),
                          names.source(statement.arguments.at(2), Type::u32)};
  instruction.handler = type == Type::u32 ? map_shared : map_generic;
}

void do_nothing(Warp&, const Instruction&, LaneMask) {}

void decode_prefetch(const Statement&, Names&, Instruction& instruction) {
  instruction.handler = do_nothing;
}

}  // namespace

const Decoders& memory_decoders() {
  static const Decoders decoders = {{"ld", decode_load},          {"st", decode_store},
                                    {"atom", decode_atomic},      {"red", decode_atomic},
                                    {"cvta", decode_cvta},        {"mapa", decode_mapa},
                                    {"prefetch", decode_prefetch}};
  return decoders;
}

}  // namespace qnext::emulator
