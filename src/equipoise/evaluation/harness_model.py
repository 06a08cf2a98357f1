"""A loaded model as lm-evaluation-harness wants one: its own wrapper of transformers models, watched.

The wrapper cuts prompts that are too long and says so in a log only; here they are noted, since the answer to half a
question is no score. It also holds the logits of a whole batch at once, so a batch is kept so small that they fit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from importlib import import_module
from typing import Any, TextIO

from equipoise.model.chat import DATE
from equipoise.model.generate import Progress
from equipoise.model.load import Loaded
from equipoise.records import InputError

LOGITS = 2**28
"""At most so many logits (rows x tokens x vocabulary) at once: 1 GiB in 32 bits, and as much for their logarithms."""


def language_model(
    loaded: Loaded, *, batch_size: int, thinking: bool, stderr: TextIO, progress: Progress | None
) -> Any:
    """The harness's `HFLM` around `loaded`, whose model may carry adapters.

    Its attribute `cut` is filled with the prompts that did not fit. Progress is counted in requests (a choice, an
    answer) and shown with `stderr` as it was. Log-probabilities are computed from 32-bit logits.
    """

    normalised = import_module("lm_eval.models.utils").normalize_gen_kwargs

    class Watched(import_module("lm_eval.models.huggingface").HFLM):  # type: ignore[misc]
        cut: set[str]

        def loglikelihood(self, requests: Sequence[Any], disable_tqdm: bool = False) -> Any:
            return super().loglikelihood(requests, disable_tqdm=True)

        def _loglikelihood_tokens(self, requests: Sequence[Any], **options: Any) -> Any:
            lengths = [len(context) + len(continuation) for _, context, continuation in requests]
            self.cut |= {
                texts[0] for (texts, *_), length in zip(requests, lengths, strict=True) if length > self.max_length + 1
            }
            row = min(max(lengths), self.max_length) * len(self.tokenizer)
            self.batch_size_per_gpu = max(1, min(batch_size, LOGITS // row))
            return self._shown(len(requests), lambda: super(Watched, self)._loglikelihood_tokens(requests, **options))

        def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> Any:
            for request in requests:
                context, settings = request.args
                longest = normalised(settings, self.max_gen_toks)["max_gen_toks"]
                room = self.max_length - longest
                if room <= 0:
                    raise InputError(
                        f"evaluation.tasks: {request.task_name} asks for answers of {longest} tokens, and the model "
                        f"has {self.max_length} positions; set a smaller max_gen_toks in its generation_kwargs"
                    )
                if len(self.tok_encode(context)) > room:
                    self.cut.add(context)
            self.batch_size_per_gpu = batch_size
            return self._shown(len(requests), lambda: super(Watched, self).generate_until(requests, disable_tqdm=True))

        def _shown(self, total: int, work: Callable[[], Any]) -> Any:
            if progress:
                self.set_cache_hook(_Counter(progress, total))
            with redirect_stderr(stderr):
                return work()

    model = Watched(
        pretrained=loaded.model,
        tokenizer=loaded.tokenizer,
        backend="causal",
        batch_size=batch_size,
        softmax_dtype="float32",
        enable_thinking=thinking,
        think_end_token="</think>" if thinking else None,
        chat_template_args={"date_string": DATE},
    )
    model.cut = set()
    return model


class _Counter:
    """Told by the harness of every request that is done (it is the harness's way of keeping answers)."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress, self._total, self._done = progress, total, 0

    def add_partial(self, kind: str, request: Any, response: Any) -> None:
        """One more is done."""
        self._done += 1
        self._progress(self._done, self._total)
