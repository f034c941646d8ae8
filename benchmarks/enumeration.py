"""The paper's statements on policies that can be enumerated (sections 3.3-3.5, A.1).

A trajectory is K steps of A choices each, and a policy a softmax over the choices at
each of the C beginnings: it can be any distribution, and every expectation is a sum.
Float64. Axes: Y trajectories, K steps, A choices, C beginnings, W = C * A parameters,
S scores. docs/theory.md says what was found.
"""

import dataclasses
import itertools

import numpy as np

from ovd_jax.errors import UserError
from ovd_jax.rollout.accept import is_accepted


@dataclasses.dataclass(frozen=True)
class Tree:
    """All trajectories of `steps` steps with `choices` choices each."""

    steps: int
    choices: int

    @property
    def paths_YK(self) -> np.ndarray:
        """The choices of every trajectory."""
        choices = itertools.product(range(self.choices), repeat=self.steps)
        return np.array(list(choices))

    @property
    def beginnings_YK(self) -> np.ndarray:
        """The number of the beginning that each step of a trajectory goes on from."""
        longest = self.choices**self.steps
        return np.stack(
            [
                sum(self.choices**j for j in range(k))
                + np.arange(longest) // self.choices ** (self.steps - k)
                for k in range(self.steps)
            ],
            axis=1,
        )

    @property
    def beginnings(self) -> int:
        """C."""
        return sum(self.choices**k for k in range(self.steps))

    def policy(self, logits_CA: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(probabilities of all trajectories [Y], gradients of their logs [Y, W])."""
        shifted_CA = np.exp(logits_CA - logits_CA.max(axis=1, keepdims=True))
        probs_CA = shifted_CA / shifted_CA.sum(axis=1, keepdims=True)
        rows_YK, picked_YK = self.beginnings_YK, self.paths_YK
        slopes_YCA = np.zeros((len(rows_YK), *logits_CA.shape))
        for rows_Y, picked_Y in zip(rows_YK.T, picked_YK.T, strict=True):
            every = np.arange(len(rows_Y))
            slopes_YCA[every, rows_Y] -= probs_CA[rows_Y]
            slopes_YCA[every, rows_Y, picked_Y] += 1.0
        probs_Y = probs_CA[rows_YK, picked_YK].prod(axis=1)
        return probs_Y, slopes_YCA.reshape(len(probs_Y), -1)


@dataclasses.dataclass(frozen=True)
class Setting:
    """A student, a teacher, and what the teacher says of every trajectory."""

    tree: Tree
    logits_CA: np.ndarray  # the student's
    teacher_Y: np.ndarray  # pi_T
    rewards_Y: np.ndarray  # R
    scores_YS: np.ndarray  # the teacher's distribution over scores of each trajectory


def make_setting(
    *,
    student: float,
    teacher: float,
    judge: str = "informed",
    tree: Tree | None = None,
    levels: int = 10,
    seed: int = 0,
) -> Setting:
    """A problem with one right choice at each beginning, and a right last step pays 1.

    `student` and `teacher` are what a right choice adds to their logits, which are
    noisy otherwise. Scores spread by 1.5 around the share of right steps (`informed`),
    around that of wrong ones (`adverse`), or are the same for all (`blind`).
    """
    tree = tree or Tree(steps=4, choices=3)
    rng = np.random.default_rng(seed)
    right_C = rng.integers(tree.choices, size=tree.beginnings)
    bonus_CA = np.eye(tree.choices)[right_C]
    noise_CA, other_CA = rng.normal(size=(2, *bonus_CA.shape)) * 0.5
    teacher_Y, _ = tree.policy(teacher * bonus_CA + other_CA)
    is_right_YK = tree.paths_YK == right_C[tree.beginnings_YK]
    quality_Y = is_right_YK.mean(axis=1)
    centers = {
        "informed": quality_Y, "adverse": 1 - quality_Y, "blind": 0 * quality_Y + 0.5
    }  # fmt: skip
    distance_YS = np.arange(levels)[None] - (levels - 1) * centers[judge][:, None]
    scores_YS = np.exp(-0.5 * (distance_YS / 1.5) ** 2)
    return Setting(
        tree=tree,
        logits_CA=student * bonus_CA + noise_CA,
        teacher_Y=teacher_Y,
        rewards_Y=is_right_YK[:, -1].astype(float),
        scores_YS=scores_YS / scores_YS.sum(axis=1, keepdims=True),
    )


def accepted(scores_YS: np.ndarray, threshold: float) -> np.ndarray:
    """The probability [Y] that each trajectory's score is accepted (eqs. 5 and 23)."""
    levels = scores_YS.shape[1]
    keeps_S = [
        is_accepted(
            score, correct=True, rule="score", threshold=threshold, levels=levels,
            beta=1.0, draw=0.0,
        )
        for score in range(levels)
    ]  # fmt: skip
    return scores_YS @ np.array(keeps_S, float)


def mixture(student_Y, teacher_Y, accepted_Y) -> tuple[np.ndarray, float]:
    """(p_RS of eq. 25, which is p* of eq. 30; alpha): what is really trained on."""
    alpha = float(student_Y @ accepted_Y)
    return student_Y * accepted_Y + (1 - alpha) * teacher_Y, alpha


def mixture_as_written(student_Y, teacher_Y, accepted_Y) -> np.ndarray:
    """The weights of eqs. 6 and 11, whose sum is 1 - alpha (1 - alpha)."""
    alpha = float(student_Y @ accepted_Y)
    return alpha * student_Y * accepted_Y + (1 - alpha) * teacher_Y


def gradient(probs_Y, rewards_Y, slopes_YW) -> np.ndarray:
    """E_p[R grad log pi_S]: eqs. 26 and 35 for p = p_RS, the policy gradient of
    J(pi_S) for p = pi_S."""
    return (probs_Y * rewards_Y) @ slopes_YW


def objective_gradient(student_Y, teacher_Y, accepted_Y, rewards_Y, slopes_YW):
    """The gradient of E_p*[R], eq. 31, by the student's parameters.

    p* holds pi_S and alpha, which depend on them; the teacher's part is a constant to
    the student but for its weight 1 - alpha.
    """
    over_teacher_Y = rewards_Y - teacher_Y @ rewards_Y
    return gradient(student_Y * accepted_Y, over_teacher_Y, slopes_YW)


def second_moment(probs_Y, rewards_Y, slopes_YW) -> float:
    """E_p ||R grad log pi_S||^2."""
    return float(probs_Y @ (rewards_Y**2 * (slopes_YW**2).sum(axis=1)))


def variance(probs_Y, rewards_Y, slopes_YW) -> float:
    """That of R grad log pi_S for one trajectory from p, summed over parameters: eqs.
    37 and 39."""
    mean_W = gradient(probs_Y, rewards_Y, slopes_YW)
    return second_moment(probs_Y, rewards_Y, slopes_YW) - float(mean_W @ mean_W)


def performance_gap(student_Y, teacher_Y, accepted_Y, rewards_Y) -> float:
    """delta of eq. 14; nan where nothing is accepted or the teacher earns nothing."""
    accepted_mass = float(student_Y @ accepted_Y)
    earned = float(teacher_Y @ rewards_Y)
    if accepted_mass == 0 or earned == 0:
        return float("nan")
    kept = float((student_Y * accepted_Y) @ rewards_Y) / accepted_mass
    return (earned - kept) / earned


def sample(setting: Setting, threshold: float, *, count: int, rng) -> np.ndarray:
    """Numbers of `count` trajectories as the procedure makes them: the student's, or
    the teacher's where the score drawn for it is rejected."""
    student_Y, _ = setting.tree.policy(setting.logits_CA)
    drawn = rng.choice(len(student_Y), size=count, p=student_Y)
    limits = setting.scores_YS.cumsum(axis=1)[drawn]
    scores = (rng.random((count, 1)) > limits[:, :-1]).sum(axis=1)
    fresh = rng.choice(len(student_Y), size=count, p=setting.teacher_Y)
    return np.where(scores >= threshold, drawn, fresh)


def train(setting: Setting, *, threshold: float, rate: float, steps: int) -> list[dict]:
    """Ascent by the exact gradient of eq. 35: before each step and after the last,
    alpha, delta, what the student earns, and what is earned where it trains."""
    logits_CA, rows = setting.logits_CA.copy(), []
    accepted_Y = accepted(setting.scores_YS, threshold)
    for _ in range(steps + 1):
        student_Y, slopes_YW = setting.tree.policy(logits_CA)
        everything = (student_Y, setting.teacher_Y, accepted_Y)
        p_Y, alpha = mixture(*everything)
        rows.append(
            {
                "alpha": alpha,
                "delta": performance_gap(*everything, setting.rewards_Y),
                "student": float(student_Y @ setting.rewards_Y),
                "mixture": float(p_Y @ setting.rewards_Y),
            }
        )
        slope_W = gradient(p_Y, setting.rewards_Y, slopes_YW)
        logits_CA += rate * slope_W.reshape(logits_CA.shape)
    return rows


def quantize(quality: np.ndarray, levels: int, *, how: str) -> np.ndarray:
    """The quality in [0, 1] that a score of `levels` levels stands for, S / (v - 1):
    S = floor((v - 1) Q) as in eq. 46, or the nearest."""
    if levels < 2:
        raise UserError(f"levels {levels}: a scale has at least 2, as v - 1 divides.")
    to_score = {"floor": np.floor, "round": np.round}[how]
    return to_score((levels - 1) * quality) / (levels - 1)
