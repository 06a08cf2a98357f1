"""The process that holds a vLLM engine, for `vllm_engine`; ending it is what gives its GPU memory back.

JSON lines: the first line in is the engine's arguments, the first line out says that it is ready. Then each line in
asks for answers (`prompts` as token ids, their `seeds`, `temperature`, `max_tokens`, `ends`, and an `adapter` or
null), and each line out holds them: the token ids and whether an end token stopped them. The end of input ends it.
An error ends it as well; its traceback on stderr is what the other side reads.
"""

from __future__ import annotations

import json
import os
import sys
from importlib import import_module
from typing import Any


def main() -> None:
    """Serve until the end of input."""
    # vLLM, its libraries and its processes print to stdout: from here on that is stderr, and the way out is a copy.
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    # One process more inside this one would make the order of requests, and so rounding, a matter of chance.
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    settings = json.loads(sys.stdin.readline())
    vllm = import_module("vllm")
    engine = vllm.LLM(**settings)
    _say(replies, {"ready": True})
    for line in sys.stdin:
        _say(replies, {"answers": answers(vllm, engine, json.loads(line))})


def answers(vllm: Any, engine: Any, asked: dict[str, Any]) -> list[dict[str, Any]]:
    """What the engine writes to each prompt: `ids`, and whether an end token `ended` it."""
    chosen = [
        vllm.SamplingParams(
            temperature=asked["temperature"],
            max_tokens=asked["max_tokens"],
            seed=seed,
            stop_token_ids=asked["ends"],
            detokenize=False,
        )
        for seed in asked["seeds"]
    ]
    outputs = engine.generate(
        [{"prompt_token_ids": ids} for ids in asked["prompts"]],
        chosen,
        use_tqdm=False,
        lora_request=_adapter(asked["adapter"]),
    )
    written = [output.outputs[0] for output in outputs]
    return [{"ids": list(one.token_ids), "ended": one.finish_reason == "stop"} for one in written]


def _adapter(adapter: dict[str, Any] | None) -> Any:
    """vLLM's name, number and folder of an adapter; the number must be its own within an engine."""
    if adapter is None:
        return None
    request = import_module("vllm.lora.request").LoRARequest
    return request(f"adapter-{adapter['number']}", adapter["number"], adapter["folder"])


def _say(replies: Any, value: dict[str, Any]) -> None:
    replies.write(json.dumps(value) + "\n")
    replies.flush()


if __name__ == "__main__":
    main()
