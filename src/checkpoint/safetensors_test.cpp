#include "checkpoint/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

#include "base/error.h"
#include "checkpoint/temporary_folder.h"

namespace qnext {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

std::string length_prefix(uint64_t length) {
  std::string out(8, '\0');
  for (size_t i = 0; i < 8; ++i) out[i] = static_cast<char>(length >> (8 * i));
  return out;
}

std::string file_with(const std::string& header, size_t data_bytes) {
  return length_prefix(header.size()) + header + std::string(data_bytes, 'x');
}

SafetensorsHeader parse(const std::string& bytes) {
  return parse_safetensors_header(std::as_bytes(std::span(bytes)), "bad.safetensors");
}

// One tensor "t" with the given fields after its name.
std::string entry(const std::string& fields) {
  return "{\"t\": {" + fields + "}}";
}

void expect_error(const std::string& bytes, const std::string& part) {
  EXPECT_THAT([&] { parse(bytes); },
              ThrowsMessage<Error>(AllOf(HasSubstr("bad.safetensors: "), HasSubstr(part))))
      << bytes;
}

TEST(SafetensorsHeader, ReadsTensorsInNameOrder) {
  const std::string bytes = file_with(
      R"({"__metadata__": {"format": "pt"},
          "z": {"dtype": "BF16", "shape": [2, 3], "data_offsets": [0, 12]},
          "a": {"dtype": "F32", "shape": [], "data_offsets": [12, 16]},
          "m": {"dtype": "I64", "shape": [0, 5], "data_offsets": [16, 16]}})",
      16);
  const SafetensorsHeader header = parse(bytes);
  ASSERT_EQ(header.tensors.size(), 3u);
  EXPECT_EQ(header.metadata.at("format"), "pt");
  EXPECT_EQ(header.tensors[0].name, "a");
  EXPECT_EQ(header.tensors[0].elements(), 1);
  EXPECT_EQ(header.tensors[1].elements(), 0);
  const StoredTensor& z = header.tensors[2];
  EXPECT_EQ(z.dtype, DType::bf16);
  EXPECT_THAT(z.shape, ElementsAre(2, 3));
  EXPECT_EQ(z.bytes, 12u);
  EXPECT_EQ(z.offset, bytes.size() - 16);
  EXPECT_EQ(static_cast<const void*>(z.data), bytes.data() + z.offset);
}

TEST(SafetensorsHeader, KnowsEverySupportedDtype) {
  const std::pair<const char*, size_t> dtypes[] = {{"F32", 4},     {"F16", 2}, {"BF16", 2},
                                                   {"F8_E4M3", 1}, {"I32", 4}, {"I64", 8},
                                                   {"U8", 1},      {"BOOL", 1}};
  for (const auto& [name, size] : dtypes) {
    const std::string bytes =
        file_with(entry(fmt::format(R"("dtype": "{}", "shape": [3], "data_offsets": [0, {}])", name,
                                    3 * size)),
                  3 * size);
    EXPECT_EQ(dtype_name(parse(bytes).tensors.at(0).dtype), name);
  }
}

TEST(SafetensorsHeader, RefusesBadFraming) {
  expect_error("", "0 bytes are too few for a safetensors file");
  expect_error("1234567", "7 bytes are too few");
  expect_error(length_prefix(3) + "{}", "header is 3 bytes long, but only 2 bytes follow");
  expect_error(length_prefix(100'000'001), "header would be 100000001 bytes long");
  expect_error(length_prefix(~uint64_t{0}), "header would be 18446744073709551615 bytes long");
  expect_error(file_with("", 0), "header is not valid JSON");
  expect_error(file_with("{\"a\": ", 0), "header is not valid JSON");
  expect_error(file_with("[1, 2]", 0), "header is not a JSON object");
  expect_error(file_with("{}", 5), "the last 5 bytes of the file belong to no tensor");
}

TEST(SafetensorsHeader, RefusesBadMetadata) {
  expect_error(file_with(R"({"__metadata__": 3})", 0), "__metadata__ is not an object");
  expect_error(file_with(R"({"__metadata__": {"k": 3}})", 0), "__metadata__ \"k\" is not a string");
}

TEST(SafetensorsHeader, RefusesBadFields) {
  const auto bad = [](const std::string& fields, const std::string& part) {
    expect_error(file_with(entry(fields), 8), "tensor t: " + part);
  };
  expect_error(file_with(R"({"t": 1})", 8), "tensor t: its entry is not an object");
  bad(R"("shape": [2], "data_offsets": [0, 8])", "it has no dtype");
  bad(R"("dtype": 1, "shape": [2], "data_offsets": [0, 8])", "it has no dtype");
  bad(R"("dtype": "F64", "shape": [1], "data_offsets": [0, 8])", "its dtype F64 is not supported");
  bad(R"("dtype": "Q8_0", "shape": [1], "data_offsets": [0, 8])",
      "its dtype Q8_0 is not supported");
  bad(R"("dtype": "F32", "data_offsets": [0, 8])", "it has no shape");
  bad(R"("dtype": "F32", "shape": 2, "data_offsets": [0, 8])", "it has no shape");
  bad(R"("dtype": "F32", "shape": [2])", "it has no data_offsets");
  bad(R"("dtype": "F32", "shape": [2], "data_offsets": [0])",
      "its data_offsets are not two offsets");
  bad(R"("dtype": "F32", "shape": [2], "data_offsets": [0, 8, 8])", "its data_offsets are not two");
  bad(R"("dtype": "F32", "shape": [2], "data_offsets": [-8, 0])", "its data_offsets are not two");
  bad(R"("dtype": "F32", "shape": [2], "data_offsets": ["0", 8])", "its data_offsets are not two");
}

TEST(SafetensorsHeader, RefusesBadShapes) {
  const auto bad = [](const std::string& shape, const std::string& part) {
    expect_error(
        file_with(entry(R"("dtype": "F32", "data_offsets": [0, 8], "shape": )" + shape), 8),
        "tensor t: " + part);
  };
  bad("[2, -1]", "dimension 1 of its shape is -1, not a size");
  bad("[2.5]", "dimension 0 of its shape is 2.5, not a size");
  bad("[true]", "dimension 0 of its shape is true, not a size");
  bad("[18446744073709551615]", "dimension 0 of its shape is 18446744073709551615, not a size");
  bad("[9223372036854775807, 2]", "its shape [9223372036854775807, 2] is too large");
  // 2^62 * 4 bytes wraps to 0, and a zero dimension must not hide it.
  bad("[4611686018427387904]", "its shape [4611686018427387904] is too large");
  bad("[4611686018427387904, 0]", "its shape [4611686018427387904, 0] is too large");
  bad("[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,2]", "it has more than 16 dimensions");
  bad("[3]", "F32 [3] needs 12 bytes, but its data_offsets span 8");
  bad("[1]", "F32 [1] needs 4 bytes, but its data_offsets span 8");
}

TEST(SafetensorsHeader, RefusesBadOffsets) {
  expect_error(file_with(entry(R"("dtype": "U8", "shape": [8], "data_offsets": [8, 0])"), 8),
               "tensor t: its data ends at 0, before its begin 8");
  expect_error(file_with(entry(R"("dtype": "U8", "shape": [8], "data_offsets": [0, 8])"), 7),
               "tensor t: its data ends at 8, but the file holds 7 bytes of data");
  const auto two = [](const std::string& a, const std::string& b) {
    return R"({"a": {"dtype": "U8", "shape": [4], "data_offsets": )" + a +
           R"(}, "b": {"dtype": "U8", "shape": [4], "data_offsets": )" + b + "}}";
  };
  expect_error(file_with(two("[0, 4]", "[3, 7]"), 7), "tensor b: its data overlaps");
  expect_error(file_with(two("[0, 4]", "[0, 4]"), 4), "its data overlaps");
  expect_error(file_with(two("[0, 4]", "[6, 10]"), 10), "tensor b: 2 bytes before its data belong");
  expect_error(file_with(two("[0, 4]", "[4, 8]"), 9), "the last 1 bytes of the file belong to no");
}

TEST(SafetensorsHeader, RefusesRepeatedNames) {
  expect_error(file_with(R"({"t": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]},
                             "t": {"dtype": "U8", "shape": [1], "data_offsets": [1, 2]}})",
                         2),
               "tensor t: its name appears twice");
}

TEST(SafetensorsHeader, ErrorsStayOnOneLine) {
  expect_error(file_with(R"({"a\n\u0000b": 1})", 0), "tensor a\\n\\u0000b: its entry is");
  expect_error(file_with("{\"" + std::string(100000, 'n') + "\": 1}", 0),
               std::string(200, 'n') + "...: its entry is");
}

TEST(SafetensorsFile, FindsTensorsByName) {
  TemporaryFolder folder;
  write_file(folder / "a.safetensors",
             file_with(entry(R"("dtype": "U8", "shape": [2], "data_offsets": [0, 2])"), 2));
  const SafetensorsFile file(folder / "a.safetensors");
  EXPECT_EQ(std::memcmp(file.get("t").data, "xx", 2), 0);
  EXPECT_EQ(file.find("u"), nullptr);
  EXPECT_THAT([&] { file.get("u"); }, ThrowsMessage<Error>(HasSubstr("it has no tensor u")));
}

TEST(SafetensorsFile, RefusesAnEmptyFile) {
  TemporaryFolder folder;
  write_file(folder / "a.safetensors", "");
  EXPECT_THAT([&] { SafetensorsFile file(folder / "a.safetensors"); },
              ThrowsMessage<Error>(HasSubstr("a.safetensors: 0 bytes are too few")));
}

}  // namespace
}  // namespace qnext
