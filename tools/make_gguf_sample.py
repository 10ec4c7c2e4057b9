"""Writes tests/data/gguf-sample.gguf: a whole model of architecture qwen3next, as small as one can
be, with the keys that the gguf package knows by name and the layouts of the published converter.

Needs gguf and numpy (pip install gguf). Its first layer is a Gated DeltaNet, its second attention.
"""

import pathlib

import gguf
import numpy as np

HIDDEN, WIDTH, EXPERTS, HEADS, KV_HEADS, HEAD = 32, 32, 2, 2, 1, 16
KEY_HEADS, VALUE_HEADS, STATE, CONV = 1, 2, 16, 4
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}"


def byte_alphabet():
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    moved = iter(range(256, 512))
    return [chr(b if b in kept else next(moved)) for b in range(256)]


def add_tokenizer(writer):
    tokens = byte_alphabet() + ["To", "be", "<|im_start|>", "<|im_end|>", "<think>", "[PAD261]"]
    kinds = [1] * 258 + [3, 3, 4, 5]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(["T o", "b e"])
    writer.add_eos_token_id(259)
    writer.add_pad_token_id(261)
    writer.add_add_bos_token(False)
    writer.add_chat_template(TEMPLATE)
    return len(tokens)


def add_sizes(writer):
    writer.add_block_count(2)
    writer.add_context_length(512)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(WIDTH)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_key_length(HEAD)
    writer.add_value_length(HEAD)
    writer.add_rope_freq_base(1e7)
    writer.add_rope_dimension_count(4)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_expert_count(EXPERTS)
    writer.add_expert_used_count(1)
    writer.add_expert_feed_forward_length(WIDTH)
    writer.add_expert_shared_feed_forward_length(WIDTH)
    writer.add_ssm_conv_kernel(CONV)
    writer.add_ssm_state_size(STATE)
    writer.add_ssm_group_count(KEY_HEADS)
    writer.add_ssm_time_step_rank(VALUE_HEADS)
    writer.add_ssm_inner_size(VALUE_HEADS * STATE)
    writer.add_full_attention_interval(2)
    writer.add_uint32("general.sampling.top_k", 20)


def shapes(vocabulary):
    key, value = KEY_HEADS * STATE, VALUE_HEADS * STATE
    out = {"token_embd.weight": (vocabulary, HIDDEN), "output_norm.weight": (HIDDEN,),
           "output.weight": (vocabulary, HIDDEN)}
    for layer in range(2):
        names = {"attn_norm.weight": (HIDDEN,), "post_attention_norm.weight": (HIDDEN,),
                 "ffn_gate_inp.weight": (EXPERTS, HIDDEN),
                 "ffn_gate_exps.weight": (EXPERTS, WIDTH, HIDDEN),
                 "ffn_up_exps.weight": (EXPERTS, WIDTH, HIDDEN),
                 "ffn_down_exps.weight": (EXPERTS, HIDDEN, WIDTH),
                 "ffn_gate_inp_shexp.weight": (HIDDEN,),
                 "ffn_gate_shexp.weight": (WIDTH, HIDDEN), "ffn_up_shexp.weight": (WIDTH, HIDDEN),
                 "ffn_down_shexp.weight": (HIDDEN, WIDTH)}
        if layer == 0:
            names |= {"attn_qkv.weight": (2 * key + value, HIDDEN),
                      "attn_gate.weight": (value, HIDDEN),
                      "ssm_ba.weight": (2 * VALUE_HEADS, HIDDEN),
                      "ssm_conv1d.weight": (2 * key + value, CONV), "ssm_a": (VALUE_HEADS,),
                      "ssm_dt.bias": (VALUE_HEADS,), "ssm_norm.weight": (STATE,),
                      "ssm_out.weight": (HIDDEN, value)}
        else:
            names |= {"attn_q.weight": (2 * HEADS * HEAD, HIDDEN),
                      "attn_k.weight": (KV_HEADS * HEAD, HIDDEN),
                      "attn_v.weight": (KV_HEADS * HEAD, HIDDEN),
                      "attn_output.weight": (HIDDEN, HEADS * HEAD),
                      "attn_q_norm.weight": (HEAD,), "attn_k_norm.weight": (HEAD,)}
        out |= {f"blk.{layer}.{name}": shape for name, shape in names.items()}
    return out


def main():
    path = pathlib.Path(__file__).parent.parent / "tests/data/gguf-sample.gguf"
    writer = gguf.GGUFWriter(path, "qwen3next")
    add_sizes(writer)
    random = np.random.default_rng(1)
    for name, shape in shapes(add_tokenizer(writer)).items():
        values = (random.standard_normal(shape) * 0.1).astype(np.float32)
        if name.endswith("norm.weight"):
            values += 1
        if name.endswith("ssm_a"):
            values = -np.exp(values)
        is_matrix = len(shape) > 1 and "conv1d" not in name and "gate_inp" not in name
        kind = gguf.GGMLQuantizationType["Q5_1" if is_matrix else "F32"]
        writer.add_tensor(name, gguf.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


main()
