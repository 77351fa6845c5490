"""ODE error: how far a student's samples lie from where its teacher's ODE ends from the same noise and prompts."""

from __future__ import annotations

import numpy as np

from directcm.errors import UserError

METRICS = {
    # From another noise the ODE ends elsewhere: that is no error of the solver or of a student.
    "ode_error": {
        "rank": 1, "title": "ODE error", "better": "lower", "references": ("teacher",), "same_noise": True,
        "takes": ("latents", "rows", "reference.latents", "reference.rows"), "function": "ode_error",
        "per_sample": True, "decimals": 4, "unit": "{space} MSE", "bounds": (0.0, None), "headline": True,
    },
}  # fmt: skip


def matched(student: np.ndarray, student_rows: np.ndarray, teacher: np.ndarray, teacher_rows: np.ndarray) -> np.ndarray:
    """The teacher's latents (n, c, h, w) in the order of `student_rows` (n,), matched by row number, whatever their order.

    Rows that are not the same set, or that repeat, and unequal shapes are a UserError.
    """
    student_rows, teacher_rows = np.asarray(student_rows), np.asarray(teacher_rows)
    for name, latents, rows in (("student", student, student_rows), ("teacher", teacher, teacher_rows)):
        if rows.shape != (latents.shape[0],):
            raise UserError(f"{name}: {latents.shape[0]} latents but {rows.size} row numbers; make the samples again")
        if np.unique(rows).size != rows.size:
            raise UserError(f"{name}: a row number is there twice; the same shard was given twice")
    if student.shape[1:] != teacher.shape[1:]:
        raise UserError(
            f"latents of student and teacher have shapes {student.shape[1:]} and {teacher.shape[1:]}: "
            "they come from different teachers"
        )
    order = np.argsort(teacher_rows)
    if not np.array_equal(np.sort(student_rows), teacher_rows[order]):
        raise UserError(
            f"rows of student ({student_rows.size}) and teacher ({teacher_rows.size}) are not the same; "
            "they must come from one noise"
        )
    if student_rows.size == 0:
        raise UserError("ode_error: there are no samples")
    found = order[np.searchsorted(teacher_rows[order], student_rows)]
    return teacher if np.array_equal(found, np.arange(found.size)) else teacher[found]


def ode_error(
    student: np.ndarray, student_rows: np.ndarray, teacher: np.ndarray, teacher_rows: np.ndarray
) -> np.ndarray:
    """Mean squared difference of the final latents, per sample, float64 (n,), in the order of `student_rows`.

    The error of the set is the mean. What `matched` refuses, and latents that are not finite, are a UserError.
    """
    other = matched(student, student_rows, teacher, teacher_rows)
    difference = student.astype(np.float64) - other.astype(np.float64)
    error = (difference.reshape(difference.shape[0], -1) ** 2).mean(axis=1)
    finite = np.isfinite(error)
    if not finite.all():
        raise UserError(
            f"ode_error: row {int(student_rows[np.argmin(finite)])} has NaN or infinite latents; make the samples again"
        )
    return error
