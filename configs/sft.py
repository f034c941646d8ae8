"""Every knob of supervised fine-tuning: python launch/sft.py --config=configs/sft.py

Set at least `--config.model` (a Hugging Face folder or hub name) and `--config.data`
(JSONL rows with `prompt` and `completion`).
"""

from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    config.run_dir = "runs/sft"
    config.resume = True  # False: begin anew, and move a run that is there aside
    config.seed = 0
    config.model = "student"  # a folder, a hub name, or a fresh `student` / `teacher`
    config.lora = ConfigDict(  # rank 0: all weights are trained
        dict(
            rank=0,
            alpha=16.0,  # adapters count alpha / rank
            targets=("q", "k", "v", "o", "gate", "up", "down"),
        )
    )
    config.data = ""  # JSONL path; empty: generated examples
    config.task = "arithmetic"  # whose generated examples: arithmetic | world
    config.arithmetic = ConfigDict(
        dict(min_operations=2, max_operations=4, max_operand=9, max_value=30)
    )
    config.judged_share = 0.0  # of generated examples: slips, and scores of the steps
    config.judged_data = ""  # judged solutions instead of slips; world: half of them
    config.world = ConfigDict(
        dict(
            simulated_share=0.0,  # of generated examples: documents for a query
            hasty_share=0.0,  # of the rest: the first fact found is the answer
        )
    )
    config.num_steps = 1000
    config.batch_size = 32  # examples
    config.max_tokens = 128  # an example; a longer one is an error
    config.sort_window = 16  # batches drawn together and sorted by length
    config.packed = False  # rows of `max_tokens` hold several examples each
    config.optimizer = ConfigDict(
        dict(
            learning_rate=1e-3,
            schedule="cosine",  # constant | linear | cosine
            warmup_steps=200.0,  # steps, as num_steps counts them
            weight_decay=0.01,
            b1=0.9,
            b2=0.98,
            grad_clip=1.0,  # global norm
        )
    )
    config.max_skipped = 10  # non-finite gradients in a row until the run is stopped
    config.chunk = 4096  # rows of logits alive at once
    config.remat = "none"  # none | matmuls | full; see REMAT in models/transformer.py
    config.compute_dtype = "float32"  # float32 | bfloat16; master weights are float32
    config.attention = "auto"  # auto: on TPUs a kernel of theirs | blocked
    config.log_every = 50  # steps
    config.checkpoint_every = 500  # steps; 0: never
    config.export_dtype = "bfloat16"
    return config
