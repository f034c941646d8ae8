"""Evaluation sets of mathematics by name, with where the hub has them."""

MATH_SETS = {
    "gsm8k": "openai/gsm8k:main",
    "math500": "HuggingFaceH4/MATH-500",
}
