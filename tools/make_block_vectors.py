"""Writes tests/data/gguf-blocks.gguf, a file of the gguf package with a tensor of every supported
type and metadata of every type, and tests/data/gguf-blocks.safetensors, the values that the package
gives to those tensors.

Needs gguf and numpy (pip install gguf). Factors of blocks are finite; everything else is any bits.
    python tools/make_block_vectors.py [blocks of each type, 6 unless told]
"""

import json
import pathlib
import struct
import sys

import gguf
import numpy as np

# Where the f16 factors of a block lie.
FACTORS = {
    "Q8_0": [0], "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "IQ4_NL": [0],
    "Q2_K": [80, 82], "Q3_K": [108], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208], "IQ4_XS": [0],
}
DATA = pathlib.Path(__file__).parent.parent / "tests/data"


def random_blocks(name, count, random):
    size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[name]][1]
    blocks = random.integers(0, 256, (count, size), dtype=np.uint8)
    for place in FACTORS[name]:
        bits = random.integers(0, 0x7C00, count, dtype=np.uint16)
        bits |= random.integers(0, 2, count, dtype=np.uint16) << np.uint16(15)
        blocks[:, place:place + 2] = bits.view(np.uint8).reshape(count, 2)
    return blocks


def write_safetensors(path, tensors):
    header, data = {}, b""
    for name, array in tensors.items():
        raw = np.ascontiguousarray(array, dtype=np.float32).tobytes()
        header[name] = {"dtype": "F32", "shape": list(array.shape),
                        "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def add_metadata(writer):
    writer.add_uint8("sample.u8", 200)
    writer.add_int8("sample.i8", -2)
    writer.add_uint16("sample.u16", 60000)
    writer.add_int16("sample.i16", -3)
    writer.add_uint32("sample.u32", 4000000000)
    writer.add_int32("sample.i32", -4)
    writer.add_uint64("sample.u64", 1 << 62)
    writer.add_int64("sample.i64", -5)
    writer.add_float32("sample.f32", 0.5)
    writer.add_float64("sample.f64", 0.25)
    writer.add_bool("sample.boolean", True)
    writer.add_string("sample.text", "Grüße\n")
    writer.add_array("sample.texts", ["x", "yz"])
    writer.add_array("sample.integers", [7, -8])
    writer.add_array("sample.numbers", [0.5, -1.5])


def main():
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 6
    random = np.random.default_rng(1)
    writer = gguf.GGUFWriter(DATA / "gguf-blocks.gguf", "sample")
    add_metadata(writer)
    values = {}
    for name in FACTORS:
        kind = gguf.GGMLQuantizationType[name]
        blocks = random_blocks(name, count, random)
        values[name] = gguf.dequantize(blocks, kind)
        writer.add_tensor(name, blocks, raw_dtype=kind)
    plain = random.standard_normal((3, 32)).astype(np.float32)
    for name in ["F32", "F16", "BF16"]:
        kind = gguf.GGMLQuantizationType[name]
        stored = gguf.quantize(plain, kind)
        values[name] = gguf.dequantize(stored, kind)
        writer.add_tensor(name, stored, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    write_safetensors(DATA / "gguf-blocks.safetensors", values)


main()
