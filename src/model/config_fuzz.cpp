// Any text as config.json and as generation_config.json: an Error, or a config whose list of
// weights can be made.
#include "base/error.h"
#include "model/generation_config.h"
#include "model/weight_schema.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace qnext;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    const json::Value value = json::parse(text, "fuzz");
    try {
      parse_generation_config(value);
    } catch (const Error&) {
    }
    const Config config = parse_config(value);
    QNEXT_CHECK(config.rope.rotary_dims <= config.head_dim && config.rope.rotary_dims % 2 == 0);
    QNEXT_CHECK(config.attention_heads % config.kv_heads == 0);
    QNEXT_CHECK(config.value_heads_per_key_head() > 0);
    QNEXT_CHECK(config.context_length() >= config.max_position_embeddings);
    // The list is long where the config says so; keep the fuzzer fast.
    if (config.experts * static_cast<int64_t>(config.layers.size()) > 2000) return 0;
    for (const WeightSpec& spec : weight_schema(config)) {
      int64_t bytes = 4;
      for (int64_t dimension : spec.shape)
        QNEXT_CHECK(!__builtin_mul_overflow(bytes, dimension, &bytes) && bytes > 0, "{}",
                    spec.name);
    }
  } catch (const Error&) {
  }
  return 0;
}
