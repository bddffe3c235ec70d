"""Code review of a diff."""

from programs.review.program import Review, review_diff

__all__ = ["Review", "review_diff"]
