# Three verbs that every folder uses. Sources are listed by name, never globbed.

# qnext_library(NAME SOURCES ... [DEPENDS ...]): the static library qnext_NAME of one folder.
function(qnext_library name)
  cmake_parse_arguments(arg "" "" "SOURCES;DEPENDS" ${ARGN})
  add_library(qnext_${name} STATIC ${arg_SOURCES})
  target_include_directories(qnext_${name} PUBLIC ${CMAKE_SOURCE_DIR}/src)
  target_link_libraries(qnext_${name} PUBLIC ${arg_DEPENDS})
endfunction()

# qnext_test(NAME SOURCES ... [DEPENDS ...]): a GoogleTest program, found by ctest case by case.
function(qnext_test name)
  if(NOT QNEXT_TESTS)
    return()
  endif()
  cmake_parse_arguments(arg "" "" "SOURCES;DEPENDS" ${ARGN})
  add_executable(${name} ${arg_SOURCES})
  target_compile_definitions(${name} PRIVATE QNEXT_SOURCE_DIR="${CMAKE_SOURCE_DIR}")
  target_link_libraries(${name} PRIVATE ${arg_DEPENDS} GTest::gtest GTest::gmock GTest::gtest_main)
  gtest_discover_tests(${name} DISCOVERY_TIMEOUT 60 PROPERTIES TIMEOUT 600)
endfunction()

# qnext_benchmark(NAME SOURCES ... [DEPENDS ...]): a Google Benchmark program; never run by ctest.
function(qnext_benchmark name)
  if(NOT QNEXT_BENCHMARKS)
    return()
  endif()
  cmake_parse_arguments(arg "" "" "SOURCES;DEPENDS" ${ARGN})
  add_executable(${name} ${arg_SOURCES})
  target_link_libraries(${name} PRIVATE ${arg_DEPENDS} benchmark::benchmark benchmark::benchmark_main)
endfunction()

# qnext_fuzz(NAME SOURCES ... [DEPENDS ...]): a libFuzzer program.
function(qnext_fuzz name)
  if(NOT QNEXT_FUZZ)
    return()
  endif()
  cmake_parse_arguments(arg "" "" "SOURCES;DEPENDS" ${ARGN})
  add_executable(${name} ${arg_SOURCES})
  target_link_libraries(${name} PRIVATE ${arg_DEPENDS})
  target_link_options(${name} PRIVATE -fsanitize=fuzzer)
endfunction()

# qnext_isa_flags(ISA [TARGET t] SOURCES ...): files of the current folder, sources of target t
# (qnext_ops unless told), compiled for one instruction set.
# Such a file may include only <immintrin.h>, C headers and headers whose functions are all
# declared static or sit in an unnamed namespace: an inline function shared with other files could
# be emitted here with wide instructions and picked by the linker for everyone.
function(qnext_isa_flags isa)
  cmake_parse_arguments(arg "" "TARGET" "SOURCES" ${ARGN})
  if(NOT arg_TARGET)
    set(arg_TARGET qnext_ops)
  endif()
  if(isa STREQUAL "avx2")
    set(flags "-mavx2;-mfma;-mf16c;-mbmi2")
  elseif(isa STREQUAL "avx512")
    set(flags
        "-mavx2;-mfma;-mf16c;-mbmi2;-mavx512f;-mavx512bw;-mavx512dq;-mavx512vl;-mavx512vnni;-mprefer-vector-width=512")
    if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
      # GCC 12 finds fault with its own _mm512_undefined_*().
      list(APPEND flags -Wno-maybe-uninitialized -Wno-uninitialized)
    endif()
  else()
    message(FATAL_ERROR "unknown instruction set ${isa}")
  endif()
  # Source properties are seen in one directory only: the target's, not this one.
  set_source_files_properties(${arg_SOURCES} TARGET_DIRECTORY ${arg_TARGET}
                              PROPERTIES COMPILE_OPTIONS "${flags}")
endfunction()
