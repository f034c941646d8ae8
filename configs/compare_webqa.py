"""The paper's Table 3 and Figure 4: what OVD's training and testing thresholds do on
questions; `compare_webqa.py:baselines` are the other rows, which nothing checks:

    bash launch/serve_teacher.sh sunhaonlp/Simulation_LLM_google_7B-V2
    python launch/serve_search.py --config.corpus=wiki.jsonl
    python launch/compare.py --config=configs/compare_webqa.py

The prompted rows (direct answer, CoT, RAG, RA-Agent, Search-o1) are the starting model
by other configs, the trained ones R1, Search-R1 and ZeroSearch. Another student is
`--config.overrides="('model=NAME',)"`, a run alone `--config.runs="('OVD, 5:
threshold=5',)"`. It is a comparison for accelerators.
"""

from configs import compare
from ovd_jax.errors import UserError

RETRIEVER = "http://127.0.0.1:8001/retrieve"
DAGGER, SAMPLED = "\N{DAGGER}", "test_score_rule=sample"
PROMPTED = {
    "Direct": "direct", "CoT": "cot", "RAG": "rag", "RA-Agent": "ra_agent",
    "Search-o1": "search_o1",
}  # fmt: skip
BASELINES = (
    *(f"{name}: base= eval_base=eval_qa:{method}" for name, method in PROMPTED.items()),
    "R1: base=webqa_r1 eval_base=eval_qa:cot",
    "Search-R1: base=webqa_search_r1",
    "ZeroSearch: base=webqa_zerosearch",
)


def get_config(rows="ovd"):
    if rows not in ("ovd", "baselines"):
        raise UserError(f"{rows!r} is not one of ovd, baselines.")
    config = compare.get_config()
    config.run_dir = f"runs/compare_webqa_{rows}"
    config.base = "webqa"
    config.eval_base = "eval_qa:search"
    config.eval_overrides = (
        "prompt_template=plain", "compute_dtype=bfloat16",
        "search.backend=http", f"search.url={RETRIEVER}",
    )  # fmt: skip
    if rows == "baselines":
        config.runs = BASELINES
        return config
    config.runs = tuple(f"OVD, trained at {at}: threshold={at}" for at in (0, 5, 7, 10))
    config.tests = (
        "student alone: test_threshold=0",
        *(f"tested at {at}: test_threshold={at}" for at in (5, 7, 10)),
        *(
            f"tested at {at}{DAGGER}: test_threshold={at} {SAMPLED}"
            for at in (5, 7, 10)
        ),
    )
    return config
