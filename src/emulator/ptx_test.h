// Runs a few lines of PTX on the emulator: what the tests of instructions are made of.
//
// The body finds input i of its thread in %in<i> and leaves output i in %out<i>, both .b64. It may
// use %p<32>, %rs<64>, %r<128>, %f<128>, %rd<64> and %fd<64>, %base (the number of its thread in
// the grid, .b32), and declare more. To read half of an input: cvt.u32.u64 %r0, %in0.
#pragma once

#include <fmt/format.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <numeric>
#include <string>
#include <string_view>
#include <vector>

#include "emulator/block.h"
#include "emulator/device_memory.h"
#include "emulator/machine.h"
#include "emulator/module.h"

namespace qnext::emulator {

// [i][thread]
using Words = std::vector<std::vector<uint64_t>>;

struct PtxTest {
  std::string_view body;
  std::string_view declarations = {};  // of the module: .extern .shared, .global
  uint32_t threads = 32;               // of a block
  uint32_t blocks = 1;
  uint32_t cluster = 1;
  size_t dynamic_shared_bytes = 0;
  uint32_t seed = 1;
  RaceCheck race_check = RaceCheck::none;
};

inline std::string ptx_of(const PtxTest& test, size_t inputs, size_t outputs) {
  const uint64_t column = uint64_t{test.threads} * test.blocks * 8;
  std::string text = fmt::format(
      ".version 9.0\n.target sm_90a\n.address_size 64\n\n{}\n"
      ".entry test(\n.param .u64 test_param_0,\n.param .u64 test_param_1\n)\n{{\n"
      ".reg .pred %p<32>;\n.reg .b16 %rs<64>;\n.reg .b32 %r<128>;\n.reg .f32 %f<128>;\n"
      ".reg .b64 %rd<64>;\n.reg .f64 %fd<64>;\n"
      ".reg .b64 %in<{}>;\n.reg .b64 %out<{}>;\n.reg .b64 %place<4>;\n.reg .b32 %base;\n"
      ".reg .b32 %block<3>;\n\n"
      "mov.u32 %block0, %ctaid.x;\nmov.u32 %block1, %ntid.x;\nmov.u32 %block2, %tid.x;\n"
      "mad.lo.s32 %base, %block0, %block1, %block2;\nmul.wide.u32 %place0, %base, 8;\n"
      "ld.param.u64 %place1, [test_param_0];\nld.param.u64 %place2, [test_param_1];\n"
      "add.s64 %place1, %place1, %place0;\nadd.s64 %place2, %place2, %place0;\n",
      test.declarations, inputs + 1, outputs + 1);
  for (size_t i = 0; i < inputs; ++i) {
    text += fmt::format("ld.global.u64 %in{}, [%place1+{}];\n", i, i * column);
  }
  text += fmt::format("\n{}\n\n", test.body);
  for (size_t i = 0; i < outputs; ++i) {
    text += fmt::format("st.global.u64 [%place2+{}], %out{};\n", i * column, i);
  }
  return text + "ret;\n\n}\n";
}

// The outputs of all threads. Inputs shorter than the grid are filled up with zeros; what a thread
// does not store (it left early) stays all ones.
inline Words run_ptx(const PtxTest& test, const Words& inputs, size_t outputs) {
  const size_t threads = size_t{test.threads} * test.blocks;
  DeviceMemory& memory = device_memory();
  // One word more: no allocation is empty.
  std::byte* in = memory.allocate((inputs.size() * threads + 1) * 8);
  std::byte* out = memory.allocate((outputs * threads + 1) * 8);
  for (size_t i = 0; i < inputs.size(); ++i) {
    std::vector<uint64_t> column = inputs[i];
    column.resize(threads);
    std::memcpy(in + i * threads * 8, column.data(), threads * 8);
  }
  Module module(ptx_of(test, inputs.size(), outputs));
  Launch launch;
  launch.kernel = &module.kernel("test");
  launch.grid.x = test.blocks;
  launch.block.x = test.threads;
  launch.cluster.x = test.cluster;
  launch.dynamic_shared_bytes = test.dynamic_shared_bytes;
  launch.race_check = test.race_check;
  launch.parameters.resize(16);
  const uint64_t addresses[2] = {reinterpret_cast<uint64_t>(in), reinterpret_cast<uint64_t>(out)};
  std::memcpy(launch.parameters.data(), addresses, sizeof(addresses));
  const auto release = [&] {
    memory.release(in);
    memory.release(out);
  };
  try {
    run(launch, test.seed);
  } catch (...) {
    release();
    throw;
  }
  Words result(outputs, std::vector<uint64_t>(threads));
  for (size_t i = 0; i < outputs; ++i) {
    std::memcpy(result[i].data(), out + i * threads * 8, threads * 8);
  }
  release();
  return result;
}

// first, first + 1, ...
inline std::vector<uint64_t> counted(size_t count, uint64_t first = 0) {
  std::vector<uint64_t> values(count);
  std::iota(values.begin(), values.end(), first);
  return values;
}

// PTX that waits until the phase of that parity is over. Names of waits in one kernel differ.
inline std::string wait(std::string_view name, std::string_view address, std::string_view parity) {
  return fmt::format(
      "{{\n.reg .pred done;\n{0}_retry:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [{1}], {2};\n"
      "@done bra {0}_over;\nbra {0}_retry;\n{0}_over:\n}}\n",
      name, address, parity);
}

}  // namespace qnext::emulator
