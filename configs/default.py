"""Every knob of training and evaluation, once. An experiment changes a few of them.

python launch/train.py --config=configs/quickstart.py --config.num_steps=100
"""

from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    config.run_dir = "runs/train"
    config.seed = 0
    config.num_steps = 100  # rollout batches
    config.loggers = ("tensorboard",)  # tensorboard | wandb | trackio

    # Devices
    config.mesh = ConfigDict(dict(data=1, fsdp=-1, tp=1))  # sizes; -1: the rest
    config.distributed = ConfigDict(
        dict(
            coordinator="",  # host:port of process 0; auto: of the cluster; "": alone
            processes=1,
            process=0,  # the number of this one
        )
    )

    # Task
    config.task = "arithmetic"  # arithmetic | math
    config.arithmetic = ConfigDict(
        dict(min_operations=2, max_operations=4, max_operand=9, max_value=30)
    )
    config.data = "openai/gsm8k:main"  # math: a JSONL path or a hub name[:config]
    config.held_out_data = ""  # math: the same; empty: rows of `data` kept aside
    config.prompt_template = "chat"  # math: chat | plain | qwen_boxed

    # Student
    config.model = "quickstart"  # or a run directory, a folder, a hub name
    config.compute_dtype = "float32"  # float32 | bfloat16; master weights are float32
    config.attention = "auto"  # auto: on TPUs a kernel of theirs | blocked
    config.lora = ConfigDict(  # rank 0: all weights are trained
        dict(
            rank=0,
            alpha=16.0,  # adapters count alpha / rank
            targets=("q", "k", "v", "o", "gate", "up", "down"),
        )
    )
    config.problems_per_step = 16
    config.samples = 8  # G, trajectories a problem
    config.temperature = 1.0
    config.top_p = 1.0
    config.top_k = 0  # 0: off
    config.max_prompt_tokens = 64
    config.max_new_tokens = 64
    config.stop_strings = ()
    config.min_prompts = 1  # fewer are padded to as many: fewer shapes to compile

    # Teacher
    config.teacher = ConfigDict(
        dict(
            model="quickstart",  # or a folder, a hub name
            prompt="embedded",  # embedded | digits | one_to_ten: teacher/prompts.py
            score_rule="sample",  # sample | argmax | expected
            score_temperature=0.7,  # of `sample`
            temperature=0.7,  # of demonstrations
            max_new_tokens=64,  # of a demonstration
            min_prompts=1,  # of a demonstration batch; fewer are padded to as many
            rows=64,  # prompts scored at a time
            # A teacher behind an OpenAI-compatible API, such as vLLM's; `model`,
            # `min_prompts` and `rows` are then without effect.
            url="",  # http://127.0.0.1:8000/v1; several: with commas; empty: in process
            served_name="",  # of the model there; empty: the first one it serves
            api_key_env="OPENAI_API_KEY",  # the variable that holds the key, if any
            timeout_s=300.0,  # of one request
            retries=4,  # of one request, before `on_failure`
            on_failure="wait",  # wait | accept | drop | fail
            max_concurrency=128,  # requests out at one URL at a time, at most
            cache="",  # folder of demonstrations to use again; empty: none
        )
    )

    # Verbal rejection sampling
    config.granularity = "trajectory"  # trajectory | step | hybrid
    config.step_aggregation = "min"  # min | mean | last
    config.rejection = "score"  # score | score_or_incorrect | soft
    config.threshold = 7  # accept iff S >= threshold; 0 keeps all, 10 replaces all
    config.beta = 2.0  # `soft`: temperature of the acceptance probability, in scores
    config.replacement = "trajectory"  # trajectory | suffix | step
    config.demonstration_tries = 3  # then the student's own trajectory is kept
    config.max_replaced_steps = 4  # replacement `step`: rounds a trajectory

    # Credit
    config.credit = "trajectory"  # trajectory | step | hybrid
    config.credit_weight = 0.5  # hybrid: share of the outcome reward
    config.baseline = "after"  # after | before | union
    config.scale_by_std = True  # False: center only (dr_grpo)

    # Update
    config.minibatches = 1  # optimizer steps an epoch
    config.epochs = 1  # passes over a rollout batch
    config.tokens_at_once = 8192  # on a device; gradients of several parts are summed
    config.aggregation = "grpo"  # grpo | dapo | dr_grpo
    config.clip_low = 0.2
    config.clip_high = 0.2  # dapo: 0.28
    config.kl_coef = 0.001  # k3 KL to the starting model
    config.entropy_coef = 0.0  # bonus for entropy, in nats a token
    config.importance_cap = 0.0  # truncated p_behavior / p_sampler weights; 0: off
    config.optimizer = ConfigDict(
        dict(
            learning_rate=1e-6,
            schedule="constant",  # constant | linear | cosine
            warmup_steps=0,
            weight_decay=0.0,
            b1=0.9,
            b2=0.999,
            grad_clip=1.0,  # global norm
        )
    )
    config.chunk = 1024  # rows of logits alive at once
    config.remat = "none"  # none | matmuls | full; see REMAT in models/transformer.py
    config.length_multiple = 16  # completions share stretches of such a length

    # Evaluation, logging and checkpoints
    config.eval_every = 10  # steps; 0: only before and after
    config.eval_problems = 200
    config.eval_samples = 1  # completions a problem: avg@k and pass@k
    config.eval_temperature = 0.0  # 0: greedy
    config.eval_rows = 128  # problems sampled at a time
    config.checkpoint_every = 10  # steps; 0: never
    config.export_dtype = "float32"
    return config
