#include "checkpoint/gguf.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "base/file.h"
#include "checkpoint/temporary_folder.h"
#include "checkpoint/testing/gguf_writer.h"

namespace qnext {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using testing::GgufWriter;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

GgufHeader parse(const std::string& bytes) {
  return parse_gguf_header(std::as_bytes(std::span(bytes.data(), bytes.size())), "x.gguf");
}

// The error names the file and says this.
void expect_error(const std::string& bytes, const std::string& part) {
  EXPECT_THAT([&] { parse(bytes); },
              ThrowsMessage<Error>(AllOf(HasSubstr("x.gguf: "), HasSubstr(part))));
}

template <typename Number>
std::string raw(Number number) {
  return GgufBytes().number(number).bytes();
}

// Offsets of the fields of the head.
constexpr size_t version_at = 4, tensor_count_at = 8, metadata_count_at = 16;

std::string with_number(std::string bytes, size_t at, uint64_t value, size_t size) {
  std::memcpy(bytes.data() + at, &value, size);
  return bytes;
}

GgufWriter two_tensors() {
  GgufWriter writer;
  writer.add("general.architecture", "qwen3next");
  writer.add_tensor("b", DType::f32, {2, 3}, std::string(24, 'b'));
  writer.add_tensor("a", DType::q8_0, {2, 64}, std::string(4 * 34, 'a'));
  return writer;
}

TEST(Gguf, ReadsTensorsInNameOrderWithRowMajorShapes) {
  const std::string bytes = two_tensors().bytes();
  const GgufHeader header = parse(bytes);
  ASSERT_EQ(header.tensors.size(), 2u);
  const StoredTensor& a = header.tensors[0];
  const StoredTensor& b = header.tensors[1];
  EXPECT_EQ(a.name, "a");
  EXPECT_EQ(a.dtype, DType::q8_0);
  EXPECT_THAT(a.shape, ElementsAre(2, 64));
  EXPECT_EQ(a.bytes, 4u * 34);
  EXPECT_EQ(static_cast<char>(a.data[a.bytes - 1]), 'a');
  EXPECT_EQ(reinterpret_cast<const char*>(a.data), bytes.data() + a.offset);
  EXPECT_EQ(a.offset % 32, 0u);
  EXPECT_THAT(b.shape, ElementsAre(2, 3));
  EXPECT_EQ(static_cast<char>(b.data[0]), 'b');
}

TEST(Gguf, ReadsMetadataOfEveryType) {
  GgufWriter writer;
  writer.add("u8", GgufType::u8, raw(uint8_t{200}));
  writer.add("i8", GgufType::i8, raw(int8_t{-2}));
  writer.add("u16", GgufType::u16, raw(uint16_t{60000}));
  writer.add("i16", GgufType::i16, raw(int16_t{-3}));
  writer.add("u32", GgufType::u32, raw(uint32_t{4000000000}));
  writer.add("i32", GgufType::i32, raw(int32_t{-4}));
  writer.add("u64", GgufType::u64, raw(uint64_t{1} << 62));
  writer.add("i64", GgufType::i64, raw(int64_t{-5}));
  writer.add("f32", 0.5f);
  writer.add("f64", GgufType::f64, raw(0.25));
  writer.add("yes", true);
  writer.add("text", "a\nb");
  writer.add("texts", std::vector<std::string>{"x", "", "yz"});
  writer.add("integers", std::vector<int32_t>{7, -8});
  writer.add("flags", GgufType::array,
             GgufWriter::array_head(GgufType::boolean, 2).append(std::string("\1\0", 2)).bytes());
  writer.add("nested", GgufType::array,
             GgufWriter::array_head(GgufType::array, 1)
                 .append(GgufWriter::array_head(GgufType::f32, 1).number(1.5f).bytes())
                 .bytes());
  const std::string bytes = writer.bytes();
  const GgufHeader header = parse(bytes);
  const GgufMetadata& metadata = header.metadata;
  EXPECT_EQ(metadata.integer("u8"), 200);
  EXPECT_EQ(metadata.integer("i8"), -2);
  EXPECT_EQ(metadata.integer("u16"), 60000);
  EXPECT_EQ(metadata.integer("i16"), -3);
  EXPECT_EQ(metadata.integer("u32"), 4000000000);
  EXPECT_EQ(metadata.integer("i32"), -4);
  EXPECT_EQ(metadata.integer("u64"), int64_t{1} << 62);
  EXPECT_EQ(metadata.integer("i64"), -5);
  EXPECT_EQ(metadata.number("f32"), 0.5);
  EXPECT_EQ(metadata.number("f64"), 0.25);
  EXPECT_EQ(metadata.number("u8"), 200);
  EXPECT_EQ(metadata.find_boolean("yes"), true);
  EXPECT_EQ(metadata.string("text"), "a\nb");
  EXPECT_THAT(metadata.strings("texts"), ElementsAre("x", "", "yz"));
  EXPECT_THAT(*metadata.find_integers("integers"), ElementsAre(7, -8));
  EXPECT_THAT(*metadata.find_integers("flags"), ElementsAre(1, 0));
  const auto& nested = std::get<GgufArray>(*metadata.find("nested"));
  EXPECT_EQ(std::get<double>(nested.arrays.at(0).scalar(0)), 1.5);
  EXPECT_EQ(metadata.find_integer("absent"), std::nullopt);
  EXPECT_EQ(metadata.entries().size(), 16u);
}

TEST(Gguf, LookUpsNameTheKeyAndBothKinds) {
  GgufWriter writer;
  writer.add("text", "x");
  writer.add("large", GgufType::u64, raw(~uint64_t{0}));
  const std::string bytes = writer.bytes();
  const GgufMetadata metadata = parse(bytes).metadata;
  const auto message = [&](auto&& look_up) {
    try {
      look_up();
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_EQ(message([&] { metadata.find_integer("text"); }),
            "x.gguf: metadata text must be an integer, not text");
  EXPECT_EQ(message([&] { metadata.find_strings("large"); }),
            "x.gguf: metadata large must be an array of text, not an integer");
  EXPECT_EQ(message([&] { metadata.integer("absent"); }), "x.gguf: metadata absent is missing");
  EXPECT_THAT(message([&] { metadata.integer("large"); }), HasSubstr("out of range"));
}

TEST(Gguf, RefusesOtherFiles) {
  const std::string good = two_tensors().bytes();
  expect_error("", "does not begin with \"GGUF\"");
  expect_error("GGU", "does not begin with \"GGUF\"");
  expect_error("GGJT" + good.substr(4), "does not begin with \"GGUF\"");
  expect_error(with_number(good, version_at, 1, 4), "version 1");
  expect_error(with_number(good, version_at, 4, 4), "version 4");
  expect_error(with_number(good, version_at, 0x03000000, 4), "big-endian");
  EXPECT_EQ(parse(with_number(good, version_at, 2, 4)).tensors.size(), 2u);
}

// Whatever is cut off is missed, and so are counts that claim more than there is.
TEST(Gguf, RefusesEveryShorterFileAndLargerCount) {
  GgufWriter writer = two_tensors();
  writer.add("texts", std::vector<std::string>{"x", "yz"});
  writer.add("last", true);
  const std::string good = writer.bytes();
  const std::string data_end = good.substr(0, good.size() - (32 - 4 * 34 % 32));
  EXPECT_EQ(parse(data_end).tensors.size(), 2u);  // the padding behind the last is not missed
  for (size_t size = 0; size < data_end.size(); ++size)
    EXPECT_THROW(parse(good.substr(0, size)), Error) << size;
  for (const uint64_t count : {uint64_t{3}, uint64_t{1} << 32, ~uint64_t{0}}) {
    expect_error(with_number(good, tensor_count_at, count, 8), "");
    expect_error(with_number(good, metadata_count_at, count + 1, 8), "");
  }
}

TEST(Gguf, RefusesBadMetadata) {
  const auto with = [](GgufType type, const std::string& value) {
    GgufWriter writer;
    writer.add("key", type, value);
    return writer.bytes();
  };
  expect_error(with(static_cast<GgufType>(13), raw(1)), "metadata key has a value of the unknown");
  expect_error(with(GgufType::boolean, raw(uint8_t{2})), "neither 0 nor 1");
  expect_error(with(GgufType::string, raw(uint64_t{1} << 40)), "metadata key has a text of");
  for (const GgufType item : {GgufType::u8, GgufType::f64, GgufType::string, GgufType::array})
    expect_error(with(GgufType::array, GgufWriter::array_head(item, ~size_t{0}).bytes()),
                 "metadata key has 18446744073709551615 items");
  expect_error(with(GgufType::array, GgufWriter::array_head(GgufType(99), 0).bytes()),
               "unknown type 99");
  expect_error(
      with(GgufType::array, GgufWriter::array_head(GgufType::boolean, 1).append("\x05").bytes()),
      "neither 0 nor 1");
  std::string deep;
  for (int i = 0; i < 100; ++i) deep += GgufWriter::array_head(GgufType::array, 1).bytes();
  expect_error(with(GgufType::array, deep), "arrays in arrays");

  GgufWriter twice;
  twice.add("key", true);
  twice.add("key", true);
  expect_error(twice.bytes(), "metadata key appears twice");
  GgufWriter empty;
  empty.add("", true);
  expect_error(empty.bytes(), "metadata key 0 is empty");
  for (const uint32_t alignment : {0u, 24u, 1u << 30}) {
    GgufWriter writer;
    writer.add("general.alignment", alignment);
    expect_error(writer.bytes(), "general.alignment");
  }
  GgufWriter text;
  text.add("general.alignment", "32");
  expect_error(text.bytes(), "metadata general.alignment must be an integer, not text");
}

TEST(Gguf, RefusesBadEntriesOfTheTable) {
  const auto with = [](uint32_t type, const std::vector<int64_t>& sizes, uint64_t offset) {
    GgufWriter writer;
    writer.add_tensor("first", DType::f32, {16}, std::string(64, 'x'));
    writer.add_tensor("second", DType::f32, {16}, std::string(64, 'x'));
    writer.add_raw_tensor("t", type, sizes, offset);
    return writer.bytes();
  };
  const int64_t huge = int64_t{1} << 62;
  expect_error(with(0, {}, 0), "tensor t has 0 dimensions");
  expect_error(with(0, {1, 1, 1, 1, 1}, 0), "tensor t has 5 dimensions");
  expect_error(with(99, {1}, 0), "tensor t has the unknown type 99");
  expect_error(with(16, {256}, 0), "tensor t is IQ2_XXS, which is not supported (F32, F16, Q4_0");
  expect_error(with(12, {32}, 0), "tensor t is Q4_K with rows of 32 values");
  expect_error(with(0, {huge, huge}, 0), "tensor t has a shape that is too large");
  expect_error(with(0, {huge}, 0), "tensor t has a shape that is too large");
  expect_error(with(0, {-1}, 0), "tensor t has a shape that is too large");
  expect_error(with(0, {1}, 4), "tensor t begins at 4, which is no multiple");
  expect_error(with(0, {1}, 1 << 20), "tensor t takes 4 bytes from 1048576 on");
  expect_error(with(0, {1}, ~uint64_t{31}), "tensor t takes 4 bytes from");
  expect_error(with(0, {1 << 20}, 64), "the file holds 128 bytes of data; it is cut short");
  expect_error(with(0, {1}, 32), "tensor t overlaps tensor first");
  expect_error(with(0, {1}, 64), "overlaps");

  GgufWriter twice;
  twice.add_tensor("t", DType::f32, {1}, "1234");
  twice.add_tensor("t", DType::f32, {1}, "1234");
  expect_error(twice.bytes(), "tensor t: its name appears twice");
  GgufWriter nameless;
  nameless.add_tensor("", DType::f32, {1}, "1234");
  expect_error(nameless.bytes(), "tensor 0 has no name");
}

// A model in `count` parts, each with one tensor that is called after it.
std::vector<GgufWriter> parts(uint32_t count) {
  std::vector<GgufWriter> writers(count);
  for (uint32_t i = 0; i < count; ++i) {
    writers[i].add("split.no", i);
    writers[i].add("split.count", count);
    writers[i].add("split.tensors.count", count);
    writers[i].add_tensor(std::string(1, static_cast<char>('a' + i)), DType::f32, {1},
                          std::string(4, static_cast<char>('a' + i)));
  }
  return writers;
}

void expect_open_error(const std::string& path, const std::string& part) {
  EXPECT_THAT([&] { GgufFiles files(path); },
              ThrowsMessage<Error>(AllOf(HasSubstr(".gguf: "), HasSubstr(part))));
}

TEST(GgufFiles, GathersTheParts) {
  const TemporaryFolder folder;
  const std::vector<GgufWriter> writers = parts(3);
  const auto path = [&](int part) { return folder / fmt::format("m-{:05}-of-00003.gguf", part); };
  write_file(path(1), writers[0].bytes());
  write_file(path(2), writers[1].bytes());
  expect_open_error(path(1), "part 3 is missing");
  write_file(path(3), writers[2].bytes());
  const GgufFiles files(path(1));
  ASSERT_EQ(files.tensors().size(), 3u);
  for (const char* name : {"a", "b", "c"}) {
    const StoredTensor* tensor = files.find(name);
    ASSERT_NE(tensor, nullptr);
    EXPECT_EQ(static_cast<char>(*tensor->data), name[0]);
    EXPECT_EQ(files.maps()[tensor->file]->data() + tensor->offset, tensor->data);
  }
  expect_open_error(path(2), "this is part 2 of 3; give the first");

  write_file(path(3), writers[1].bytes());
  expect_open_error(path(1), "this is part 2 of 3, not 3 of 3");
  write_file(path(3), "GGUF");
  expect_open_error(path(1), "00003-of-00003.gguf: its head needs 4 bytes");
  write_file(folder / "other.gguf", writers[0].bytes());
  expect_open_error(folder / "other.gguf", "its name must end in -00001-of-00003.gguf");
}

TEST(GgufFiles, CountsTheTensorsOfAllParts) {
  const TemporaryFolder folder;
  std::vector<GgufWriter> writers = parts(2);
  writers[1].add_tensor("more", DType::f32, {1}, "1234");
  write_file(folder / "m-00001-of-00002.gguf", writers[0].bytes());
  write_file(folder / "m-00002-of-00002.gguf", writers[1].bytes());
  expect_open_error(folder / "m-00001-of-00002.gguf", "split.tensors.count = 2");
  GgufWriter same;
  same.add("split.no", 1u);
  same.add("split.count", 2u);
  same.add_tensor("a", DType::f32, {1}, "1234");
  write_file(folder / "m-00002-of-00002.gguf", same.bytes());
  expect_open_error(folder / "m-00001-of-00002.gguf", "tensor a: its name appears twice");
}

TEST(GgufFiles, OneFileNeedsNoSplit) {
  const TemporaryFolder folder;
  write_file(folder / "x.gguf", two_tensors().bytes());
  EXPECT_EQ(GgufFiles(folder / "x.gguf").tensors().size(), 2u);
  expect_open_error(folder / "absent.gguf", "No such file");
}

}  // namespace
}  // namespace qnext
