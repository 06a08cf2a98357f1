"""The part of a recipe that says where preference pairs come from: one class for each `kind`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from equipoise.recipe_parts import ModelSpec, Name, Part, RewardSpec, Seed, Share

Category = Literal["writing", "roleplay", "reasoning", "math", "coding", "extraction", "stem", "humanities"]
CATEGORIES: tuple[Category, ...] = (
    "writing", "roleplay", "reasoning", "math", "coding", "extraction", "stem", "humanities",
)  # fmt: skip


BUILT_IN = 800
"""Questions of `mt_bench_style` where nothing is said."""


class SourceBase(Part):
    """What every source has."""

    domain: Name
    """The ability that these pairs teach, by which training figures are reported."""
    limit: PositiveInt | None = None
    """Use at most this many pairs, drawn with the source's own seed."""
    max_malformed: Share = 0.2
    """Stop when more than this share of the rows is malformed."""
    max_chars: PositiveInt = 100_000
    """Longest prompt plus answers in characters; a longer row is dropped as too long before anything else."""
    hold_out: Share = 0.0
    """Share of the groups (posts, documents, questions) that no source brings into training, in `data/held_out/`."""


class PocketSource(SourceBase):
    """Pairs from the embedded synthetic world."""

    kind: Literal["pocket"]
    domain: Literal["general", "finance", "reddit"]
    """Which of the world's domains."""
    rows: PositiveInt = 1000
    """How many rows the world makes."""
    seed: Seed = 0
    """Seed of the world's rows."""


class FileSource(SourceBase):
    """What every source that reads rows has."""

    id: Annotated[str, Field(min_length=1)]
    """A hub id, a local folder in the hub's layout, a .json, .jsonl, .parquet or .csv file (also .gz), or `pocket`."""
    revision: str | None = None
    """Branch, tag or commit of a hub id."""
    split: str = "train"
    """Split of a hub data set or folder; a single file has none."""
    rows: PositiveInt | None = None
    """Read the first so many rows only; `id: pocket` makes so many (1200 where nothing is said)."""


class OrcaSource(FileSource):
    """`system, question, chosen, rejected`: the columns of Intel/orca_dpo_pairs."""

    kind: Literal["orca"]
    domain: Name = "general"
    """The ability that these pairs teach."""


class HhSource(FileSource):
    """`chosen, rejected`: whole dialogues of Anthropic/hh-rlhf; the prompt is all but the last answer."""

    kind: Literal["hh"]
    domain: Name = "general"
    """The ability that these pairs teach."""


class Columns(Part):
    """Which column of a table is what: either chosen and rejected, or first, second and label."""

    prompt: str | list[str]
    """Text, a list of messages, or several columns that are joined by an empty line. The same column as `chosen` (or
    `first`): both answers are whole conversations, and the prompt is what they say before their last message."""
    system: str | None = None
    """System message."""
    chosen: str | None = None
    """The better answer."""
    rejected: str | None = None
    """The worse answer."""
    first: str | None = None
    """First answer, where a label says which one is better."""
    second: str | None = None
    """Second answer, where a label says which one is better."""
    label: str | list[str] | None = None
    """1 = first is better, 2 = second is better, anything else = tie; several columns = majority."""
    group: str | None = None
    """What rows share when they belong together; default: the prompt."""

    @model_validator(mode="after")
    def _one_way(self) -> Columns:
        ranked, labelled = (self.chosen, self.rejected), (self.first, self.second, self.label)
        if (all(ranked) and not any(labelled)) or (all(labelled) and not any(ranked)):
            return self
        raise ValueError("give either `chosen` and `rejected`, or `first`, `second` and `label`")


class TableSource(FileSource):
    """Any table whose columns the recipe names."""

    kind: Literal["table"]
    columns: Columns
    """Which column is what."""


class MinGap(Part):
    """When two comments of a post differ enough to say that one is better: both rules must hold."""

    ratio: Annotated[float, Field(ge=1.0)] = 2.0
    """The better comment has at least so many times the score of the worse one."""
    percentile: Share = 0.2
    """It also stands so much higher among all comments of its subreddit in the file (0-1)."""
    floor: Share = 0.1
    """For the ratio, no score counts less than this quantile of the subreddit's scores: 2 votes against 1 are noise."""


Unwanted = Literal["deleted", "bot", "edit_notice", "link_only", "near_duplicate"]


class RedditSource(FileSource):
    """Posts with up to three scored comments each, one row a comment: winddude/reddit_finance_43_250k."""

    kind: Literal["reddit"]
    domain: Name = "reddit"
    """The ability that these pairs teach."""
    rule: Literal["gap", "original"] = "gap"
    """`gap`: a pair only where the score gap is real; `original`: the rule of the original program, for comparison."""
    score: Literal["comment_normalized_score", "combined_score", "normalized_score", "z_score"] = (
        "comment_normalized_score"
    )
    """The column that says how much a comment was liked; `z_score` may be negative: `original` only."""
    min_gap: MinGap = MinGap()
    """`gap`: how much better the chosen comment must be."""
    length_ratio: Annotated[float, Field(ge=1.0)] = 2.0
    """`gap`: neither comment is more than so many times as long as the other."""
    balance_length: bool = True
    """`gap`: drop pairs (smallest gap first) until the chosen comment is the longer one in half of them."""
    margin: NonNegativeFloat = 0.10
    """`original`: the score of the chosen comment is higher by at least this."""
    length_tolerance: Share = 0.6
    """`original`: the lengths differ by at most this share of the longer one."""
    fallback: bool = False
    """`original`: where no comment is worse by the margin, take the worst one all the same (one of its faults)."""
    min_post_chars: Annotated[int, Field(ge=0)] = 120
    """Shortest post (its text without the title) in characters; 0 for `id: pocket` where nothing is said."""
    max_post_chars: PositiveInt = 2000
    """Longest post in characters."""
    min_comment_chars: PositiveInt = 40
    """Shortest comment in characters; 1 for `id: pocket` where nothing is said."""
    max_comment_chars: PositiveInt = 4000
    """Longest comment in characters."""
    max_pairs_per_post: PositiveInt = 1
    """Pairs of one post; never more than it has comments."""
    max_pairs_per_subreddit: PositiveInt | None = None
    """Pairs of one subreddit, the largest gaps first."""
    drop: list[Unwanted] = ["deleted", "bot", "edit_notice", "link_only", "near_duplicate"]
    """`gap`: which kinds of unwanted texts are dropped."""

    @model_validator(mode="before")
    @classmethod
    def _short_texts_of_the_world(cls, values: Any) -> Any:
        """Posts of the embedded world have 40 to 80 characters, all of them less than a real post should have."""
        if isinstance(values, dict) and values.get("id") == "pocket":
            return {"min_post_chars": 0, "min_comment_chars": 1, **values}
        return values

    @model_validator(mode="after")
    def _has_a_ratio(self) -> RedditSource:
        if self.rule == "gap" and self.score == "z_score":
            raise ValueError(
                "`score: z_score` may be negative, so that no score is so many times another; "
                "use another score, or `rule: original`"
            )
        return self


class Ranking(Part):
    """How generated answers become pairs: the best against the worst by reward, where the gap is wide enough."""

    max_new_tokens: PositiveInt = 256
    """Longest answer in tokens; an answer that is cut off makes no pair."""
    batch_size: PositiveInt = 64
    """Prompts per batch; also how many prompts are answered and ranked at a time."""
    seed: Seed = 0
    """Seed of the samples."""
    min_gap: NonNegativeFloat = 0.5
    """Smallest difference in reward, in standard deviations of the rewards of the first answers (at least 64)."""
    max_prompts: PositiveInt | None = None
    """Answer at most so many prompts; default: as many as the stages' pairs need."""


class Sampling(Ranking):
    """How answers are sampled from one model."""

    samples: PositiveInt = 4
    """Answers to each prompt; at least 2 where they are ranked."""
    temperature: PositiveFloat = 0.8
    """Of sampling."""


def _require_two(sampling: Sampling) -> None:
    if sampling.samples < 2:
        raise ValueError("sampling.samples: the best answer is ranked against the worst, so there must be 2 at least")


class FinanceInstructSource(FileSource):
    """`system, user, assistant`: questions with one answer each, Josephgflowers/Finance-Instruct-500k."""

    kind: Literal["finance_instruct"]
    domain: Name = "finance"
    """The ability that these pairs teach."""
    rejected: Literal["sampled", "reference_vs_sample", "corrupted", "correctness"] = "sampled"
    """Where the worse answer comes from; docs/data.md tells the four ways."""
    finance_only: bool = True
    """Keep only rows that speak of money."""
    complexity_filter: bool = False
    """Keep only questions that ask for reasoning, a calculation or an explanation."""
    min_question_chars: Annotated[int, Field(ge=0)] = 10
    """Shortest question in characters."""
    max_question_chars: PositiveInt = 8000
    """Longest question in characters."""
    min_answer_chars: Annotated[int, Field(ge=0)] = 1
    """Shortest answer of the data set in characters."""
    max_answer_chars: PositiveInt = 8000
    """Longest answer of the data set in characters."""
    drop_labels: bool = True
    """Drop answers that are a bare label (`neutral`, `B`); a number is none where `rejected` is `correctness`."""
    sampling: Sampling = Sampling()
    """`sampled`, `reference_vs_sample`, `correctness`: how the model answers."""
    reward: RewardSpec | None = None
    """`sampled`: what ranks the answers; default: the recipe's reward model."""

    @model_validator(mode="after")
    def _two_to_rank(self) -> FinanceInstructSource:
        if self.rejected == "sampled":
            _require_two(self.sampling)
        return self


class PromptColumns(Part):
    """Which column of a table holds the prompt."""

    prompt: str | list[str] = "prompt"
    """Text, a list of messages, or several columns that are joined by an empty line."""
    system: str | None = None
    """System message."""
    group: str | None = None
    """What rows share when they belong together; default: the prompt."""


class OnPolicySource(FileSource):
    """Any prompts, answered by the stage's own start: the best answer against the worst by reward."""

    kind: Literal["on_policy"]
    columns: PromptColumns = PromptColumns()
    """Which column is what; `id: pocket` knows its own."""
    sampling: Sampling = Sampling()
    """How the model answers."""
    reward: RewardSpec | None = None
    """What ranks the answers; default: the recipe's reward model."""

    @model_validator(mode="after")
    def _two_to_rank(self) -> OnPolicySource:
        _require_two(self.sampling)
        return self


class Policy(Part):
    """One of the models that answer."""

    model: ModelSpec | None = None
    """Default: the recipe's model."""
    adapters: list[str] = []
    """Folders of adapters on top of it, in order."""
    temperature: NonNegativeFloat = 0.0
    """0 = greedy."""


class MtBenchStyleSource(SourceBase):
    """New questions in MT-Bench's eight categories, answered by two or more policies and ranked by reward."""

    kind: Literal["mt_bench_style"]
    domain: Name = "mt_bench"
    """The ability that these pairs teach."""
    id: str | None = None
    """Questions in MT-Bench's layout (`category`, `turns`), read like any data file; default: the built-in ones."""
    revision: str | None = None
    """Branch, tag or commit of a hub id."""
    split: str = "train"
    """Split of a hub data set or folder."""
    rows: PositiveInt | None = None
    """Read the first so many rows only; `id: pocket` makes so many."""
    questions: PositiveInt = BUILT_IN
    """How many of the built-in questions, the same number in each category; not with `id`."""
    categories: Annotated[list[Category], Field(min_length=1)] = list(CATEGORIES)
    """Which categories."""
    turns: Literal[1, 2] = 2
    """2: the second question is asked as well, after the better first answer."""
    policies: Annotated[list[Policy], Field(min_length=2)] = [Policy(), Policy(temperature=1.0)]
    """Who answers; the answers of all of them are ranked."""
    ranking: Ranking = Ranking()
    """How answers become pairs."""
    reward: RewardSpec | None = None
    """What ranks the answers; default: the recipe's reward model."""

    @model_validator(mode="after")
    def _one_way(self) -> MtBenchStyleSource:
        if self.id is not None and self.questions != BUILT_IN:
            raise ValueError("`questions` counts the built-in questions; with `id`, say `rows` or `limit`")
        return self


Source = Annotated[
    PocketSource
    | OrcaSource
    | HhSource
    | TableSource
    | RedditSource
    | FinanceInstructSource
    | OnPolicySource
    | MtBenchStyleSource,
    Field(discriminator="kind"),
]
Generated = FinanceInstructSource | OnPolicySource | MtBenchStyleSource
"""Kinds that may need a model to make their pairs."""


def generated(spec: Source) -> bool:
    """Whether a model has to answer before there are pairs."""
    return isinstance(spec, Generated) and getattr(spec, "rejected", None) != "corrupted"


def scored(spec: Source) -> bool:
    """Whether its pairs have a gap of scores that the data itself gives."""
    return isinstance(spec, RedditSource)


def ranked(spec: Source) -> bool:
    """Whether a reward model ranks its answers."""
    return generated(spec) and getattr(spec, "rejected", "sampled") == "sampled"
