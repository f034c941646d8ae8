"""Evaluation sets of questions by name, with where the hub has them."""

# The collection that Search-R1 and ZeroSearch evaluate on, one config a set.
_COLLECTION = "RUC-NLPIR/FlashRAG_datasets"

QA_SETS = {
    name: f"{_COLLECTION}:{name}"
    for name in (
        "nq", "triviaqa", "popqa", "hotpotqa", "2wikimultihopqa", "musique",
        "bamboogle",
    )
}  # fmt: skip
