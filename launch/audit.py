"""Measure a teacher as a judge: AUC of its scores of right and wrong held-out steps.

    python launch/audit.py
    python launch/audit.py --config.teacher.model=runs/quickstart_teacher/export

The last line on stdout is a summary in JSON.
"""

from ovd_jax import audit, flags

if __name__ == "__main__":
    flags.run(audit.main, doc=__doc__, default="configs/quickstart.py")
