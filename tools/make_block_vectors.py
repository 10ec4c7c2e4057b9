"""Writes tests/data/gguf-blocks.safetensors: random blocks of every quantised GGUF type with the
values that the gguf package gives them.

Needs gguf and numpy (pip install gguf). Factors are finite; everything else is any bits.
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


def random_blocks(name, count, random):
    size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[name]][1]
    blocks = random.integers(0, 256, (count, size), dtype=np.uint8)
    for place in FACTORS[name]:
        bits = random.integers(0, 0x7C00, count, dtype=np.uint16)
        bits |= random.integers(0, 2, count, dtype=np.uint16) << np.uint16(15)
        blocks[:, place:place + 2] = bits.view(np.uint8).reshape(count, 2)
    return blocks


def main():
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 6
    random = np.random.default_rng(1)
    header, data = {}, b""
    for name in FACTORS:
        blocks = random_blocks(name, count, random)
        values = gguf.dequantize(blocks, gguf.GGMLQuantizationType[name])
        for suffix, dtype, array in [("blocks", "U8", blocks), ("values", "F32", values)]:
            raw = np.ascontiguousarray(array).tobytes()
            header[f"{name}.{suffix}"] = {"dtype": dtype, "shape": list(array.shape),
                                          "data_offsets": [len(data), len(data) + len(raw)]}
            data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path = pathlib.Path(__file__).parent.parent / "tests/data/gguf-blocks.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


main()
