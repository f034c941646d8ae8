"""A tokenizer for any text, a scripted student that converses, and an engine."""

import random

import fakes
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from ovd_jax.conversation.collect import ConversationCollector
from ovd_jax.conversation.dialogue import Dialogue, TurnRules
from ovd_jax.conversation.search import SearchEnv, SearchTools
from ovd_jax.rollout.credit import group_advantages
from ovd_jax.rollout.pack import pack
from ovd_jax.sampling.completion import Completion
from ovd_jax.search import tags
from ovd_jax.search.base import Document
from ovd_jax.search.pool import SearchThreads
from ovd_jax.tasks.base import Problem
from ovd_jax.tasks.grading.qa_metrics import f1


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """A token a byte, and two special ones."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE({c: i for i, c in enumerate(letters)}, []))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        eos_token="<|end|>",
        additional_special_tokens=["<|start|>"],
        clean_up_tokenization_spaces=False,
    )


TOKENIZER = byte_tokenizer()
EOS = TOKENIZER.eos_token_id
RULES = TurnRules(
    max_observations=2,
    total_tokens=600,
    observation_tokens=200,
    mask_invalid=False,
)
CORRECTION = "Search or answer."
SEARCH = "<think> a </think>\n<search> {} </search>"  # turns
ANSWER = "<think> b </think>\n<answer> {} </answer>"


def encode(text: str) -> list[int]:
    return TOKENIZER(text, add_special_tokens=False)["input_ids"]


def decode(tokens) -> str:
    return TOKENIZER.decode(list(tokens))


class Engine:
    """Finds the documents `find(query)`; keeps the queries and seeds."""

    def __init__(self, find=lambda query: (Document("Title", f"about {query.text}"),)):
        self._find = find
        self.queries = []
        self.seeds = []

    def search(self, queries, *, seeds):
        self.queries += queries
        self.seeds += seeds
        return [self._find(query) for query in queries]

    def metrics(self):
        return {"searched": len(self.queries)}

    def close(self):
        pass


class Student:
    """The sampler with a model, as `Dialogue` sees it: each turn of a row is
    `write(text so far, sample, rng)`, cut at `turn_tokens` and at the row's limit."""

    def __init__(self, write, *, turn_tokens: int = 120):
        self._write, self._turn = write, turn_tokens
        self.prompts, self.limits = [], []

    def __call__(self, prompts, *, seed, samples, limits, draws, environment):
        self.prompts.append([decode(prompt) for prompt in prompts])
        self.limits.append(list(limits))
        rows = [
            Row(decode(prompt), limit, g)
            for prompt, limit in zip(prompts, limits, strict=True)
            for g in range(samples)
        ]
        open_rows = list(range(len(rows)))
        while open_rows:
            turns = [
                (n, *rows[n].turn(self._write, self._turn, seed)) for n in open_rows
            ]
            going = environment.ended(turns)
            open_rows = [n for n, goes in zip(open_rows, going, strict=True) if goes]
            found = environment.observations(open_rows) if open_rows else []
            for n, tokens in zip(open_rows, found, strict=True):
                assert 0 < len(tokens) < rows[n].limit - len(rows[n].tokens)
                rows[n].read(tokens)
        done = [row.completion() for row in rows]
        return [done[i : i + samples] for i in range(0, len(done), samples)]


class Row:
    def __init__(self, prompt, limit, sample):
        self.prompt, self.limit, self.sample = prompt, limit, sample
        self.tokens, self.observed, self.stopped = [], [], False

    def turn(self, write, size, seed):
        text = self.prompt + decode(self.tokens)
        rng = random.Random(f"{seed}-{self.sample}-{len(self.tokens)}")
        whole = encode(write(text, self.sample, rng))
        tokens = whole[: min(size, self.limit - len(self.tokens))]
        self.stopped = len(tokens) == len(whole)
        self.tokens += tokens
        self.observed += [False] * len(tokens)
        logprobs = (-1.0,) * len(tokens)
        turn = Completion(tuple(tokens), logprobs, self.stopped)
        return turn, self.limit - len(self.tokens)

    def read(self, tokens):
        self.tokens += tokens
        self.observed += [True] * len(tokens)

    def completion(self):
        logprobs = tuple(-float(not read) for read in self.observed)
        return Completion(
            tuple(self.tokens), logprobs, self.stopped, tuple(self.observed)
        )


class Questions:
    """A task of questions, whose reward is F1."""

    stop_strings = ("</search>", "</answer>")

    def prompt(self, problem):
        return f"Q: {problem.question}\n"

    def step_ends(self, text):
        return tags.turn_ends(text)

    def extract(self, text):
        return next(iter(tags.contents(text, tags.ANSWER)), None)

    def rewards(self, problems, texts):
        return [
            f1(self.extract(text), problem.golds)
            for problem, text in zip(problems, texts, strict=True)
        ]


def dialogue(engine=None, *, with_golds=False, refine=None, **changes) -> Dialogue:
    rules = TurnRules(**vars(RULES) | changes)
    pool = SearchThreads(engine or Engine())
    return dialogue_in(pool, rules, with_golds=with_golds, refine=refine)


def dialogue_in(pool, rules=RULES, *, with_golds=False, refine=None) -> Dialogue:
    return Dialogue(
        SearchEnv(Questions(), correction=CORRECTION),
        SearchTools(pool, with_golds=with_golds),
        rules=rules, tokenizer=TOKENIZER, refine=refine,
    )  # fmt: skip


def collector(teacher, talk: Dialogue, **changes) -> ConversationCollector:
    fields = {"replacement": "step", "granularity": "step"} | changes
    return ConversationCollector(
        dialogue=talk, task=Questions(), teacher=teacher, tokenizer=TOKENIZER,
        rules=fakes.rules(**fields),
    )  # fmt: skip


def problem(question="Who?", *golds: str) -> Problem:
    golds = golds or ("Ada Byron",)
    return Problem(question, question, golds[0], "hand", answers=golds)


def converse(write, talk=None, *, samples=1, prompts=("Q: Who?\n",), **options):
    """The completions of a student with these prompts, in one list."""
    talk = talk or dialogue()
    groups = talk.generate(
        Student(write), [encode(p) for p in prompts], seed=0, samples=samples, **options
    )
    return [completion for group in groups for completion in group]


def collect(teacher, write, talk=None, *, golds=("Ada Byron",), **changes):
    """The group of a problem with these golds."""
    made = collector(teacher, talk or dialogue(), **changes)
    (group,) = made.collect([problem("Who?", *golds)], Student(write), seed=1)
    return group


def in_turns(*turns: str):
    """A student that writes these, the last one for ever."""

    def write(text, sample, rng):
        done = sum(map(text.count, ("</information>", "</result>", "</out>")))
        return turns[min(done, len(turns) - 1)]

    return write


def score_bad_turns(request, rng):
    return 2 if "bad" in request.text else 8


def picked(tokens, flags) -> str:
    pairs = zip(tokens, flags, strict=True)
    return decode(token for token, flag in pairs if flag)


def read_by(row) -> str:
    return picked(row.tokens, row.observed)


def written_by(row) -> str:
    return picked(row.tokens, [not read for read in row.observed])


def packed(group):
    """The batch of a group's conversations, with GRPO's advantages."""
    advantages = group_advantages(
        group, credit="trajectory", credit_weight=0.5, levels=10, baseline="after",
        scale_by_std=True,
    )  # fmt: skip
    batch, _ = pack([group], [advantages], length_multiple=16, max_tokens=4096)
    return batch
