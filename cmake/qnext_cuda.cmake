# The CUDA build. Without QNEXT_CUDA nothing here leaves a trace: no language, no target, no flag.

option(QNEXT_CUDA "Build the CUDA backend (needs the CUDA 13 toolkit)" OFF)

if(QNEXT_CUDA)
  # The a: with the instructions that only this architecture has (wgmma).
  set(CMAKE_CUDA_ARCHITECTURES 90a CACHE STRING "GPU architectures")
  set(CMAKE_CUDA_RUNTIME_LIBRARY Static)
  enable_language(CUDA)
  find_package(CUDAToolkit REQUIRED)
  # CMake 3.25 does not know that nvcc takes C++20.
  if(NOT DEFINED CMAKE_CUDA20_STANDARD_COMPILE_OPTION)
    set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION "-std=c++20")
  endif()
  set(CMAKE_CUDA_STANDARD 20)
  set(CMAKE_CUDA_STANDARD_REQUIRED ON)
  set(CMAKE_CUDA_EXTENSIONS OFF)
  # --fmad=false: as -ffp-contract=off, a sum is fused where the source says fmaf and nowhere else.
  add_compile_options(
    "$<$<COMPILE_LANGUAGE:CUDA>:--fmad=false;-Werror=all-warnings;-Xcompiler=-Wall,-Wextra,-ffp-contract=off>")
  # A binary runs on a machine with another compiler's runtime, or none.
  add_link_options(-static-libgcc -static-libstdc++ -Wl,--as-needed)
endif()

# qnext_cuda_sources(TARGET SOURCES...): .cu files of a CUDA target; ignored without QNEXT_CUDA.
function(qnext_cuda_sources target)
  if(QNEXT_CUDA)
    target_sources(${target} PRIVATE ${ARGN})
  endif()
endfunction()

# qnext_cuda_test(NAME SOURCES ... [DEPENDS ...] [EMULATED filter]): two GoogleTest programs of the
# same objects, which are the target NAME_objects. NAME is for a machine with a GPU; ctest knows it
# only where there is one. Shared libraries may lie beside it. NAME_emulated, where there is zstd, runs
# its kernels on src/emulator; ctest knows those of its tests that the filter, one of --gtest_filter,
# lets through. It takes --check_races, --list_races and --seed N besides.
function(qnext_cuda_test name)
  if(NOT QNEXT_CUDA OR NOT QNEXT_TESTS)
    return()
  endif()
  cmake_parse_arguments(arg "" "EMULATED" "SOURCES;DEPENDS" ${ARGN})
  add_library(${name}_objects OBJECT ${arg_SOURCES})
  target_compile_definitions(${name}_objects PRIVATE QNEXT_SOURCE_DIR="${CMAKE_SOURCE_DIR}")
  target_link_libraries(${name}_objects
    PUBLIC ${arg_DEPENDS} GTest::gtest GTest::gmock GTest::gtest_main)

  add_executable(${name})
  target_link_libraries(${name} PRIVATE ${name}_objects)
  set_target_properties(${name} PROPERTIES BUILD_RPATH "$ORIGIN")
  if(EXISTS /dev/nvidiactl)
    add_test(NAME ${name} COMMAND ${name})
  endif()

  if(NOT TARGET qnext_emulator)
    return()
  endif()
  # All of the emulator, and first: whatever it has, no linker takes from libcudart. What it lacks
  # brings in libcudart's one object, whose other functions are then defined twice: an error.
  add_executable(${name}_emulated ${CMAKE_SOURCE_DIR}/src/emulator/test_main.cpp)
  target_link_libraries(${name}_emulated
    PRIVATE $<LINK_LIBRARY:WHOLE_ARCHIVE,qnext_emulator> ${name}_objects)
  if(arg_EMULATED)
    gtest_discover_tests(${name}_emulated TEST_PREFIX emulated. TEST_FILTER "${arg_EMULATED}"
      DISCOVERY_TIMEOUT 60 PROPERTIES TIMEOUT 600)
  endif()
endfunction()
