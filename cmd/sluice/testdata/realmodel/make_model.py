#!/usr/bin/env python3
"""Write a tiny llama model with random weights as one GGUF file.

The model knows nothing, but a server loads and runs it exactly as it would a
trained one: a SentencePiece vocabulary with byte tokens, a chat template, two
attention layers. Weights come from a fixed seed, so two runs write the same
file and a greedy answer can be compared byte for byte.

Usage: make_model.py OUTPUT.gguf
"""

import os
import sys

import gguf
import numpy as np

SEED = 20
LAYERS = 2
DIM = 64
HEADS = 4
FEED_FORWARD = 192
CONTEXT = 16384

# One token per piece, so that a streamed answer is a sequence of short texts
# of one to four UTF-8 bytes per character. "\u2581" is SentencePiece's space.
ONSETS = "b d f g h k l m n p r s t v w z br dr kl st tr".split()
VOWELS = "a e i o u ai ou".split()
WIDE = "é ß ñ ç ø Ж д я λ Ω ש ع ก 日 本 語 光 水 火 한 글 € → ✓ 🙂 🚀 🌊 🦆".split()
MARKERS = ["<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]

CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def vocabulary():
    """Return the tokens, their scores and their types, in id order."""
    kind = gguf.TokenType
    rows = [("<unk>", 0.0, kind.UNKNOWN), ("<s>", 0.0, kind.CONTROL), ("</s>", 0.0, kind.CONTROL)]
    rows += [(f"<0x{byte:02X}>", 0.0, kind.BYTE) for byte in range(256)]
    rows += [(marker, 0.0, kind.CONTROL) for marker in MARKERS]
    pieces = ["\u2581"] + [chr(code) for code in range(0x21, 0x7F)] + WIDE
    syllables = [onset + vowel for onset in ONSETS for vowel in VOWELS]
    pieces += syllables + ["\u2581" + syllable for syllable in syllables]
    rows += [(piece, -float(rank), kind.NORMAL) for rank, piece in enumerate(pieces)]
    return rows


def tensors(rows):
    """Yield the name and the value of every weight."""
    random = np.random.Generator(np.random.PCG64(SEED))

    def matrix(outputs, inputs, gain=1.0):
        values = random.standard_normal((outputs, inputs)) * gain / np.sqrt(inputs)
        return values.astype(np.float32)

    def ones():
        return np.ones(DIM, dtype=np.float32)

    # A row of zeros gives a token the logit 0, which the best of hundreds of
    # random ones always beats: only whole pieces are chosen, an answer never
    # ends by chance, and its text is always valid UTF-8.
    output = matrix(len(rows), DIM, gain=8.0)
    for row, (_, _, kind) in enumerate(rows):
        if kind != gguf.TokenType.NORMAL:
            output[row] = 0.0

    yield "token_embd.weight", matrix(len(rows), DIM, gain=8.0)
    for layer in range(LAYERS):
        prefix = f"blk.{layer}."
        yield prefix + "attn_norm.weight", ones()
        yield prefix + "attn_q.weight", matrix(DIM, DIM, gain=2.0)
        yield prefix + "attn_k.weight", matrix(DIM, DIM, gain=2.0)
        yield prefix + "attn_v.weight", matrix(DIM, DIM, gain=2.0)
        yield prefix + "attn_output.weight", matrix(DIM, DIM, gain=4.0)
        yield prefix + "ffn_norm.weight", ones()
        yield prefix + "ffn_gate.weight", matrix(FEED_FORWARD, DIM, gain=2.0)
        yield prefix + "ffn_up.weight", matrix(FEED_FORWARD, DIM, gain=2.0)
        yield prefix + "ffn_down.weight", matrix(DIM, FEED_FORWARD, gain=2.0)
    yield "output_norm.weight", ones()
    yield "output.weight", output


def write(path):
    """Write the model to path, which never holds half a file."""
    rows = vocabulary()
    partial = path + ".partial"
    writer = gguf.GGUFWriter(partial, "llama")
    writer.add_name("sluice-tiny")
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(DIM)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_rope_dimension_count(DIM // HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(rows))
    writer.add_tokenizer_model("llama")
    writer.add_token_list([text for text, _, _ in rows])
    writer.add_token_scores([score for _, score, _ in rows])
    writer.add_token_types([kind for _, _, kind in rows])
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(True)
    writer.add_add_space_prefix(False)
    writer.add_chat_template(CHAT_TEMPLATE)
    for name, value in tensors(rows):
        writer.add_tensor(name, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    os.replace(partial, path)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    write(sys.argv[1])
