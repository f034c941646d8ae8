"""The question sets of the paper's Table 3, by any of its methods:

    python launch/evaluate.py --config=configs/eval_qa.py --config.model=DIR_OR_NAME \
        --config.search.corpus=CORPUS.jsonl
    python launch/evaluate.py --config=configs/eval_qa.py:rag --config.model=... \
        --config.data=FOLDER --config.eval_sets="('hotpotqa', 'bamboogle')"

What stands after the colon is the method: `direct`, `cot` (R1, too, whose model was
trained to), `rag`, `ra_agent`, `search_o1`, or `search`, the default: models that were
trained to search (Search-R1, ZeroSearch, OVD). With `--config.test_threshold=7` a
teacher that is served, as for configs/webqa.py, checks each turn;
`--config.test_score_rule=sample` is the paper's dagger.

Sets come from the hub (`pip install "ovd_jax[hub]"`), or from the files NAME.jsonl of
the folder `config.data`;
`config.data=GAIA/metadata.jsonl` is your own copy of GAIA. Any engine will do:
`--config.search.backend=http --config.search.url=http://127.0.0.1:8001/retrieve`. It
sees the queries and nothing else.
"""

from configs import default
from ovd_jax.errors import UserError

TABLE_3 = (
    "nq", "triviaqa", "popqa", "hotpotqa", "2wikimultihopqa", "musique", "bamboogle",
)  # fmt: skip
METHODS = {  # method: (prompt, searches at most, whether documents are condensed)
    "direct": ("direct", 0, False),
    "cot": ("cot", 0, False),
    "rag": ("rag", 0, False),
    "ra_agent": ("search", 4, False),
    "search_o1": ("search", 4, True),
    "search": ("search", 4, False),
}


def get_config(method="search"):
    if method not in METHODS:
        raise UserError(f"method {method!r} is not one of {', '.join(METHODS)}.")
    prompt, searches, refine = METHODS[method]
    config = default.get_config()
    config.run_dir = f"runs/eval_qa_{method}"
    config.task = "qa"
    config.data = ""
    config.prompt_template = "chat"  # plain, for base models
    config.qa.prompt = prompt
    config.qa.reward = "em"
    config.max_new_tokens = 500  # of a turn
    config.turns.max_observations = searches
    config.turns.refine = refine
    config.turns.total_tokens = 4096
    config.turns.observation_tokens = 1024
    config.search.backend = "bm25"
    config.search.topk = 3
    config.teacher.url = "http://127.0.0.1:8000/v1"  # asked with test_threshold alone
    config.teacher.prompt = "turns"
    config.teacher.max_new_tokens = 500
    config.eval_sets = TABLE_3
    config.averaged_sets = TABLE_3
    config.eval_problems = 500
    config.eval_rows = 32
    return config
