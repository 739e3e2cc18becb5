"""Which completions may be credited at all: those that ended by themselves.

It may assume the column `finished` of rollouts (True: the model stopped; False: cut by length), if there is one.
It will not read an answer.
"""

NEEDS = ("finished", "anything")


def credited(finished: list[bool | None] | None, needs: str, num_completions: int) -> list[bool]:
    """Per completion, False if it was cut by length and `needs` is "finished". Without the column all are graded."""
    if needs not in NEEDS:
        raise ValueError(f"needs is one of {', '.join(NEEDS)}, not {needs!r}")
    if finished is None or needs == "anything":
        return [True] * num_completions
    return [flag is not False for flag in finished]
