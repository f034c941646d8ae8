"""Evaluation sets by name, with where they are.

The rows of mathematics are those of the published numbers that the paper compares
with. What the hub has with other rows, or not at all, comes from the repository of
Qwen2.5-Math, whose evaluation those numbers were made with.
"""

QWEN = "https://raw.githubusercontent.com/QwenLM/Qwen2.5-Math/main/evaluation/data"

MATH_SETS = {
    "svamp": "ChilleD/SVAMP[train+test]",  # 1000
    "asdiv": "EleutherAI/asdiv",  # 2215, without those with several answers
    "mawps": f"{QWEN}/mawps/test.jsonl",  # 2065
    "tabmwp": f"{QWEN}/tabmwp/test.jsonl",  # 1000
    "minerva_math": "math-ai/minervamath",  # 272
    "olympiadbench": "math-ai/olympiadbench",  # 675
    "sat_math": f"{QWEN}/sat_math/test.jsonl",  # 32
    "mmlu_stem": f"{QWEN}/mmlu_stem/test.jsonl",  # 3018
    "gaokao2024_i": f"{QWEN}/gaokao2024_I/test.jsonl",  # 14, in Chinese
    "gaokao2024_ii": f"{QWEN}/gaokao2024_II/test.jsonl",  # 14, in Chinese
    "gaokao2024_mix": f"{QWEN}/gaokao2024_mix/test.jsonl",  # 91, in Chinese
    "gaokao2023en": f"{QWEN}/gaokao2023en/test.jsonl",  # 385
    "aime24": "HuggingFaceH4/aime_2024[train]",  # 30
    "gsm8k": "openai/gsm8k:main",  # 1319
    "math500": "HuggingFaceH4/MATH-500",  # 500
}

# The collection that Search-R1 and ZeroSearch evaluate on, one config a set.
_COLLECTION = "RUC-NLPIR/FlashRAG_datasets"

QA_SETS = {
    name: f"{_COLLECTION}:{name}"
    for name in (
        "nq", "triviaqa", "popqa", "hotpotqa", "2wikimultihopqa", "musique",
        "bamboogle",
    )
}  # fmt: skip
