#include "checkpoint/safetensors_writer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <random>

#include "base/error.h"
#include "checkpoint/safetensors.h"
#include "checkpoint/temporary_folder.h"

namespace qnext {
namespace {

using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

struct Tensor {
  TensorDeclaration declaration;
  std::vector<std::byte> data;
};

// Names with every kind of trouble that JSON knows.
std::string random_name(std::mt19937& random, size_t index) {
  static const std::string pieces[] = {"a", ".weight", "\"", "\\", "\n",
                                       "ä", "𝄞",       "/",  " ",  "\x01"};
  std::string name = std::to_string(index);
  for (size_t i = random() % 6; i > 0; --i) name += pieces[random() % std::size(pieces)];
  return name;
}

Tensor random_tensor(std::mt19937& random, size_t index) {
  constexpr DType dtypes[] = {DType::f32, DType::f16, DType::bf16, DType::f8_e4m3,
                              DType::i32, DType::i64, DType::u8,   DType::boolean};
  Tensor tensor;
  tensor.declaration.name = random_name(random, index);
  tensor.declaration.dtype = dtypes[random() % std::size(dtypes)];
  for (size_t rank = random() % 4; rank > 0; --rank)
    tensor.declaration.shape.push_back(static_cast<int64_t>(random() % 7));
  tensor.data.resize(tensor.declaration.bytes());
  for (std::byte& value : tensor.data) value = static_cast<std::byte>(random());
  return tensor;
}

void write_in_pieces(SafetensorsWriter& writer, const Tensor& tensor, std::mt19937& random) {
  for (size_t begin = 0; begin < tensor.data.size();) {
    const size_t length = std::min<size_t>(1 + random() % 20, tensor.data.size() - begin);
    writer.write(tensor.declaration.name, std::span(tensor.data).subspan(begin, length));
    begin += length;
  }
}

TEST(SafetensorsWriter, WhatIsWrittenReadsBack) {
  TemporaryFolder folder;
  const std::string path = folder / "t.safetensors";
  for (unsigned seed = 0; seed < 200; ++seed) {
    std::mt19937 random(seed);
    std::vector<Tensor> tensors;
    std::vector<TensorDeclaration> declarations;
    for (size_t i = random() % 12; i > 0; --i) {
      tensors.push_back(random_tensor(random, i));
      declarations.push_back(tensors.back().declaration);
    }
    const std::map<std::string, std::string> metadata{{"format", "pt"}, {"k\"ey", "v\\alue\n"}};
    SafetensorsWriter writer(path, declarations, metadata);
    for (const Tensor& tensor : tensors) write_in_pieces(writer, tensor, random);
    writer.finish();

    const SafetensorsFile file(path);
    EXPECT_EQ(file.metadata(), metadata);
    ASSERT_EQ(file.tensors().size(), tensors.size());
    for (const Tensor& tensor : tensors) {
      const StoredTensor& stored = file.get(tensor.declaration.name);
      EXPECT_EQ(stored.dtype, tensor.declaration.dtype);
      EXPECT_EQ(stored.shape, tensor.declaration.shape);
      ASSERT_EQ(stored.bytes, tensor.data.size());
      EXPECT_TRUE(std::equal(tensor.data.begin(), tensor.data.end(), stored.data));
    }
  }
}

TEST(SafetensorsWriter, AlignsTheDataTo64Bytes) {
  TemporaryFolder folder;
  for (size_t extra = 0; extra < 70; ++extra) {
    const std::string name(1 + extra, 'n');
    SafetensorsWriter writer(folder / "t", {{name, DType::u8, {1}}});
    writer.write(name, std::as_bytes(std::span("x", 1)));
    writer.finish();
    EXPECT_EQ(SafetensorsFile(folder / "t").get(name).offset % 64, 0u);
  }
}

TEST(SafetensorsWriter, LeavesNothingBehindUnlessFinished) {
  TemporaryFolder folder;
  write_file(folder / "t.safetensors", "old");
  {
    SafetensorsWriter writer(folder / "t.safetensors", {{"a", DType::u8, {2}}});
    writer.write("a", std::as_bytes(std::span("x", 1)));
  }
  EXPECT_EQ(read_file(folder / "t.safetensors"), "old");
  const auto files = std::filesystem::directory_iterator(folder.path());
  EXPECT_EQ(std::distance(begin(files), end(files)), 1);
}

TEST(SafetensorsWriter, NamesThePathThatItCannotWrite) {
  TemporaryFolder folder;
  EXPECT_THAT([&] { SafetensorsWriter writer(folder / "absent/t.safetensors", {}); },
              ThrowsMessage<Error>(HasSubstr("absent/t.safetensors: No such file")));
}

TEST(SafetensorsWriterDeathTest, MisuseIsABug) {
  TemporaryFolder folder;
  const auto one = std::as_bytes(std::span("x", 1));
  const auto two = std::as_bytes(std::span("xx", 2));
  const auto writer_with = [&](auto&& use) {
    SafetensorsWriter writer(folder / "t", {{"a", DType::u8, {1}}, {"b", DType::u8, {1}}});
    use(writer);
  };
  EXPECT_DEATH(writer_with([&](auto& writer) { writer.write("b", one); }), "a is due");
  EXPECT_DEATH(writer_with([&](auto& writer) { writer.write("a", two); }), "too many bytes for a");
  EXPECT_DEATH(writer_with([&](auto& writer) {
                 writer.write("a", one);
                 writer.finish();
               }),
               "tensor b is not complete");
  EXPECT_DEATH(SafetensorsWriter(folder / "t", {{"a", DType::u8, {1}}, {"a", DType::u8, {1}}}),
               "a is declared twice");
}

}  // namespace
}  // namespace qnext
