# Language level, warnings, sanitizers, compiler cache and linker: the same for every target.

set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_CXX_FLAGS_RELWITHDEBINFO "-O2 -g1")
# -O1 keeps sanitized tests of numeric kernels within minutes.
set(CMAKE_CXX_FLAGS_DEBUG "-O1 -g1")

# -ffp-contract=off: a sum is fused where the source says so (std::fma, intrinsics) and nowhere
# else, so that every ISA and every build gives the bits that the contract promises.
add_compile_options(
  "$<$<COMPILE_LANGUAGE:C,CXX>:-Wall;-Wextra;-Wpedantic;-Wshadow;-Wconversion;-Wno-sign-conversion;-Werror;-ffp-contract=off>")

if(QNEXT_SANITIZE)
  add_compile_options(-fsanitize=${QNEXT_SANITIZE} -fno-omit-frame-pointer
                      -fno-sanitize-recover=all)
  add_link_options(-fsanitize=${QNEXT_SANITIZE})
endif()
if(QNEXT_FUZZ)
  add_compile_options(-fsanitize=fuzzer-no-link)
elseif(QNEXT_SANITIZE MATCHES undefined)
  # A quarter of the time that such a build takes: AddressSanitizer stops at null as well, and vptr
  # has each file compile every virtual function that it sees. The fuzz targets keep both.
  add_compile_options(-fno-sanitize=null,vptr)
endif()

# Parses and sends rather than computes: with AddressSanitizer, optimising is half of what its files
# cost, Asio's most of all.
function(qnext_compile_quickly target)
  if(QNEXT_SANITIZE MATCHES address)
    target_compile_options(${target} PRIVATE -O0)
  endif()
endfunction()

find_program(QNEXT_CCACHE ccache)
if(QNEXT_CCACHE)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${QNEXT_CCACHE})
endif()
find_program(QNEXT_MOLD mold)
if(QNEXT_MOLD)
  add_link_options(-fuse-ld=mold)
endif()
