"""Every knob of training and evaluation, once. An experiment changes a few of them.

python launch/train.py --config=configs/quickstart.py --config.num_steps=100
"""

from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    config.run_dir = "runs/train"
    # False: start again, and rename the run in run_dir. A run resumes only with the
    # config it began with, except for the knobs that run_identity.py names
    config.resume = True
    config.seed = 0
    # ovd | grpo | seq_kd | rejection_ft | token_kd | on_policy_kd | dpo_pairs:
    # see ovd_jax/training/methods.py
    config.method = "ovd"
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
    # Where a file of your own may be named, `path/to/file.py:Name`, see examples/.
    config.task = "arithmetic"  # arithmetic | math | qa | file.py:Class
    config.reward = ""  # file.py:function(problems, texts), 0 to 1; empty: the task's
    config.arithmetic = ConfigDict(
        dict(min_operations=2, max_operations=4, max_operand=9, max_value=30)
    )
    config.data = "openai/gsm8k:main"  # math, qa: a JSONL path or hub name[:config]
    config.held_out_data = ""  # the same; empty: rows of `data` kept aside
    # The day, YYYY-MM-DD, that chat templates are told; empty: that of the first start
    config.date = ""
    config.prompt_template = "chat"  # math: chat | plain | qwen_boxed; qa: chat | plain
    # math: how far a decimal may be from a gold that is no integer, as a share of it
    config.math_tolerance = 1e-4
    config.qa = ConfigDict(
        dict(
            # direct | cot | rag | search | ..., or a JSON file: tasks/qa_prompts.py
            prompt="search",
            reward="f1",  # f1 | em
        )
    )
    # How a solution is cut into steps: tasks/steps.py (arithmetic: always lines)
    config.step_rule = "lines"  # lines | blank_lines | sentences | step_n | tags

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
    # What answers the student between its turns: search (of qa) | calculator |
    # file.py:Class
    config.env = "search"
    config.turns = ConfigDict(  # conversations with `env`
        dict(
            # What a solution reads, at most: results of calls, and corrections; 0: it
            # has a single turn
            max_observations=0,
            total_tokens=2048,  # of all turns and observations; a turn: max_new_tokens
            observation_tokens=512,  # of an observation
            correction=(  # search: read after a turn that did nothing valid; no tags
                "That turn had neither a query in search tags nor an answer in answer "
                "tags. Try again."
            ),
            mask_invalid=False,  # True: such trajectories are not trained on
            refine=False,  # the student condenses what calls bring; in evaluation only
        )
    )
    # Of all samplers in this process: higher values compile fewer shapes and compute
    # more padding
    config.min_rows = 8
    config.prompt_multiple = 16  # tokens

    # Teacher
    config.teacher = ConfigDict(
        dict(
            model="quickstart",  # or a folder, a hub name, file.py:Class
            # embedded | digits | one_to_ten, or a JSON file: teacher/prompts.py.
            # digits_reference | one_to_ten_reference show the judge the gold answer.
            prompt="embedded",
            score_rule="sample",  # sample | argmax | expected
            score_temperature=0.7,  # of `sample`
            temperature=0.7,  # of demonstrations
            max_new_tokens=64,  # of a demonstration
            rows=64,  # prompts scored at a time
            # A teacher behind an OpenAI-compatible API, such as vLLM's; `model` and
            # `rows` are then without effect.
            url="",  # http://127.0.0.1:8000/v1; several: with commas; empty: in process
            served_name="",  # of the model there; empty: the only one there
            api_key_env="OPENAI_API_KEY",  # the variable that holds the key, if any
            allow_http=False,  # True: the key may go to another machine without TLS
            timeout_s=300.0,  # of one request
            retries=4,  # of one request, before `on_failure`
            on_failure="wait",  # wait | accept | drop | fail
            max_concurrency=128,  # requests in flight at one URL
            cache="",  # folder of demonstrations to use again; empty: none
        )
    )
    # The model that writes replacements, if it is not the teacher
    config.continuer = ConfigDict(dict(url="", model="", served_name=""))

    # Search engine, for questions
    config.search = ConfigDict(
        dict(
            backend="none",  # none | bm25 | http | simulated | file.py:Class
            topk=3,  # documents a query
            max_chars=4000,  # of the documents in a prompt (qa.prompt=rag)
            corpus="",  # bm25: JSONL of id, title, text; or world: the made-up one
            index_dir="",  # bm25: of indices; empty: in the user's cache
            url="",  # http: .../retrieve; simulated: .../v1, empty: in this process
            cache="",  # folder of documents to use again; empty: none
            timeout_s=60.0,  # of one request
            retries=4,  # of one request, before `on_failure`
            on_failure="wait",  # wait | empty | fail
            # simulated: a model that writes documents
            model="quickstart",  # in this process: a folder, a hub name
            served_name="",  # at the URL; empty: the only one there
            api_key_env="OPENAI_API_KEY",  # the variable that holds the key, if any
            allow_http=False,  # True: the key may go to another machine without TLS
            max_concurrency=128,  # requests in flight at one URL
            # chat | plain | world, or a JSON file: search/simulator_prompts.py
            prompt="chat",
            temperature=0.8,
            max_new_tokens=600,
            noise=(0.0, 0.5),  # share of useless documents, at the first and last step
        )
    )

    # Verbal rejection sampling
    config.granularity = "trajectory"  # trajectory | step | hybrid
    config.step_aggregation = "min"  # min | mean | last
    config.rejection = "score"  # score | score_or_incorrect | soft
    # Accept iff S >= threshold, on the scale of the prompt's labels: 0 or the worst one
    # accepts all; the value after the best rejects all: 10 for 0-9, 11 for one_to_ten.
    # On a scale from -1 to 1, 0 is refused: -0.5 accepts "0" and "1". Labels that are
    # no rising numbers count from 0, the worst, as scores in metrics and samples do.
    config.threshold = 7.0
    config.beta = 2.0  # `soft`: temperature of the acceptance probability, in scores
    config.replacement = "trajectory"  # trajectory | suffix | step
    config.demonstration_tries = 3  # then the student's own trajectory is kept
    config.only_correct = True  # use only correct demonstrations
    config.max_replaced_steps = 4  # replacement `step`: rounds a trajectory
    # The teacher explains rejections: kept in samples.jsonl, or also shown to the
    # student, whose revision, if correct, replaces a demonstration.
    config.feedback = "none"  # none | keep | revise; not with the prompt `embedded`

    # Credit
    config.credit = "trajectory"  # trajectory | step | hybrid
    config.credit_weight = 0.5  # hybrid: share of the outcome reward
    config.baseline = "after"  # after | before | union | leave_one_out (rloo)
    config.scale_by_std = True  # False: center only (dr_grpo)

    config.refills = 0  # times that groups of equal rewards are replaced (dapo)

    # Other methods than ovd and grpo
    config.distill = ConfigDict(
        dict(
            solutions="teacher",  # seq_kd, token_kd: of the teacher | data
            # forward_kl | reverse_kl | jsd; policy_gradient (of the reverse KL):
            # on_policy_kd only
            divergence="forward_kl",
            beta=0.5,  # jsd: weight of the teacher in the mix
            vocabulary="chunked",  # chunked | dense | top_k
            top_k=20,  # of `top_k`; vLLM shows as many unless --max-logprobs is raised
            temperature=1.0,  # of both models' distributions
        )
    )
    config.dpo_beta = 0.1

    # Update
    config.minibatches = 1  # optimizer steps an epoch
    config.epochs = 1  # passes over a rollout batch
    config.microbatch_tokens = 8192  # on a device; microbatches sum their gradients
    config.aggregation = "grpo"  # grpo | dapo | dr_grpo
    config.clip_low = 0.2
    config.clip_high = 0.2  # dapo: 0.28
    config.surrogate = "clip"  # clip | gspo | cispo: losses.py
    config.kl_coef = 0.001  # KL to the starting model
    config.kl_estimator = "k3"  # k1 | k2 | k3
    config.reference_every = 0  # steps until the policy is the new reference; 0: never
    config.entropy_coef = 0.0  # bonus for entropy, in nats a token
    # The loss of the teacher's tokens: 0: the surrogate (Algorithm 1); else their
    # cross-entropy with this weight
    config.imitation_coef = 0.0
    config.importance_cap = 0.0  # truncated p_behavior / p_sampler weights; 0: off
    # Prefetched batches, 0 or 1: with 1 the teacher judges the next batch during an
    # update, and samples are one batch old; needs importance_cap and one process
    config.async_batches = 0
    config.optimizer = ConfigDict(
        dict(
            learning_rate=1e-6,
            schedule="constant",  # constant | linear | cosine
            warmup_steps=0.0,  # steps, as num_steps counts them
            weight_decay=0.0,
            b1=0.9,
            b2=0.999,
            grad_clip=1.0,  # global norm
        )
    )
    config.max_skipped = 10  # non-finite gradients in a row until the run is stopped
    config.chunk = 1024  # rows of logits alive at once
    config.remat = "none"  # none | matmuls | full; see REMAT in models/transformer.py
    config.length_multiple = 16  # completions share bins of such a length

    # A run beyond one of these bounds for `window` steps in a row is stopped
    config.collapse = ConfigDict(
        dict(
            window=0,  # steps; 0: no run is
            entropy=0.0,  # nats a token, at least; 0 here and below: no such bound
            zero_spread=0.0,  # share of groups of equal rewards, at most
            invalid_rate=0.0,  # share of invalid turns, at most
            short=0.0,  # tokens of a completion, at least
            truncated=0.0,  # share of completions that were cut, at most
        )
    )

    # Evaluation, logging and checkpoints
    config.evaluate = "student"  # student | teacher (as a judge): launch/evaluate.py
    config.eval_every = 10  # steps; 0: only before and after
    # Of each set, spread over it. 0: all of `eval_sets`; in training, no evaluation
    config.eval_problems = 200
    config.eval_samples = 1  # completions a problem: avg@k and pass@k
    config.eval_temperature = 0.0  # 0: greedy
    config.eval_rows = 128  # problems sampled at a time
    # launch/evaluate.py only:
    config.eval_sets = ()  # names, name@k, or * ; empty: the task's held-out problems
    config.averaged_sets = ()  # that the average is over; empty: all
    config.eval_sampled_temperature = 0.6  # of `name@k` where the rest is greedy
    config.eval_cache = ""  # folder of attempts; empty: the user's cache; none: off
    config.engine = ""  # URL of an OpenAI-compatible server with the student
    config.engine_served_name = ""  # of the student there; empty: the only model there
    # Steps with scores below it are replaced, on the scale of `threshold`; 0: none is
    config.test_threshold = 0.0
    config.test_score_rule = "argmax"  # argmax | sample (the paper's dagger) | expected
    config.test_replaced_steps = 16  # of one attempt, at most
    config.checkpoint_every = 10  # steps; 0: never
    config.export_dtype = "float32"
    return config
