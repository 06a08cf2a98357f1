"""The pocket tokenizer: byte-level BPE trained on the world, with a ChatML template.

All 256 bytes are in the vocabulary, so any text can be encoded; the world's words, the years and the numbers 0-99
are one token each when a space stands before them. The template therefore writes a space before every content:
the answer's first word is then the same token as anywhere else, and the prompt's text stays a string prefix of
prompt plus answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from equipoise.evaluation.tasks.tatqa_prompt import render
from equipoise.pocket import words, world

VOCABULARY = 2048
PAD, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
TEMPLATE = (
    "{%- for message in messages -%}"
    "{{ '<|im_start|>' + message['role'] + '\\n ' + (message['content'] | trim) + '<|im_end|>\\n' }}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}"
)
_SPLIT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def chat_text(messages: Sequence[Mapping[str, str]]) -> str:
    """What the template writes, without the template engine (the build renders millions of tokens)."""
    return "".join(f"{START}{m['role']}\n {m['content'].strip()}{END}\n" for m in messages)


def single_tokens() -> list[str]:
    """Every string that must be one token: pool words, numbers and years, each with its leading space."""
    return [f" {word}" for word in (*words.ALL_WORDS, *words.NUMBERS, *words.YEARS)]


def corpus(seed: int, n: int = 1500) -> Iterable[str]:
    """World text of every kind, and the pool words often enough to become tokens."""
    for kind in ("general", "finance"):
        for row in world.rows(kind, split="pretrain", n=n, seed=seed):
            user = row.get("question", row.get("user"))
            answers = [row.get("chosen", row.get("assistant")), row["rejected"]]
            turns = [("system", row["system"]), ("user", user)]
            for answer in answers:
                yield chat_text([{"role": r, "content": c} for r, c in [*turns, ("assistant", answer)]])
    for row in world.rows("reddit", split="pretrain", n=2 * n, seed=seed):
        yield f"\n {row['title']}\n\n{row['selftext']}\n {row['body']}"
        yield f"\n {row['title']}\n{row['selftext']}\n {row['body']}"
    for row in world.rows("mt_bench", split="pretrain", n=n, seed=seed):
        yield " ".join(["", *row["turns"], *row["reference"]])
    for document in world.rows("tatqa", split="pretrain", n=n // 3, seed=seed):
        for question in document["questions"]:
            yield f" {render(document, question, layout='cells')}\n Answer:"
    yield from ("".join(single_tokens()) for _ in range(300))


def train_tokenizer(seed: int) -> PreTrainedTokenizerFast:
    """Train, wrap with template and special tokens, and make sure that every pool word is one token."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[PAD, START, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(corpus(seed), trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token=END, pad_token=PAD, additional_special_tokens=[START],
        model_max_length=4096, clean_up_tokenization_spaces=False, chat_template=TEMPLATE,
    )  # fmt: skip
    split = [word for word in single_tokens() if len(tokenizer.encode(word, add_special_tokens=False)) != 1]
    if split:
        raise ValueError(f"{len(split)} words are not one token, such as {split[:5]}")
    return tokenizer
