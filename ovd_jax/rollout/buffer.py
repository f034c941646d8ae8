"""The rollout buffer: a batch of groups, with its metrics and rows for the log."""

import dataclasses
import itertools
import statistics
from collections.abc import Iterable, Iterator, Sequence

from ovd_jax.client.accounting import auc, entropy
from ovd_jax.rollout.trajectory import Group, Rollout, Trajectory, Verdict
from ovd_jax.teacher.base import Score


@dataclasses.dataclass(frozen=True)
class RolloutBuffer:
    """Groups and the advantage of each step of each rollout: `advantages[p][g][k]`."""

    groups: tuple[Group, ...]
    advantages: Sequence[Sequence[Sequence[float]]]
    levels: int
    skipped: tuple[Group, ...] = ()  # groups of equal rewards; not trained on

    @property
    def rollouts(self) -> list[Rollout]:
        """All rollouts, group by group."""
        return [rollout for group in self.groups for rollout in group.rollouts]

    def metrics(self) -> dict:
        """Metrics of a step. Shares and means are over trajectories unless the name
        says tokens. Without samples or verdicts, their metrics are left out."""
        rollouts = self.rollouts
        written = sum(r.final.written_tokens for r in rollouts)
        flat = sum(map(is_flat, self.advantages)) + len(self.skipped)
        sampled = [r for r in rollouts if r.sampled]
        sampled += [r for group in self.skipped for r in group.rollouts]
        judged = [r for r in sampled if r.verdict]
        decided = [r for r in sampled if r.verdict or not r.accepted]
        return {
            "reward_after": mean(r.reward_after for r in rollouts),
            "replaced_share": mean(r.replaced for r in rollouts),
            "teacher_share": sum(sum(r.final.from_teacher) for r in rollouts)
            / max(written, 1),
            "failed_demonstrations": sum(r.failed_demonstrations for r in rollouts),
            "dropped": sum(len(group.dropped) for group in self.groups),
            "zero_spread_share": flat / (len(self.groups) + len(self.skipped)),
            "skipped_groups": len(self.skipped),
            "trajectories": len(rollouts),
            "student_samples": len(sampled),
            "trained_tokens": sum(sum(r.final.loss_mask) for r in rollouts),
            **(of_samples(sampled) if sampled else {}),
            **(of_decisions(decided) if decided else {}),
            **(self.of_scores(judged) if judged else {}),
        }

    def of_scores(self, judged: Sequence[Rollout]) -> dict:
        """Metrics of the teacher's verdicts."""
        verdicts = [(r.reward_before == 1.0, r.verdict) for r in judged if r.verdict]
        right, wrong = (
            [verdict.value for is_right, verdict in verdicts if is_right == wanted]
            for wanted in (True, False)
        )
        return {
            "score_mean": mean(verdict.value for _, verdict in verdicts),
            "score_histogram": self.score_histogram(),
            "score_entropy": entropy(self.score_histogram()),
            "score_auc": auc(right, wrong),
            "score_outside_mass": mean(
                score.outside for _, verdict in verdicts for score in scores_of(verdict)
            ),
        }

    def score_histogram(self) -> list[int]:
        """The number of trajectories with each score, rounded down."""
        counts = [0] * self.levels
        for rollout in self.rollouts:
            if rollout.verdict:
                counts[int(rollout.verdict.value)] += 1
        return counts

    def rows(self) -> Iterator[dict]:
        """One row for each rollout, for `samples.jsonl`."""
        for group, group_advantages in zip(self.groups, self.advantages, strict=True):
            pairs = zip(group.rollouts, group_advantages, strict=True)
            for index, (rollout, steps) in enumerate(pairs):
                yield {
                    "problem_id": group.problem.id,
                    "question": group.problem.question,
                    "answer": group.problem.answer,
                    "sample": index,
                    "accepted": rollout.accepted,
                    "replaced": rollout.replaced,
                    "score": rollout.verdict.value if rollout.verdict else None,
                    "reward_before": rollout.reward_before,
                    "reward_after": rollout.reward_after,
                    "failed_demonstrations": rollout.failed_demonstrations,
                    "feedback": rollout.feedback,
                    "revised": rollout.revised,
                    "advantages": [round(value, 6) for value in steps],
                    "student": written(rollout.student, rollout.verdict),
                    "final": written(rollout.final, rollout.final_verdict)
                    if rollout.final != rollout.student
                    else None,
                }
            for trajectory in group.dropped:
                yield {
                    "problem_id": group.problem.id,
                    "question": group.problem.question,
                    "answer": group.problem.answer,
                    "dropped": True,
                    "student": written(trajectory, None),
                }


def of_samples(sampled: Sequence[Rollout]) -> dict:
    """Metrics of the student's own trajectories."""
    return {
        "reward_before": mean(r.reward_before for r in sampled),
        "accuracy": mean(r.reward_before == 1.0 for r in sampled),
        "completion_tokens": mean(r.student.written_tokens for r in sampled),
        "truncated_share": mean(not r.student.stopped for r in sampled),
    }


def of_decisions(decided: Sequence[Rollout]) -> dict:
    """Metrics of acceptance, over the rollouts that could be rejected."""
    outcomes = [(r.accepted, r.reward_before == 1.0) for r in decided]
    return {
        "acceptance_rate": mean(accepted for accepted, _ in outcomes),
        # Precision and recall of acceptance.
        "accepted_right": share(right for accepted, right in outcomes if accepted),
        "right_accepted": share(accepted for accepted, right in outcomes if right),
        "revised_share": mean(r.revised for r in decided),
    }


def written(trajectory: Trajectory, verdict: Verdict | None) -> dict:
    """A trajectory and its scores, if it was judged, as JSON."""
    ends = (0, *trajectory.step_ends)
    shares = [mean(trajectory.from_teacher[a:b]) for a, b in itertools.pairwise(ends)]
    whole = verdict.whole if verdict else None
    return {
        "steps": list(trajectory.step_texts),
        "teacher_share": shares,
        "tokens": len(trajectory.tokens),
        "stopped": trajectory.stopped,
        "step_scores": [as_row(score) for score in verdict.steps] if verdict else [],
        "score": as_row(whole) if whole else None,
    }


def as_row(score: Score) -> dict:
    """A score and its distribution, rounded to six digits."""
    return {
        "value": score.value,
        "probs": [round(p, 6) for p in score.probs],
        "outside": round(score.outside, 6),
    }


def scores_of(verdict: Verdict) -> tuple[Score, ...]:
    """All scores of a verdict."""
    return (*verdict.steps, verdict.whole) if verdict.whole else verdict.steps


def is_flat(advantages: Sequence[Sequence[float]]) -> bool:
    """True if all advantages of a group are 0."""
    return all(abs(value) < 1e-6 for steps in advantages for value in steps)


def share(values: Iterable[float]) -> float | None:
    """Fraction of true values; None without values."""
    values = list(values)
    return mean(values) if values else None


def mean(values: Iterable[float]) -> float:
    """The mean; 0 without values."""
    values = [float(value) for value in values]
    return statistics.fmean(values) if values else 0.0
