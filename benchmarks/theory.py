"""The paper's statements, checked on policies that can be enumerated.

    python benchmarks/theory.py

Bias of the estimator of eq. 26, variance with and without rejection (eq. 8), eq. 17,
the acceptance rate in training, and the error of scores as a scale (eq. 10). Writes
benchmarks/results/theory.{json,png}; docs/theory.md says what follows.
"""

import itertools
import time

import enumeration
import numpy as np
import record
from theory_plots import plot

from ovd_jax.cli import flags
from ovd_jax.reporting.progress import results_table
from ovd_jax.rollout.credit import center_and_scale

JUDGES = ("informed", "blind", "adverse")
GROUP = 8  # samples of a problem, for GRPO's advantages
_LESS = 1 - 1e-9  # of a number is less than it by more than rounding


def main(config, output):
    """Checks everything, then writes tables, plot and JSON."""
    started = time.time()
    cases, runs = variances(config), trainings(config)
    result = {
        "bias": bias(config),
        "gradients": gradients(config),
        "variance": by_threshold(cases),
        "mixture": mixtures(config),
        "training": [summary(**run) for run in runs],
        "quantization": quantization(config),
    }
    for name, rows in result.items():
        show(name, rows)
    plot(result | {"variance": cases, "training": runs}, output.path(".png"))
    output.write(result)
    flags.summary(**result, seconds=round(time.time() - started, 1))


def show(title: str, rows: list[dict]) -> None:
    """A table of dicts with the same keys."""
    results_table(title, list(rows[0]), [list(row.values()) for row in rows])


def settings(config):
    """(student, teacher, setting) of every problem."""
    for student, teacher, seed in itertools.product(
        config.students, config.teachers, config.seeds
    ):
        yield (
            student, teacher,
            enumeration.make_setting(student=student, teacher=teacher, seed=seed),
        )  # fmt: skip


def middling() -> enumeration.Setting:
    """The problem of what is shown for one problem."""
    return enumeration.make_setting(student=1.0, teacher=3.0)


def targets(setting: enumeration.Setting, threshold: float):
    """(p_RS, slopes, {name: exact gradient that the estimator might be one of})."""
    student_Y, slopes_YW = setting.tree.policy(setting.logits_CA)
    accepted_Y = enumeration.accepted(setting.scores_YS, threshold)
    p_Y, _ = enumeration.mixture(student_Y, setting.teacher_Y, accepted_Y)
    r = setting.rewards_Y
    exact = {
        "eq. 35": enumeration.gradient(p_Y, r, slopes_YW),
        "of J(student), eq. 7": enumeration.gradient(student_Y, r, slopes_YW),
        "of E_p*[R], eq. 31": enumeration.objective_gradient(
            student_Y, setting.teacher_Y, accepted_Y, r, slopes_YW
        ),
    }
    return p_Y, slopes_YW, exact


def bias(config) -> list[dict]:
    """Mean squared distance of estimates from each gradient, over the variance of an
    estimate: 1 where there is no bias."""
    setting, rng = middling(), np.random.default_rng(0)
    p_Y, slopes_YW, exact = targets(setting, config.threshold)
    one = enumeration.variance(p_Y, setting.rewards_Y, slopes_YW)
    rows = []
    for count in config.counts:
        distances = {name: [] for name in exact}
        for _ in range(config.estimates):
            drawn = enumeration.sample(setting, config.threshold, count=count, rng=rng)
            found_Y = np.bincount(drawn, minlength=len(p_Y)) / count
            estimate_W = enumeration.gradient(found_Y, setting.rewards_Y, slopes_YW)
            for name, exact_W in exact.items():
                distances[name].append(float(((estimate_W - exact_W) ** 2).sum()))
        row = {"trajectories": count}
        for name, squares in distances.items():
            row[f"from that {name}"] = float(np.mean(squares)) / (one / count)
        rows.append(row | {"error": float(np.sqrt(np.mean(distances["eq. 35"])))})
    return rows


def gradients(config) -> list[dict]:
    """How eq. 35 and GRPO's estimator lie to the gradients, means over all problems."""
    rows: dict[str, list] = {}
    for number, (_, _, setting) in enumerate(settings(config)):
        p_Y, slopes_YW, exact = targets(setting, config.threshold)
        rng = np.random.default_rng(number)
        eq_35_W = exact.pop("eq. 35")
        others = {f"the gradient {name}": found for name, found in exact.items()}
        others["GRPO's, groups of 8"] = grpo(setting, p_Y, slopes_YW, rng)
        for name, other_W in others.items():
            norms = np.linalg.norm(eq_35_W), np.linalg.norm(other_W)
            cosine = float(eq_35_W @ other_W / norms[0] / norms[1])
            rows.setdefault(name, []).append((cosine, float(norms[1] / norms[0])))
    return [
        {
            "eq. 35 beside": name,
            "cosine, mean": float(np.mean([cosine for cosine, _ in found])),
            "cosine, least": min(cosine for cosine, _ in found),
            "its norm / eq. 35's, mean": float(np.mean([norm for _, norm in found])),
        }
        for name, found in rows.items()
    ]


def grpo(setting, p_Y, slopes_YW, rng, groups: int = 20_000) -> np.ndarray:
    """The mean of GRPO's update with the baseline of Algorithm 1, after replacement."""
    drawn_PG = rng.choice(len(p_Y), size=(groups, GROUP), p=p_Y)
    weights_Y = np.zeros(len(p_Y))
    for drawn_G in drawn_PG:
        rewards_G = setting.rewards_Y[drawn_G]
        mean, scale = center_and_scale(rewards_G.tolist(), 1e-6)
        np.add.at(weights_Y, drawn_G, (rewards_G - mean) / scale)
    return weights_Y @ slopes_YW / drawn_PG.size


def variances(config) -> list[dict]:
    """Eq. 8 at every threshold of every problem."""
    rows = []
    for student, teacher, setting in settings(config):
        student_Y, slopes_YW = setting.tree.policy(setting.logits_CA)
        r = setting.rewards_Y
        plain = enumeration.variance(student_Y, r, slopes_YW)
        plain_W = enumeration.gradient(student_Y, r, slopes_YW)
        for threshold in range(setting.scores_YS.shape[1] + 1):
            accepted_Y = enumeration.accepted(setting.scores_YS, threshold)
            p_Y, alpha = enumeration.mixture(student_Y, setting.teacher_Y, accepted_Y)
            mean_W = enumeration.gradient(p_Y, r, slopes_YW)
            rejected_Y = student_Y * (1 - accepted_Y)
            bound = plain - enumeration.second_moment(rejected_Y, r, slopes_YW)
            extra = (1 - alpha) * enumeration.second_moment(
                setting.teacher_Y, r, slopes_YW
            )
            found = enumeration.variance(p_Y, r, slopes_YW)
            rows.append(
                {
                    "student": student,
                    "teacher": teacher,
                    "threshold": threshold,
                    "alpha": alpha,
                    "plain": plain,
                    "with_rejection": found,
                    "eq_8": bool(found <= bound + 1e-12),
                    "eq_44": bool(found <= bound + extra + 1e-12),
                    "relative_plain": plain / float(plain_W @ plain_W),
                    "relative_with_rejection": found / float(mean_W @ mean_W),
                }
            )
    return rows


def by_threshold(rows: list[dict]) -> list[dict]:
    """The share of problems in which each statement holds, by threshold."""
    found = []
    for threshold in sorted({row["threshold"] for row in rows}):
        some = [row for row in rows if row["threshold"] == threshold]

        def share(test, some=some):
            return float(np.mean([test(row) for row in some]))

        found.append(
            {
                "threshold": threshold,
                "problems": len(some),
                "alpha, mean": share(lambda row: row["alpha"]),
                "variance falls": share(
                    lambda r: r["with_rejection"] < r["plain"] * _LESS
                ),
                "eq. 8 holds": share(lambda row: row["eq_8"]),
                "eq. 44 holds": share(lambda row: row["eq_44"]),
                "variance / norm^2 falls": share(
                    lambda r: r["relative_with_rejection"] < r["relative_plain"] * _LESS
                ),
            }
        )
    return found


def mixtures(config) -> list[dict]:
    """Eq. 17 with the mixture of eq. 25 and as eq. 6 writes it, over all problems."""
    found: dict[int, list] = {}
    for _, _, setting in settings(config):
        student_Y, _ = setting.tree.policy(setting.logits_CA)
        r = setting.rewards_Y
        for threshold in range(setting.scores_YS.shape[1]):
            accepted_Y = enumeration.accepted(setting.scores_YS, threshold)
            everything = (student_Y, setting.teacher_Y, accepted_Y)
            p_Y, alpha = enumeration.mixture(*everything)
            written_Y = enumeration.mixture_as_written(*everything)
            gap = enumeration.performance_gap(*everything, r)
            expected = (1 - alpha * gap) * float(setting.teacher_Y @ r)
            errors = abs(p_Y @ r - expected), abs(written_Y @ r - expected)
            found.setdefault(threshold, []).append((*errors, written_Y.sum(), gap))
    return [
        {
            "threshold": threshold,
            "eq. 17 from eq. 25, largest error": float(max(row[0] for row in rows)),
            "from eq. 6, largest error": float(max(row[1] for row in rows)),
            "weights of eq. 6, least sum": float(min(row[2] for row in rows)),
            "delta < 0": float(np.mean([row[3] < 0 for row in rows])),
        }
        for threshold, rows in found.items()
    ]


def trainings(config) -> list[dict]:
    """alpha and rewards along exact ascent, for three judges and without rejection."""
    cases = [(judge, config.threshold) for judge in JUDGES] + [("informed", 0)]
    found = []
    for judge, threshold in cases:
        setting = enumeration.make_setting(student=0.5, teacher=2.0, judge=judge)
        rows = enumeration.train(
            setting, threshold=threshold, rate=config.rate, steps=config.steps
        )
        earned = float(setting.teacher_Y @ setting.rewards_Y)
        found.append(
            {"judge": judge, "threshold": threshold, "teacher": earned, "rows": rows}
        )
    return found


def summary(*, judge, threshold, teacher, rows) -> dict:
    """A training in one line."""
    alphas = [row["alpha"] for row in rows]
    return {
        "judge": judge,
        "threshold": threshold,
        "alpha, first": alphas[0],
        "alpha, last": alphas[-1],
        "steps on which it fell": int((np.diff(alphas) < -1e-12).sum()),
        "J(student), first": rows[0]["student"],
        "J(student), last": rows[-1]["student"],
        "J(teacher)": teacher,
        "delta, last": rows[-1]["delta"],
    }


def quantization(config) -> list[dict]:
    """Errors of both quantizers, in units of eq. 10's bound, 1 / (2 (v - 1))."""
    grid = (np.arange(1_000_000) + 0.5) / 1_000_000
    rows = []
    for levels in config.levels:
        step = 1 / (levels - 1)
        # Just under the end of its cell: the worst that a floor can be given.
        ends = (np.floor(grid / step) + 1 - 1e-6) * step
        for how in ("round", "floor"):
            error, at_ends = (
                np.abs(x - enumeration.quantize(x, levels, how=how))
                for x in (grid, ends)
            )
            falling = np.average(error, weights=(1 - grid) ** 3)
            means = (error.mean(), falling, at_ends.mean(), error.max())
            found = [float(x / (step / 2)) for x in means]
            names = (
                "mean, uniform quality", "mean, density ~ (1 - Q)^3",
                "mean, ends of cells", "largest, uniform quality",
            )  # fmt: skip
            row = {"v": levels, "quantizer": how, "bound": step / 2}
            rows.append(row | dict(zip(names, found, strict=True)))
    return rows


if __name__ == "__main__":
    record.run(main, doc=__doc__, default="benchmarks/configs/theory.py")
