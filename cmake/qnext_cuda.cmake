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

# qnext_cuda_test(NAME SOURCES ... [DEPENDS ...]): a GoogleTest program for a machine with a GPU;
# ctest knows it only where there is one. Shared libraries may lie beside it.
function(qnext_cuda_test name)
  if(NOT QNEXT_CUDA OR NOT QNEXT_TESTS)
    return()
  endif()
  cmake_parse_arguments(arg "" "" "SOURCES;DEPENDS" ${ARGN})
  add_executable(${name} ${arg_SOURCES})
  target_compile_definitions(${name} PRIVATE QNEXT_SOURCE_DIR="${CMAKE_SOURCE_DIR}")
  target_link_libraries(${name} PRIVATE ${arg_DEPENDS} GTest::gtest GTest::gmock GTest::gtest_main)
  set_target_properties(${name} PROPERTIES BUILD_RPATH "$ORIGIN")
  if(EXISTS /dev/nvidiactl)
    add_test(NAME ${name} COMMAND ${name})
  endif()
endfunction()
